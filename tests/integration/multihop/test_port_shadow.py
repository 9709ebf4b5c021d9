"""Port shadow (CVE-2021-3773): a client must not receive what others are sent, at its entry and at its exit.

The attacker, alice, sends from the port of a service, or of another's flow, so that connection tracking takes what
comes back for hers. Attacks on services are tried twice: with the rules as they are, and with those that protect taken
out, to see that they would work without them.
"""

from __future__ import annotations

import re
import time
from contextlib import contextmanager

import pytest

# A client sends one packet from a port, by UDP or as the first of a TCP connection.
CLAIM = """
import socket, sys
proto, port, to, to_port = sys.argv[1:5]
kind = socket.SOCK_STREAM if proto == "tcp" else socket.SOCK_DGRAM
s = socket.socket(socket.AF_INET6 if ":" in to else socket.AF_INET, kind)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("", int(port)))
s.setblocking(False)
try: s.connect((to, int(to_port)))
except BlockingIOError: pass
if proto == "udp": s.send(b"shadow")
"""
# The web sends one from its own port. By TCP it opens from its side too: no sequence number has to fit.
SEND = """
import sys
from scapy.all import IP, IPv6, TCP, UDP, Raw, send, conf
conf.verb = 0
proto, to, to_port = sys.argv[1:4]
network = (IPv6 if ":" in to else IP)(dst=to)
ports = {"sport": 45678, "dport": int(to_port)}
send(network / (TCP(flags="S", **ports) if proto == "tcp" else UDP(**ports) / Raw(b"shadow")))
"""
# Its own TCP would say that it knows of no such connection.
QUIET = """
nft -f - <<END
table inet quiet { chain output { type filter hook output priority 0; tcp sport 45678 tcp flags rst drop; }; }
END
"""
VICTIM_PORT = 45678


@pytest.fixture(autouse=True)
def clean(fleet):
    """Every test starts and ends without sessions, and with the rules as they are."""
    fleet.without_sessions()
    fleet.sh("web", QUIET)
    yield
    fleet.sh("web", "nft delete table inet quiet")
    fleet.without_sessions()


def naive(fleet, server):
    """Rules as many VPN servers have them: clients leave from the address that services listen on, from any port.

    In front of ours, and with those that drop a service's source port taken out.
    """
    entry4, entry6 = fleet.entry(server), fleet.entry(server, 6)
    script = f"""
        for chain in from_client_udp from_session_udp; do
          nft -a list chain inet warren_path $chain | sed -n 's/.*udp sport .* drop # handle //p' |
            while read handle; do nft delete rule inet warren_path $chain handle $handle; done
        done
        nft insert rule inet warren_path leaving meta mark '&' 0x60000000 == 0x60000000 accept
        nft insert rule inet warren_path leaving meta mark '&' 0xf0000000 == 0x50000000 accept
        nft delete table inet warren_wireguard || true
        nft -f - <<END
        table inet naive {{
          chain postrouting {{
            type nat hook postrouting priority srcnat - 20; policy accept;
            oifname "eth0" ip saddr 10.64.0.0/10 snat ip to {entry4}
            oifname "eth0" ip saddr 10.128.0.0/9 snat ip to {entry4}
            oifname "eth0" ip6 saddr fd57:6172:7265::/48 snat ip6 to {entry6}
          }}
        }}
END
        conntrack -F 2>/dev/null
    """
    fleet.sh(server, script)


@contextmanager
def heard(fleet, version):
    """The packets from the web that reach alice in her tunnel."""
    family = "ip" if version == 4 else "ip6"
    with fleet.capture("alice", f"{family} and src host {fleet.web(version)} and not icmp and not icmp6") as packets:
        yield lambda: [line for line in packets() if re.search(rf"\.{VICTIM_PORT} > ", line)]


def attack(fleet, proto, version, server, service):
    """Whether alice hears what the web sends to a service of a server, having claimed the service's port before."""
    with heard(fleet, version) as packets:
        fleet.python("alice", CLAIM, proto, str(service), fleet.web(version), str(VICTIM_PORT))
        # The victim is whoever uses this server's service from that port of the web.
        for address in (fleet.entry(server, version), *fleet.exits(server, version)):
            fleet.python("web", SEND, proto, address, str(service))
        time.sleep(0.5)
        return packets()


# WireGuard's port for clients, and one of a service that may come.
@pytest.mark.parametrize(("proto", "service"), [("udp", 51820), ("tcp", 8443)])
@pytest.mark.parametrize("where", ["entry", "exit"])
def test_a_client_cannot_take_a_services_packets(fleet, version, proto, service, where):
    server = "ams" if where == "entry" else "nyc"
    if where == "exit":
        fleet.ctl("ams", "start", "alice", "nyc")
    assert attack(fleet, proto, version, server, service) == []
    on_the_way = sorted({"ams", server})
    try:
        with fleet.unattended(*on_the_way):
            for name in on_the_way:
                naive(fleet, name)
            assert attack(fleet, proto, version, server, service) != [], "it does not work even so: nothing is shown"
    finally:
        for name in on_the_way:
            fleet.sh(name, "nft delete table inet naive; conntrack -F 2>/dev/null")
        fleet.site("--limit", ",".join(on_the_way))


@pytest.mark.parametrize("proto", ["udp", "tcp"])
@pytest.mark.parametrize("where", ["entry", "exit"])
def test_a_client_cannot_take_anothers_packets(fleet, version, proto, where):
    """carol has a flow; alice claims its port on the same exit address, and then hears nothing of it."""
    server = "ams" if where == "entry" else "nyc"
    if where == "exit":
        exit4 = fleet.ctl("ams", "start", "carol", "nyc")["exit4"]
        while fleet.ctl("ams", "start", "alice", "nyc")["exit4"] != exit4:
            fleet.ctl("ams", "stop", "alice")
    fleet.python("carol", CLAIM, proto, "41234", fleet.web(version), str(VICTIM_PORT))
    flows = fleet.sh(server, f"conntrack -L -f ipv{version} -p {proto} --dport {VICTIM_PORT} 2>/dev/null")
    address, port = re.search(rf"src=\S+ dst=(\S+) sport={VICTIM_PORT} dport=(\d+)", flows).groups()
    with heard(fleet, version) as packets:
        fleet.python("alice", CLAIM, proto, port, fleet.web(version), str(VICTIM_PORT))
        with fleet.capture("carol", f"src host {fleet.web(version)} and src port {VICTIM_PORT}") as carols:
            fleet.python("web", SEND, proto, address, port)
            fleet.wait_for(carols, "carol hears what is hers")
        assert packets() == []


@pytest.mark.parametrize("port", [51820, 20000, 20001, 21001])
def test_a_session_cannot_send_from_the_port_of_a_service_of_its_exit(fleet, version, port):
    fleet.ctl("ams", "start", "alice", "nyc")
    since = fleet.now()
    fleet.python("alice", CLAIM, "udp", str(port), fleet.web(version), "7001")
    fleet.python("alice", CLAIM, "udp", "40000", fleet.web(version), "7002")
    fleet.wait_for(lambda: fleet.recorded("udp dst port 7002", since), "the web sees a packet from another port")
    fleet.until_recorded()
    assert fleet.recorded("udp dst port 7001", since) == []


def test_no_flow_of_a_session_leaves_from_a_port_outside_the_range(fleet, version):
    """With the port a client asks for inside it, below and above it."""
    fleet.ctl("ams", "start", "alice", "nyc")
    since = fleet.now()
    for port in (1024, 29999, 30000, 51000, 51001, 65535):
        fleet.python("alice", CLAIM, "udp", str(port), fleet.web(version), "7006")
        fleet.python("alice", CLAIM, "tcp", str(port), fleet.web(version), "7006")
    fleet.until_recorded()
    packets = fleet.recorded("dst port 7006", since)
    ports = [int(re.search(r"\.(\d+) > ", line)[1]) for line in packets]
    assert len(ports) >= 12
    assert all(30000 <= port <= 51000 for port in ports), ports
