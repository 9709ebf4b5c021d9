"""What the playbooks say: a check run, status, verify; and that no run says a secret."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

VERSION = yaml.safe_load((Path(__file__).parents[3] / "galaxy.yml").read_text())["version"]

DAMAGE = {
    "ams": "ip link delete wg0ctl; nft flush chain inet warren_path to_server",
    "fra": "wg set wg0ctl peer $(wg show wg0ctl peers | head -1) remove; ip link set wg0access mtu 1300",
}


def secrets(fleet):
    """Every secret of the fleet, by what it is."""
    found = {"the fleet's secret": fleet.secret}
    for server in fleet.servers:
        for path in ("keys/control_mesh.key", "keys/multihop.key", "keys/access.key", "secrets/access_exit_seed"):
            text = fleet.sh(server, f"cat /etc/warren/{path}").strip()
            found[f"{server}: {path}"] = text
            if path.startswith("secrets"):
                found[f"{server}: {path}, as nft lists it"] = hex(int(text))
        for link in ("wg0ctl", "wg0mh"):
            for number, key in enumerate(sorted(fleet.wg(server, link, "preshared-keys").values())):
                found[f"{server}: {link}, pre-shared key {number}"] = key
    for path in fleet.inventory.glob(".clients/*/*.conf"):
        found[str(path)] = re.search("^PrivateKey = (.+)$", path.read_text(), re.MULTILINE)[1]
    return found


@pytest.fixture(scope="module")
def mending(fleet):
    """A check run and a real run over servers that were damaged by hand, as talkative as can be."""
    before = {name: fleet.curl("alice")["ip"] for name in ("v4",)}
    known = secrets(fleet)
    with fleet.unattended(*DAMAGE):
        for server, script in DAMAGE.items():
            fleet.sh(server, script)
        state = {server: state_of(fleet, server) for server in DAMAGE}
        check = fleet.site("--check", "--diff", "-vvvv")
        untouched = {server: state_of(fleet, server) for server in DAMAGE}
        real = fleet.site("--diff", "-vvvv")
    return {"secrets": known, "state": state, "untouched": untouched, "check": check, "real": real, "exit": before}


def state_of(fleet, server):
    """What a run could change on a server."""
    script = (
        "ip -br address; ip route show table all; wg show all allowed-ips | sort; nft -s list ruleset;"
        " find /etc /usr/lib/warren -type f -printf '%p %m %T@\\n' | sort"
    )
    return fleet.sh(server, script).splitlines()


def test_a_check_run_changes_nothing(mending):
    assert mending["untouched"] == mending["state"]


def test_a_check_run_says_what_the_next_run_does(fleet, mending):
    for server in fleet.servers:
        assert mending["check"].actions(server) == mending["real"].actions(server), server
        assert bool(mending["real"].actions(server)) == (server in DAMAGE)
    assert "make link wg0ctl" in mending["real"].actions("ams")
    assert "load nftables table warren_path" in mending["real"].actions("ams")
    assert mending["real"].actions("fra") == ["change link wg0ctl", "change link wg0access"]


def test_the_diff_shows_what_differed(mending):
    for run in (mending["check"], mending["real"]):
        assert "+++ after: link wg0ctl" in run.text
        assert re.search(
            r"-  mtu 1300, group 0x57000001, up\n.*\+  mtu 1420, group 0x57000001, up", run.text, re.DOTALL
        )
        assert "pre-shared key set" in run.text


def test_no_run_says_a_secret_at_any_verbosity(fleet, mending):
    clients = fleet.playbook("clients", "--diff", "-vvvv", "-e", "clients_server=fra")
    said = {"check run": mending["check"].text, "run": mending["real"].text, "clients": clients.text}
    said |= {f"journal of {server}": fleet.sh(server, "journalctl --no-pager -o verbose") for server in fleet.servers}
    for where, text in said.items():
        assert [what for what, secret in mending["secrets"].items() if secret in text] == [], where


def test_a_run_does_not_change_where_a_client_comes_out(fleet, mending):
    assert fleet.curl("alice")["ip"] == mending["exit"]["v4"]


@pytest.mark.usefixtures("mending")
def test_status_is_a_table_for_people(fleet):
    fleet.wait_for(lambda: status(fleet)["ams"]["links"]["wg0ctl"]["silent"] == [], "the mesh is whole again")
    for client in ("alice", "bob"):
        fleet.curl(client)
    text = fleet.playbook("status").text
    pairs = len(fleet.servers) - 1
    for server in fleet.servers:
        clients = "[123]" if server in ("ams", "fra") else "[0-3]"
        links = f"{pairs + 3}/{pairs + 3}"
        row = rf"^{server} +{links} +{pairs}/{pairs} +\d+ s +{pairs}/{pairs} +{clients}/3 +{re.escape(VERSION)} +ok$"
        assert re.search(row, text, re.MULTILINE), text


def status(fleet):
    """What status.yml says to machines."""
    text = fleet.playbook("status", "-e", "output=json").text
    return json.loads(next(line for line in text.splitlines() if line.startswith("{")))


@pytest.mark.usefixtures("mending")
def test_status_is_json_for_machines(fleet):
    for server, result in status(fleet).items():
        assert result["links"]["wg0ctl"]["peers"] == len(fleet.servers) - 1, server
        assert result["links"]["wg0access"]["up"] is True
        assert result["version"] == VERSION


@pytest.mark.usefixtures("mending")
def test_verify_passes_and_fails_loudly_where_a_rule_is_gone(fleet, tmp_path):
    outside = tmp_path / "outside.yml"
    outside.write_text("warren_outside: {hosts: {web: {}}}\n")
    fleet.playbook("verify", "-i", str(outside))
    with fleet.unrepaired("fra"):
        fleet.sh("fra", "nft delete table inet warren_control_mesh")
        run = fleet.playbook("verify", "-i", str(outside), ok=False)
        assert run.code != 0
        assert any(re.search("fra v4 answers at 10.77.0.2", message) for message in run.failures.values()), run.text
        assert fleet.site().actions("fra") == ["load nftables table warren_control_mesh"]
    fleet.settled()
