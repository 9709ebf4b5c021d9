"""The backend: what a server may ask of another, and that nobody else can ask anything."""

from __future__ import annotations

import json
import shlex

import pytest

# As the source document writes it.
CALL = (
    "curl -sS --max-time 8 --data-urlencode op={op} --data-urlencode a_slug={slug} "
    "--data-urlencode session_ip={ip} --data-urlencode session_ip6={ip6} http://10.77.0.3/mh-backend"
)
OURS = {"ip": "10.128.130.7", "ip6": "fd57:6172:7265:8001::7"}


@pytest.fixture(autouse=True)
def clean(fleet):
    """Every test ends without sessions."""
    yield
    fleet.try_sh("ams", CALL.format(op="stop", slug="ams", **OURS))
    fleet.without_sessions()


def call(fleet, server, **fields):
    """What the backend of nyc answers to a server, and with which status."""
    command = CALL.format(**{"op": "start", "slug": server, **OURS, **fields}) + r" -w '\n%{http_code}'"
    answer, status = fleet.sh(server, command).rsplit("\n", 1)
    return json.loads(answer), int(status)


def elements(fleet):
    """The elements of nyc's maps."""
    return fleet.sh("nyc", "nft list map inet warren_path session_exit4; nft list map inet warren_path session_exit6")


def test_the_documents_call_typed_by_hand_starts_a_session(fleet):
    command = CALL.replace("-sS", "-fsS").format(op="start", slug="ams", **OURS)
    exits = json.loads(fleet.sh("ams", command))["exits"]
    assert exits[OURS["ip"]] in fleet.exits("nyc")
    assert exits[OURS["ip6"]] in fleet.exits("nyc", 6)
    for session, address in exits.items():
        assert f"{session} : {address}" in elements(fleet)
    fleet.sh("ams", command.replace("op=start", "op=stop"))
    assert OURS["ip"] not in elements(fleet)


def test_a_session_that_nobody_renews_ends(fleet):
    call(fleet, "ams")
    fleet.wait_for(lambda: OURS["ip"] not in elements(fleet), "the session is over", 30)
    assert fleet.agrees("nyc")["leases"] == 0


@pytest.mark.parametrize(
    ("server", "fields", "status", "reason"),
    [
        ("ams", {"slug": "fra"}, 403, "a_slug"),
        ("fra", {"slug": "ams"}, 403, "a_slug"),
        ("fra", {}, 403, "session_prefix"),
        ("ams", {"ip": "10.129.0.7"}, 403, "session_prefix"),
        ("ams", {"ip": "198.51.100.80"}, 403, "session_prefix"),
        ("ams", {"ip6": "fd57:6172:7265:8002::7"}, 403, "session_prefix"),
        ("ams", {"ip": "10.128.130.7/32"}, 400, "session_ip"),
        ("ams", {"ip": ""}, 400, "session_ip"),
        ("ams", {"ip6": "fd57:6172:7265:8001::7%1"}, 400, "session_ip6"),
        ("ams", {"op": "flush"}, 400, "op"),
        ("nyc", {}, 403, "source"),
    ],
)
def test_anything_else_is_refused_with_a_reason(fleet, server, fields, status, reason):
    before = elements(fleet)
    said, code = call(fleet, server, **fields)
    assert (code, said["reason"]) == (status, reason)
    assert elements(fleet) == before


def test_it_listens_on_the_control_addresses_only(fleet):
    """And the portal on its own, where it answers nothing of this."""
    listening = {line.split()[3] for line in fleet.sh("nyc", "ss -Hltn").splitlines()}
    backend, portal = {"10.77.0.3:80", "[fd57:6172:7265:1::3]:80"}, {"10.31.33.7:80", "[fd57:6172:7265:33::7]:80"}
    assert {address for address in listening if address.endswith(":80")} == backend | portal


def test_clients_do_not_reach_it(fleet, version):
    """Not by address, not through the portal, and not through a session by the server itself."""
    portal = "10.31.33.7" if version == 4 else "fd57:6172:7265:33::7"
    addresses = [portal, *(fleet.control(server, version) for server in fleet.servers), fleet.entry("nyc", version)]
    assert fleet.connects("ams", fleet.control("nyc"), 80), "nobody listens: the test shows nothing"
    for _time in range(2):
        assert {text for text in fleet.reached("alice", addresses, 80) if "TCP" in text} == {f"{portal} by TCP"}
        for path in ("mh-backend", "metrics", "openapi.json"):
            host = portal if version == 4 else f"[{portal}]"
            status = fleet.sh("alice", f"curl -s -o /dev/null -w '%{{http_code}}' http://{host}/{path}")
            assert status == "404", path
        fleet.ctl("ams", "start", "alice", "nyc")


SPOOF = """
import sys
from scapy.all import IP, IPv6, TCP, Ether, sendp, getmacbyip, getmacbyip6, conf
conf.verb = 0
source, to, by, version = sys.argv[1:5]
mac = getmacbyip(by) if version == "4" else getmacbyip6(by)
network = IP(src=source, dst=to) if version == "4" else IPv6(src=source, dst=to)
for port in range(5): sendp(Ether(dst=mac) / network / TCP(sport=50000 + port, dport=80, flags="S"), iface="eth0")
"""


def test_the_internet_does_not_reach_it_with_a_forged_source_either(fleet, version):
    """Packets to the control address and to the entry address, from a server's control address and its public one."""
    since = fleet.sh("nyc", "nft list counters >/dev/null; ss -Htn state syn-recv | wc -l")
    for source in (fleet.control("ams", version), fleet.entry("ams", version), fleet.web(version)):
        for to in (fleet.control("nyc", version), fleet.entry("nyc", version)):
            fleet.python("web", SPOOF, source, to, fleet.entry("nyc", version), str(version))
    assert fleet.sh("nyc", "ss -Htn state syn-recv | wc -l") == since
    assert fleet.connects("web", fleet.entry("nyc", version), 80, 1) is False


def test_what_prometheus_reads_names_no_client(fleet):
    fleet.ctl("ams", "start", "alice", "nyc")
    fleet.ctl("ams", "start", "alice", "lon", status=1)
    text = fleet.sh("ams", "curl -sS http://10.77.0.1/metrics")
    assert 'warren_sessions{exit="nyc"} 1.0' in text
    assert 'warren_exit_up{exit="nyc"} 1.0' in text
    assert "warren_backend_call_seconds_bucket" in text
    assert 'warren_session_start_failures_total{reason="unknown_exit"}' in text
    assert 'warren_leases{entry="ams"} 1.0' in fleet.sh("fra", f"curl -sS http://{fleet.control('nyc')}/metrics")
    for word in ("alice", fleet.tunnel_address("alice"), fleet.tunnel_address("alice", 6), "10.12"):
        assert word not in text


def test_the_description_is_served(fleet):
    described = json.loads(fleet.sh("ams", "curl -sS http://10.77.0.3/openapi.json"))
    assert set(described["paths"]) == {"/mh-backend", "/metrics", "/openapi.json"}


def test_the_agent_is_well_locked_in(fleet):
    """The figure is in docs/architecture.md."""
    said = fleet.sh("ams", "systemd-analyze security --no-pager warrend.service | tail -n 1")
    assert float(said.split("warrend.service:")[1].split()[0]) <= 2.0, said
    status = fleet.sh("ams", "cat /proc/$(systemctl show -P MainPID warrend)/status")
    assert "CapEff:\t0000000000001000" in status, "CAP_NET_ADMIN and nothing else"
    assert "NoNewPrivs:\t1" in status


def test_only_root_may_use_warrenctl(fleet):
    done = fleet.try_sh("ams", f"setpriv --reuid=1000 --clear-groups {shlex.quote('/usr/local/sbin/warrenctl')} list")
    assert done.returncode == 1
    assert "only root may do this" in done.stderr
