"""What an exit gets to know of a client: nothing. Neither its tunnel address nor its real one is seen there."""

from __future__ import annotations

import re

# All that is not a device, on the server's disk or in its journal.
FIND = (
    "journalctl --no-pager | grep -cF -- {0} || true; "
    "grep -rlaF -- {0} /var/lib /var/log /etc/warren /run --exclude-dir=journal --exclude-dir=host 2>/dev/null "
    "| grep -vE '^/(etc/warren/(agent|clients|network).json|run/captured)' || true"
)


def test_the_exit_sees_neither_the_tunnel_address_nor_the_real_one(fleet):
    """Looked for in the packets of the link, inside and outside the tunnel, in files, the journal and the metrics."""
    real = {"198.51.100.100", "2001:db8:100::100"}
    inner = {fleet.tunnel_address("alice", version) for version in (4, 6)}
    with fleet.capture("nyc", "not port 22") as packets:
        fleet.ctl("ams", "start", "alice", "nyc")
        for version in (4, 6):
            fleet.curl("alice", version)
            fleet.seen("alice", version)
            fleet.answers("alice", fleet.web(version))
            fleet.python("alice", CLOSED_PORT, fleet.web(version))
        fleet.ctl("ams", "stop", "alice")
        seen = packets()
    inside = [line for line in seen if "wg0mh" in line]
    assert any("10.128." in line for line in inside), "no packet of the session: the test shows nothing"
    assert any("ICMP" in line for line in inside)
    for address in real | inner:
        assert [line for line in seen if re.search(rf"(?<![\d.:]){re.escape(address)}(?![\d:])", line)] == []
        assert fleet.sh("nyc", FIND.format(address)) == "0\n"
        assert address not in fleet.sh("nyc", "curl -sS http://10.77.0.3/metrics")


CLOSED_PORT = """
import socket, sys
s = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
s.connect((sys.argv[1], 9)); s.settimeout(1); s.send(b"x")
try: s.recv(9)
except OSError: pass
"""


def test_the_entry_logs_no_address_of_a_client(fleet):
    fleet.ctl("ams", "start", "alice", "nyc")
    fleet.ctl("ams", "start", "alice", "sgp")
    fleet.ctl("ams", "stop", "alice")
    for version in (4, 6):
        address = fleet.tunnel_address("alice", version)
        assert fleet.sh("ams", f"journalctl --no-pager -u warrend | grep -cF {address} || true") == "0\n"
    assert fleet.sh("ams", "journalctl --no-pager -u warrend | grep -cF 198.51.100.100 || true") == "0\n"


def test_what_the_internet_hears_of_a_client_that_is_gone_does_not_come_from_its_entry(fleet):
    """An answer arrives for a client whose device is off: no error message of ams gets to the other end."""
    fleet.ctl("ams", "start", "alice", "nyc")
    port = 40123
    fleet.send("alice", port, fleet.web(), 7004)
    since = fleet.now()
    key = fleet.sh("alice", "wg show ams public-key").strip()
    allowed = fleet.wg("ams", "wg0access", "allowed-ips")[key].replace(" ", ",")
    fleet.sh("ams", f"wg set wg0access peer {key} remove")
    try:
        sent = fleet.recorded("udp dst port 7004", 0)[-1]
        source, source_port = re.search(r" (\S+)\.(\d+) > ", sent).groups()
        fleet.python("web", ANSWER, source, source_port)
        fleet.until_recorded()
        assert fleet.recorded(f"icmp and src net {fleet.entry('ams')}/32", since) == []
        assert [line for line in fleet.recorded("icmp", since) if any(a in line for a in fleet.exits("ams"))] == []
    finally:
        fleet.sh("ams", f"wg set wg0access peer {key} allowed-ips {allowed}")
        fleet.ctl("ams", "disconnected", "alice")
    fleet.wait_for(lambda: fleet.answers("alice", "10.31.33.7", 1), "alice is back")


ANSWER = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("", 7004))
for attempt in range(3): s.sendto(b"late", (sys.argv[1], int(sys.argv[2])))
"""
