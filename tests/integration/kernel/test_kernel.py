"""What is so on the kernel's WireGuard only: who runs links, how they are made and changed, and how they come back."""

from __future__ import annotations

import json
import shlex

import pytest

pytestmark = pytest.mark.kernel

MEBIBYTES = 4
PORTAL6 = "fd57:6172:7265:33::7"

# In a network namespace of its own: two interfaces get the same settings, one by netlink and one by wg, three times.
TWINS = """
import base64, contextlib, json, os, subprocess, sys
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, "/usr/lib/warren")
from warren_network import _keys, _netlink, _wireguard
from warren_network._link import Link, Peer
def key(number): return base64.b64encode(number.to_bytes(32, "big")).decode()
def peer(number, **more):
    settings = dict(preshared_key=key(number + 5000), endpoint=f"100.80.{number // 250}.{number % 250 + 1}:20001",
                    allowed_ips=(f"10.{number // 250}.{number % 250}.1/32", f"fd00:1::{number:x}/128"), keepalive=25)
    return Peer(name="", public_key=key(number), **{**settings, **more})
def dump(name):
    lines = subprocess.run(["wg", "show", name, "dump"], capture_output=True, text=True, check=True).stdout.splitlines()
    fields = [line.split("\\t") for line in lines]
    own, peers = fields[0], sorted([f[0], f[1], f[2], sorted(f[3].split(",")), f[7]] for f in fields[1:])
    return [own[0] != "(none)", own[2], peers]
Path("/tmp/twin.key").write_text(subprocess.run(["wg", "genkey"], capture_output=True, text=True).stdout)
_keys.key_path = lambda purpose: Path("/tmp/twin.key")
for name in ("net", "tool"): subprocess.run(["ip", "link", "add", name, "type", "wireguard"], check=True)
first = {p.public_key: p for p in [peer(n) for n in range(700)]}
second = dict(first)
for n in range(0, 300): del second[key(n)]
changes = [dict(preshared_key=""), dict(endpoint="[2001:db8::7]:9"), dict(endpoint=""), dict(keepalive=0),
           dict(allowed_ips=("0.0.0.0/0", "::/0"))]
for n, change in enumerate(changes, 300): second[key(n)] = peer(n, **change)
second[key(900)] = peer(900)
empty = Link("", "twin", "", 0, 0, (), frozenset())
stages = [(dict(listen_port=20001, peers=first), empty), (dict(listen_port=20002, peers=second), dict(peers=first)),
          (dict(listen_port=20002, peers={}), dict(peers=second, listen_port=20002))]
for wanted, here in stages:
    for name, how in (("net", None), ("tool", _wireguard._configure_userspace)):
        w = replace(empty, name=name, public_key="x", **wanted)
        h = replace(here if isinstance(here, Link) else replace(empty, public_key="x", **here), name=name)
        if how: how(w, h)
        else: _wireguard.configure([(w, h)])
    if dump("net") != dump("tool"): sys.exit(f"they differ: {dump('net')[:2]} {dump('tool')[:2]}")
    print(len(dump("net")[2]))
try: _wireguard.configure([(replace(empty, name="none", public_key="x", listen_port=1), replace(empty, name="none"))])
except Exception as error: print(error)
os.unlink("/tmp/twin.key")
"""

# How many processes a run of the engine starts.
COUNTED = """
import sys
started = []
sys.addaudithook(lambda event, arguments: started.append(1) if event == "subprocess.Popen" else None)
sys.path.insert(0, "/usr/lib/warren")
from warren_network import _restore
status = _restore.main()
print(len(started))
sys.exit(status)
"""


def links(fleet, server):
    """The names and kinds of a server's links."""
    listing = fleet.ip(server, "-details", "link")
    return {
        link["ifname"]: link.get("linkinfo", {}).get("info_kind")
        for link in listing
        if link["ifname"].startswith("wg0")
    }


def settings(fleet, server):
    """All that wg shows of a server's links, but for what changes by itself."""
    lines = [line.split("\t") for line in fleet.sh(server, "wg show all dump").splitlines()]
    return sorted(
        fields if len(fields) == 5 else [*fields[:3], *sorted(fields[4].split(",")), fields[8]] for fields in lines
    )


def test_every_link_is_the_kernels(fleet):
    for server in fleet.servers:
        found = links(fleet, server)
        assert set(found.values()) == {"wireguard"}, (server, found)
        assert len(found) == 3 + len(fleet.servers) - 1
        assert fleet.sh(server, "systemctl list-units --all --plain --no-legend 'warren-wireguard-go@*'") == ""
        assert fleet.try_sh(server, "pidof wireguard-go").returncode == 1


def test_netlink_does_to_a_link_what_wg_would(fleet):
    script = f"unshare --net python3 -c {shlex.quote(TWINS)}"
    *numbers, refused = fleet.sh("ams", script, 120).splitlines()
    assert numbers == ["700", "401", "0"]
    assert refused == "WireGuard does not take the settings of none: No such device"


def test_links_that_are_gone_come_back_as_they_were_in_a_few_processes(fleet):
    before, kinds = settings(fleet, "ams"), links(fleet, "ams")
    with fleet.unattended("ams"):
        fleet.sh("ams", f"for link in {' '.join(kinds)}; do ip link delete $link; done")
        *_actions, anew = fleet.sh("ams", f"python3 -c {shlex.quote(COUNTED)}").splitlines()
    assert (settings(fleet, "ams"), links(fleet, "ams")) == (before, kinds)
    *_actions, unchanged = fleet.sh("ams", f"python3 -c {shlex.quote(COUNTED)}").splitlines()
    # However many links there are: tests/bench/links has 250. A process for each would be five more.
    assert int(unchanged) <= 12, unchanged
    assert int(anew) - int(unchanged) <= 4, (anew, unchanged)
    for other in ("fra", "nyc"):
        fleet.wait_for(lambda other=other: fleet.answers("ams", fleet.control(other)), f"ams and {other} are connected")
    fleet.wait_for(lambda: fleet.answers("alice", fleet.web(4)), "alice is connected")


def test_a_second_run_changes_nothing(fleet):
    fleet.settled()


def test_the_first_packets_wait_for_the_handshake(fleet):
    """A peer that was just added has none yet. The kernel keeps 128 packets for it meanwhile."""
    key = fleet.public_key("nyc")
    endpoint, allowed, secret = (
        fleet.wg("ams", "wg0ctl", what)[key] for what in ("endpoints", "allowed-ips", "preshared-keys")
    )
    script = f"""
        wg set wg0ctl peer {key} remove
        wg set wg0ctl peer {key} preshared-key /dev/stdin endpoint {endpoint} allowed-ips {allowed.replace(" ", ",")}
        wg show wg0ctl latest-handshakes | grep -F {key}
        ping -q -l 100 -c 100 -W {10 * fleet.slowness:.0f} {fleet.control("nyc")}
    """
    try:
        said = fleet.sh("ams", script, text=secret)
    finally:
        fleet.sh("ams", f"wg set wg0ctl peer {key} persistent-keepalive 25")
    assert f"{key}\t0\n" in said, "they were connected already: the test shows nothing"
    assert "100 received" in said, said


def test_large_packets_and_segments_get_through(fleet, version):
    """The kernel hands WireGuard segments of up to 64 KiB and merges what it decrypts (GSO, GRO)."""
    page = fleet.web(4) if version == 4 else f"[{fleet.web(6)}]"
    fleet.ctl("ams", "start", "alice", "nyc")
    try:
        script = f"curl -sS --fail --max-time 100 http://{page}/bytes/{MEBIBYTES << 20} | wc -c"
        assert int(fleet.sh("alice", script, 120)) == MEBIBYTES << 20
        assert fleet.curl("alice", version)["ip"] in fleet.exits("nyc", version)
    finally:
        fleet.ctl("ams", "stop", "alice")


def test_the_portal_starts_and_ends_a_session(fleet):
    send = "curl -sS --fail-with-body -H 'Content-Type: application/json' {} http://10.31.33.7/api/{}"
    fleet.sh("alice", send.format("""-X PUT -d '{"exit": "nyc"}'""", "multihop"))
    fleet.wait_for(
        lambda: json.loads(fleet.sh("alice", send.format("", "status")))["state"] == "active", "the session is active"
    )
    for version in (4, 6):
        assert fleet.curl("alice", version)["ip"] in fleet.exits("nyc", version)
    assert "Frankfurt" in fleet.sh("alice", f"curl -sS --fail 'http://[{PORTAL6}]/multihop'")
    fleet.sh("alice", send.format("-X DELETE", "multihop"))
    for version in (4, 6):
        assert fleet.curl("alice", version)["ip"] in fleet.exits("ams", version)


def test_a_reboot_brings_it_all_back(fleet):
    before = settings(fleet, "nyc")
    fleet.podman("restart", "--time", "30", "nyc")
    assert settings(fleet, "nyc") == before
    for other in ("ams", "fra"):
        fleet.wait_for(lambda other=other: fleet.answers("nyc", fleet.control(other)), f"nyc and {other} are connected")
    assert set(links(fleet, "nyc").values()) == {"wireguard"}
