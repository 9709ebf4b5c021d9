"""Five hundred clients of one server load the page and press its buttons at once. How long that takes, a bench says."""

from __future__ import annotations

import base64
import json
import os
import shlex
from pathlib import Path

import pytest

CLIENTS = 500
PREFIX = "10.96.0.0/11"
CROWD = (Path(__file__).parents[2] / "bench/portal/crowd.py").read_text()


@pytest.fixture(scope="module")
def crowd(fleet):
    """Their tunnel addresses; all of them are alice."""
    names = [f"c{number:03}" for number in range(CLIENTS)]
    clients = [{"name": name, "public_key": base64.b64encode(os.urandom(32)).decode()} for name in names]
    path = fleet.inventory / "group_vars/all/crowd.yml"
    path.write_text(json.dumps({"warren_clients": [{"name": "alice", "server": "ams"}, *clients]}))
    given = fleet.inventory / "group_vars/all/fleet.yml"
    before = given.read_text()
    given.unlink()
    try:
        # The agent starts anew in that run, and would then have the peers put back that are changed here.
        with fleet.unrepaired("ams"):
            fleet.site()
            known = json.loads(fleet.sh("ams", "cat /etc/warren/clients.json"))["clients"]
            addresses = [client["address4"] for client in known if client["name"] in set(names)]
            fleet.use_server("alice", "ams")
            key = fleet.sh("alice", "wg show ams public-key").strip()
            allowed = "\n".join(f"AllowedIPs = {address}/32" for address in addresses)
            own = fleet.wg("ams", "wg0access", "allowed-ips")[key].replace(" ", ", ")
            # Taken from peers that nobody is.
            peer = f"[Peer]\nPublicKey = {key}\nAllowedIPs = {own}\n{allowed}\n"
            fleet.sh("ams", "wg addconf wg0access /dev/stdin", text=peer)
            fleet.sh("alice", f"ip route replace local {PREFIX} dev lo")
            yield addresses
    finally:
        fleet.try_sh("alice", f"ip route del local {PREFIX} dev lo")
        path.unlink()
        given.write_text(before)
        fleet.site()


def test_nobody_sees_an_error_and_the_agent_stays_small(fleet, crowd):
    text = fleet.sh("alice", f"python3 -c {shlex.quote(CROWD)} 10.31.33.7 /multihop nyc fra", 120, json.dumps(crowd))
    found = json.loads(text)
    print({name: value for name, value in found.items() if name != "errors"})
    assert found["errors"] == []
    assert found["done"] == CLIENTS
    views = fleet.ctl("ams", "list")
    assert len(views) == CLIENTS
    fleet.wait_for(
        lambda: {view["state"] for view in fleet.ctl("ams", "list")} == {"active"}, "every session is active", 20
    )
    assert fleet.agrees("ams")["sessions"] == CLIENTS
    peak = fleet.sh("ams", "grep VmHWM /proc/$(systemctl show -p MainPID --value warrend)/status")
    assert int(peak.split()[1]) < 100 * 1024, peak
