"""Where a client with a session leaves, in every protocol, and that nothing on the way is too small for its packets."""

from __future__ import annotations

import ipaddress
import itertools
import re
import shlex
import time

import pytest

ONE_FLOW = """
import socket, sys, time
name = "warren-one-flow"
s = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(0.05)
while True:
    s.sendto(b"who am I", (sys.argv[1], 80))
    try: print(s.recv(999).decode())
    except TimeoutError: pass
    time.sleep(0.01)
"""
POOLS = [ipaddress.ip_network("10.128.0.0/9"), ipaddress.ip_network("fd57:6172:7265:8000::/49")]
IN_A_SECOND = "curl -sS --fail --max-time {} http://{}/ip"


@pytest.fixture(autouse=True)
def clean(fleet):
    """Every test starts and ends without sessions."""
    fleet.without_sessions()
    yield
    fleet.without_sessions()


def echoes(fleet, since, version):
    """The source addresses of the pings that reached the web."""
    expression = "icmp[icmptype] == icmp-echo" if version == 4 else "ip6[40] == 128"
    return {line.split(" > ")[0].split()[-1] for line in fleet.recorded(expression, since)}


@pytest.mark.kernel
def test_alice_leaves_from_nyc_within_a_second_and_carol_does_not(fleet):
    assert fleet.curl("alice")["ip"] in fleet.exits("ams")
    fleet.ctl("ams", "start", "alice", "nyc")
    for version in (4, 6):
        page = fleet.web(4) if version == 4 else f"[{fleet.web(6)}]"
        text = fleet.sh("alice", IN_A_SECOND.format(fleet.slowness, page))
        assert any(f'"{address}"' in text for address in fleet.exits("nyc", version)), text
        (seen,) = fleet.seen("alice", version)
        assert seen["ip"] in fleet.exits("nyc", version)
        assert 30000 <= seen["port"] <= 51000
        since = fleet.now()
        assert fleet.answers("alice", fleet.web(version))
        fleet.until_recorded()
        assert echoes(fleet, since, version) <= set(fleet.exits("nyc", version))
        assert fleet.curl("carol", version)["ip"] in fleet.exits("ams", version)
    fleet.ctl("ams", "stop", "alice")
    for version in (4, 6):
        assert fleet.curl("alice", version)["ip"] in fleet.exits("ams", version)


def test_what_warrenctl_says_is_what_the_web_sees(fleet):
    view = fleet.ctl("ams", "start", fleet.tunnel_address("alice"), "nyc")
    assert (view["client"], view["exit"], view["state"]) == ("alice", "nyc", "active")
    assert (fleet.curl("alice", 4)["ip"], fleet.curl("alice", 6)["ip"]) == (view["exit4"], view["exit6"])
    assert fleet.ctl("ams", "show", "alice") == view
    assert fleet.ctl("ams", "list") == [view]
    assert {exit_["exit"]: exit_["reachable"] for exit_ in fleet.ctl("ams", "exits")} == dict.fromkeys(
        set(fleet.servers) - {"ams"}, True
    )
    assert all(0 < exit_["round_trip_ms"] < 1000 for exit_ in fleet.ctl("ams", "exits"))


def test_the_exit_address_is_picked_for_each_session(fleet, version):
    """Two exit addresses, sixteen sessions: always the same one comes once in 32,768 times."""
    found = {fleet.ctl("ams", "start", "alice", exit_)[f"exit{version}"] for exit_ in ["nyc", "fra"] * 16}
    assert found == {*fleet.exits("nyc", version), *fleet.exits("fra", version)}


def test_switching_takes_over_a_running_flow(fleet, version):
    """One socket goes on asking: not one answer says an address it should not, and each change shows soon."""
    first = ""
    flow = fleet.background("alice", f"exec timeout 60 python3 -u -c {shlex.quote(ONE_FLOW)} {fleet.web(version)}")
    try:
        first = flow.stdout.readline()
        for exit_ in ("nyc", "fra", "nyc"):
            fleet.ctl("ams", "start", "alice", exit_)
            time.sleep(0.5)
        fleet.ctl("ams", "stop", "alice")
        time.sleep(0.5)
    finally:
        fleet.try_sh("alice", "pkill -f warren-one-flow")
        output = first + flow.communicate(timeout=10)[0]
    seen = re.findall(r'"ip": "([^"]+)"', output)
    owners = {address: server for server in fleet.servers for address in fleet.exits(server, version)}
    order = [server for server, _answers in itertools.groupby(owners[address] for address in seen)]
    assert order == ["ams", "nyc", "fra", "nyc", "ams"], output


@pytest.mark.kernel
def test_packets_of_the_tunnels_size_pass_unfragmented(fleet, version):
    fleet.ctl("ams", "start", "alice", "nyc")
    size = 1420 - (28 if version == 4 else 48)
    fleet.sh("alice", f"ping -c 1 -W 5 -M do -s {size} {fleet.web(version)}")


def test_a_packet_too_large_for_the_link_is_answered(fleet, version):
    """As an OpenVPN client's, whose tunnel takes 1500 bytes: it is told, and the next one fits."""
    fleet.ctl("ams", "start", "alice", "nyc")
    header = 28 if version == 4 else 48
    fleet.sh("alice", "ip link set ams mtu 1500")
    try:
        said = fleet.try_sh("alice", f"ping -c 1 -W 3 -M do -s {1500 - header} {fleet.web(version)}").stdout
        assert re.search(r"mtu ?= ?1420" if version == 4 else r"mtu[ =]1420", said), said
        assert fleet.answers("alice", f"-M do -s {1420 - header} {fleet.web(version)}")
    finally:
        fleet.sh("alice", "ip link set ams mtu 1420; ip route flush cache; ip -6 route flush cache")


def test_an_answer_too_large_for_the_link_does_not_vanish(fleet, version):
    """The exit tells the web, from behind the address translation, and the web sends smaller ones."""
    fleet.ctl("ams", "start", "alice", "nyc")
    fleet.sh("nyc", "ip link set wg0mh mtu 1300")
    try:
        size = 1420 - (28 if version == 4 else 48)
        fleet.wait_for(
            lambda: fleet.answers("alice", f"-s {size} {fleet.web(version)}", 1), "a large ping is answered", 10
        )
    finally:
        fleet.sh("nyc", "ip link set wg0mh mtu 1420")
        fleet.sh("web", "ip route flush cache; ip -6 route flush cache")


@pytest.mark.kernel
def test_tcp_is_told_the_size_of_the_link(fleet, version):
    """Even if the client does not know it, in both directions."""
    fleet.ctl("ams", "start", "alice", "nyc")
    since = fleet.now()
    host = fleet.web(4) if version == 4 else f"[{fleet.web(6)}]"
    fleet.sh("alice", "ip link set ams mtu 1500")
    try:
        size = fleet.sh("alice", f"curl -s -m 20 -o /dev/null -w '%{{size_download}}' http://{host}/bytes/3000000")
        assert size == "3000000"
    finally:
        fleet.sh("alice", "ip link set ams mtu 1420")
    fleet.until_recorded()
    (syn, *_more) = fleet.recorded(f"{'ip' if version == 4 else 'ip6'} and tcp dst port 80", since)
    assert f"mss {1420 - (40 if version == 4 else 60)}," in syn, syn


@pytest.mark.parametrize("server", ["ams", "nyc"])
def test_a_strict_reverse_path_filter_is_no_obstacle(fleet, server):
    """As many hosts are hardened. IPv6 has none in the kernel."""
    fleet.ctl("ams", "start", "alice", "nyc")
    fleet.sh(server, "sysctl -qw net.ipv4.conf.all.rp_filter=1")
    try:
        assert fleet.curl("alice")["ip"] in fleet.exits("nyc")
    finally:
        fleet.sh(server, "sysctl -qw net.ipv4.conf.all.rp_filter=0")


def test_the_way_to_the_exit_itself_is_not_through_the_link(fleet):
    """A client that talks to its exit's own address does so from the exit; WireGuard's packets take the main table."""
    fleet.ctl("ams", "start", "alice", "nyc")
    assert "dev eth0" in fleet.sh("ams", f"ip route get {fleet.entry('nyc')}")
    route = fleet.sh(
        "ams", f"ip route get {fleet.entry('nyc')} from {fleet.tunnel_address('alice')} iif wg0access mark 0x70000003"
    )
    assert "dev wg0mh-r3" in route
    assert fleet.curl("alice")["ip"] in fleet.exits("nyc")


def test_what_is_no_tcp_udp_or_icmp_does_not_leave(fleet):
    since = fleet.now()
    fleet.ctl("ams", "start", "alice", "nyc")
    for protocol in (47, 50, 132):
        fleet.python("alice", RAW, str(protocol), fleet.web())
    fleet.send("alice", 40000, fleet.web(), 7002)
    fleet.wait_for(lambda: fleet.recorded("udp dst port 7002", since), "the web sees a UDP packet")
    fleet.until_recorded()
    assert fleet.recorded("ip proto 47 or ip proto 50 or ip proto 132", since) == []


COUNT_STORED = """
import sqlite3
print(sqlite3.connect("/var/lib/warrend/sessions.db").execute("select count(*) from session").fetchone()[0])
"""
RAW = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, int(sys.argv[1]))
s.sendto(bytes(40), (sys.argv[2], 0))
"""


def test_a_client_may_choose_an_exit_address_instead(fleet, version):
    """One or the other: each refuses while there is the other, and says what to do."""
    chosen = fleet.exits("ams", version)
    for address in (*chosen, *chosen):
        fleet.ctl("ams", "choose", "alice", address)
        assert fleet.curl("alice", version)["ip"] == address
        (seen,) = fleet.seen("alice", version)
        assert seen["ip"] == address
        assert 30000 <= seen["port"] <= 51000
    said = fleet.ctl("ams", "start", "alice", "nyc", status=1)
    assert "Go back to the default first" in said["error"]
    assert fleet.curl("alice", version)["ip"] == chosen[-1]
    fleet.ctl("ams", "choose", "alice", "default")
    fleet.ctl("ams", "start", "alice", "nyc")
    said = fleet.ctl("ams", "choose", "alice", chosen[0], status=1)
    assert "Stop that session first" in said["error"]
    assert fleet.curl("alice", version)["ip"] in fleet.exits("nyc", version)


def test_nothing_remains_of_a_session(fleet):
    fleet.ctl("ams", "start", "alice", "nyc")
    for version in (4, 6):
        fleet.curl("alice", version)
        fleet.seen("alice", version)
        fleet.answers("alice", fleet.web(version))
    addresses = {fleet.tunnel_address("alice", version) for version in (4, 6)}
    assert fleet.tunnel_address("alice") in fleet.sh("ams", "conntrack -L 2>/dev/null")
    fleet.ctl("ams", "stop", "alice")
    for server in ("ams", "nyc"):
        counted = fleet.agrees(server)
        assert (counted["sessions"], counted["leases"]) == (0, 0)
        flows = fleet.sh(server, "conntrack -L 2>/dev/null; conntrack -L -f ipv6 2>/dev/null")
        # To the web only: those to the portal, which earlier tests asked, leave from nowhere.
        webs = tuple(f" dst={fleet.web(version)} " for version in (4, 6))
        left = "\n".join(line for line in flows.splitlines() if any(web in line for web in webs))
        found = {ipaddress.ip_address(text) for text in re.findall(r"\bsrc=(\S+)", left)}
        assert [one for one in found if str(one) in addresses or any(one in pool for pool in POOLS)] == []
        assert fleet.elements_of_sessions(server) == ""
    stored = fleet.python("ams", COUNT_STORED)
    assert stored.strip() == "0"


def test_a_client_that_disconnects_has_no_session_any_more(fleet):
    """What a hook of OpenVPN runs; it may run when there is nothing to end."""
    fleet.ctl("ams", "start", "alice", "nyc")
    fleet.ctl("ams", "disconnected", fleet.tunnel_address("alice"))
    assert fleet.curl("alice")["ip"] in fleet.exits("ams")
    fleet.ctl("ams", "disconnected", fleet.tunnel_address("alice"))
    assert fleet.agrees("nyc")["leases"] == 0


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("start", "alice", "ams"), 1, "ams is this server"),
        (("start", "alice", "lon"), 1, "lon is no exit. There are: fra, nyc"),
        (("start", "eve", "nyc"), 1, "eve is no client of ams"),
        (("stop", "alice"), 1, "alice has no session"),
        (("choose", "alice", "198.51.100.23"), 1, "no exit address of ams. There are: 198.51.100.21"),
        (("start", "alice"), 2, "usage: warrenctl start"),
        (("strat", "alice"), 2, "invalid choice: 'strat'"),
    ],
)
def test_a_wrong_command_says_what_is_wrong_and_changes_nothing(fleet, words, status, message):
    done = fleet.try_sh("ams", f"warrenctl {' '.join(words)}")
    assert done.returncode == status
    assert message in done.stderr
    assert fleet.ctl("ams", "list") == []


def test_warrenctl_for_people(fleet):
    """The tables of `list` and `exits`, and one sentence for the rest."""
    assert re.fullmatch(
        r"alice leaves from nyc: 198\.51\.100\.[23]3, 2001:db8:100::[23]3\n",
        fleet.sh("ams", "warrenctl start alice nyc"),
    )
    assert re.search(r"^alice +nyc +active +198\.51\.100\.[23]3 ", fleet.sh("ams", "warrenctl list"), re.MULTILINE)
    assert re.search(r"^fra +Frankfurt +Europe +[\d.]+ ms +ok$", fleet.sh("ams", "warrenctl exits"), re.MULTILINE)
    assert fleet.sh("ams", "warrenctl stop alice") == "alice leaves from ams\n"
