"""What others send at a client's flows: the web, a neighbour, an operator's own rules. The wires are the judge."""

from __future__ import annotations

import queue
import re
import shlex
import threading
import time
from contextlib import contextmanager

import pytest

# Builds segments and errors for both families; the kernel writes the outer header of what is sent.
RAW = """
import os, random, socket, struct, sys, time
def family(address): return socket.AF_INET6 if ":" in address else socket.AF_INET
def packed(address): return socket.inet_pton(family(address), address)
def checksum(data):
    data += bytes(len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16: total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
def segment(source, port, to, to_port, flags):
    numbers = random.getrandbits(32), random.getrandbits(32)
    head = struct.pack("!HHIIBBHHH", port, to_port, *numbers, 5 << 4, flags, 999, 0, 0)
    ends = packed(source) + packed(to)
    pseudo = ends + (struct.pack("!II", 20, 6) if ":" in to else struct.pack("!BBH", 0, 6, 20))
    return head[:16] + struct.pack("!H", checksum(pseudo + head)) + head[18:]
def unreachable(source, port, to, to_port, proto):
    inner = struct.pack("!HHHH", port, to_port, 12, 0)
    if ":" in to: inner = struct.pack("!IHBB", 6 << 28, 12, proto, 60) + packed(source) + packed(to) + inner
    else:
        head = struct.pack("!BBHHHBBH", 0x45, 0, 32, 1, 0, 60, proto, 0) + packed(source) + packed(to)
        inner = head[:10] + struct.pack("!H", checksum(head)) + head[12:] + inner
    head = struct.pack("!BBHI", *((1, 4) if ":" in to else (3, 3)), 0, 0) + inner
    return head if ":" in to else head[:2] + struct.pack("!H", checksum(head)) + head[4:]
def raw(to, protocol): return socket.socket(family(to), socket.SOCK_RAW, protocol)
"""
ANSWER_LATER = """
import socket, sys
name = "warren-later"
ttl, port = int(sys.argv[1]), int(sys.argv[2])
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.bind(("::", port))
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, ttl)
s.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
# Whatever it knows of the path's MTU (IP_PMTUDISC_PROBE).
for level, option in ((socket.IPPROTO_IP, 10), (socket.IPPROTO_IPV6, 23)): s.setsockopt(level, option, 3)
print("ready", flush=True)
data, sender = s.recvfrom(99)
sys.stdin.readline()
print("asked", flush=True)
sys.stdin.readline()
for number in range(5): s.sendto(bytes(int(sys.argv[3])), sender)
print("answered", flush=True)
"""
ASK = """
import socket, sys
s = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("", int(sys.argv[3])))
s.sendto(b"ask", (sys.argv[1], int(sys.argv[2])))
"""
# A connection of the client's own from its forwarded port, again and again, with data.
CONNECT = """
import socket, sys, time
name, port, to, to_port = "warren-connect", int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
while True:
    with socket.socket(socket.AF_INET6 if ":" in to else socket.AF_INET) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\\1\\0\\0\\0\\0\\0\\0\\0")
        s.settimeout(0.2)
        try:
            s.bind(("", port))
            s.connect((to, to_port))
            for number in range(20): s.send(b"data of her own"); time.sleep(0.005)
        except OSError: time.sleep(0.005)
"""
LISTEN = """
import socket, sys
name = "warren-listen"
s = socket.socket(socket.AF_INET6)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("::", int(sys.argv[1])))
s.listen(99)
print("ready", flush=True)
taken = []
while True: taken = taken[-20:] + [s.accept()[0]]
"""
SPRAY = (
    RAW
    + """
name, port, to, to_port, source = "warren-spray", int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
flags = int(sys.argv[5])
with raw(to, 6) as s:
    while True:
        s.sendto(segment(source, port, to, to_port, flags), (to, 0))
        time.sleep(0.001)
"""
)
BOTH = """
import random, socket, sys, time
name, port, to, to_port, rounds = "warren-both", int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
for number in range(rounds):
    start = (time.time() // 0.06 + 1) * 0.06
    if port > 40000: port += 1  # the web's: a flow that was given up is remembered for two minutes
    else: to_port += 1
    with socket.socket(socket.AF_INET6 if ":" in to else socket.AF_INET) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\\1\\0\\0\\0\\0\\0\\0\\0")
        s.bind(("", port))
        s.settimeout(0.03)
        time.sleep(max(0, start + random.random() * 0.01 - time.time()))
        try: s.connect((to, to_port)); s.send(b"data of her own"); time.sleep(0.005)
        except OSError: pass
"""
OWN, WEBS = 40000, 9993


@contextmanager
def running(fleet, name, script, *words, pattern, ready=False):
    """A Python script on a host meanwhile."""
    command = f"exec python3 -u -c {shlex.quote(script)} {' '.join(str(word) for word in words)}"
    process = fleet.background(name, command)
    lines = queue.Queue()
    reader = threading.Thread(target=lambda: [lines.put(line) for line in process.stdout], daemon=True)
    reader.start()

    def say(text, answer):
        process.stdin.write(f"{text}\n")
        process.stdin.flush()
        assert lines.get(timeout=10 * fleet.slowness) == f"{answer}\n"

    try:
        if ready:
            assert lines.get(timeout=10 * fleet.slowness) == "ready\n"
        yield say
    finally:
        fleet.try_sh(name, f"pkill -KILL -f '{pattern}'")
        process.wait(timeout=10)
        reader.join(timeout=10)
        process.stdin.close()
        process.stdout.close()


def said_to_the_web(fleet, wire, since, version):
    """What ams said to a web that it has nothing to do with; not the marks by which the wire is read."""
    packets = [match for match in wire.packets("ams", since) if match["to"] == fleet.web(version)]
    return [match[0] for match in packets if match["source"] not in wire.entries or "ICMP" in match["rest"]]


def data_from_ams(wire, since):
    """TCP packets of the forwarded port that left ams with data in them."""
    found = wire.packets("ams", since)
    return [
        match[0]
        for match in found
        if match["source"] in wire.entries
        and match["to"] == wire.fleet.web(6 if ":" in match["to"] else 4)
        and (length := re.search(r"Flags .* length (\d+)", match["rest"]))
        and int(length[1])
    ]


@pytest.mark.parametrize("ttl", [1, 2, 3])
@pytest.mark.parametrize("known", [True, False], ids=["tracked", "forgotten"])
def test_no_answer_makes_the_entry_speak(fleet, wire, version, ttl, known):
    """The web answers with so few hops that one of the servers would say so: from its address, quoting whose it was."""
    fleet.ctl("ams", "start", "alice", "nyc")
    since = fleet.now()
    with running(fleet, "web", ANSWER_LATER, ttl, 9999, 10, pattern="warren-[l]ater", ready=True) as web:
        fleet.python("alice", ASK, fleet.web(version), "9999", "7100")
        web("", "asked")
        if not known:
            fleet.sh("ams", "conntrack -F 2>/dev/null")
        with fleet.capture("ams" if ttl > 1 else "nyc", "udp src port 9999") as captured:
            web("now", "answered")
            fleet.wait_for(lambda: len(captured()) >= 5, "the answers got there")
    assert wire.wrong(since) == []
    assert said_to_the_web(fleet, wire, since, version) == []


def test_an_answer_that_is_too_large_for_the_link_makes_the_entry_say_nothing(fleet, wire, version):
    """The exit says so, as itself, and does not say whose it was."""
    fleet.ctl("ams", "start", "alice", "nyc")
    since = fleet.now()
    with running(fleet, "web", ANSWER_LATER, 64, 9999, 1440, pattern="warren-[l]ater", ready=True) as web:
        fleet.python("alice", ASK, fleet.web(version), "9999", "7100")
        web("", "asked")
        web("now", "answered")

    def told():
        return [m for m in wire.packets("nyc", since) if m["to"] == fleet.web(version) and "ICMP" in m[0]]

    fleet.wait_for(told, "the web is told the size: its path MTU discovery works")
    assert wire.wrong(since) == []
    assert said_to_the_web(fleet, wire, since, version) == []


def test_a_client_that_is_away_makes_the_entry_say_nothing(fleet, wire, version):
    """Its peer is taken out of WireGuard while the web answers."""
    fleet.ctl("ams", "start", "alice", "nyc")
    since = fleet.now()
    key = fleet.sh("alice", "wg show all public-key").split()[-1]
    with running(fleet, "web", ANSWER_LATER, 64, 9999, 10, pattern="warren-[l]ater", ready=True) as web:
        fleet.python("alice", ASK, fleet.web(version), "9999", "7100")
        web("", "asked")
        fleet.sh("ams", f"wg set wg0access peer {key} remove")
        try:
            with fleet.capture("ams", "udp src port 9999") as captured:
                web("now", "answered")
                fleet.wait_for(lambda: len(captured()) >= 5, "the answers got there")
        finally:
            fleet.site("--limit", "ams")
            fleet.wait_for(lambda: fleet.answers("alice", "10.31.33.7", 1), "alice is connected again", 60)
    assert wire.wrong(since) == []
    assert said_to_the_web(fleet, wire, since, version) == []


@pytest.mark.parametrize("flags", [2, 16, 24, 18, 4], ids=["syn", "ack", "push", "syn-ack", "rst"])
def test_a_spray_at_a_forwarded_port_moves_no_connection(fleet, wire, version, flags):
    """Her own connection has that port for its source, and somebody sprays it while she starts, switches and stops."""
    fleet.ctl("ams", "forward", "alice", str(OWN))
    fleet.sh("ams", "conntrack -F 2>/dev/null")  # what was given up is remembered for two minutes
    since = fleet.now()
    ends = (WEBS, fleet.entry("ams", version), OWN, fleet.web(version), flags)
    with (
        running(fleet, "web", LISTEN, WEBS, pattern="warren-[l]isten", ready=True),
        running(fleet, "alice", CONNECT, OWN, fleet.web(version), WEBS, pattern="warren-[c]onnect"),
        running(fleet, "web", SPRAY, *ends, pattern="warren-[s]pray"),
    ):
        for _attempt in range(2):
            for exit_ in ("nyc", "fra"):
                fleet.ctl("ams", "start", "alice", exit_)
                time.sleep(0.4)
            fleet.ctl("ams", "stop", "alice")
    assert data_from_ams(wire, since) == []
    # Either the spray met her connection and has it given up, or that went on by the exit.
    dead = fleet.sh("ams", f"conntrack -L -f ipv{version} --mark 0x10000000 2>/dev/null")
    own = [m for m in wire.packets("nyc", since) if m["source_port"] == str(OWN) and "length 15" in m["rest"]]
    assert own or (dead and flags == 2), "no data of hers left by an exit: nothing is shown"


def test_two_that_connect_to_each_other_at_once_do_not_move_her_connection(fleet, wire, version):
    """Simultaneous open (RFC 9293, 3.5) with a forwarded port: what she sends goes by her exit.

    But for a round in which her SYN is overtaken, inside a busy host, by what her side then says: no server could tell
    that from an answer. Once it gets there, nothing more passes.
    """
    fleet.ctl("ams", "forward", "alice", str(OWN))
    fleet.ctl("ams", "start", "alice", "nyc")
    since = fleet.now()
    rounds = 300
    with running(fleet, "web", BOTH, 50000, fleet.entry("ams", version), OWN, rounds, pattern="warren-[b]oth"):
        fleet.python("alice", BOTH, str(OWN), fleet.web(version), "50000", str(rounds), seconds=120)
    overtaken = data_from_ams(wire, since)
    assert len(overtaken) <= rounds / 100, overtaken
    knocked = [m for m in wire.packets("nyc", since) if "Flags [S]" in m["rest"] and int(m["to_port"]) > 50000]
    assert len(knocked) > rounds / 2, "she did not connect: nothing is shown"


@pytest.mark.parametrize("priority", ["srcnat - 20", "srcnat", "srcnat + 5"])
@pytest.mark.parametrize("server", ["ams", "nyc"])
def test_an_operators_masquerade_lets_nothing_leave_as_another(fleet, busy, server, priority):
    """As firewalls of others have it, before ours, beside it and after it."""
    since = fleet.now()
    chain = f"type nat hook postrouting priority {priority}; policy accept; oifname eth0 masquerade;"
    fleet.sh(server, f"nft 'table inet mine {{ chain postrouting {{ {chain} }}; }}'; conntrack -F 2>/dev/null")
    try:
        time.sleep(1)
    finally:
        fleet.sh(server, "nft delete table inet mine; conntrack -F 2>/dev/null")
    assert busy.wrong(since) == []
    fleet.wait_for(busy.flowing, "all flows again")


@pytest.mark.parametrize("where", ["ams", "nyc"])
def test_an_error_about_a_neighbours_flow_does_not_reach_the_neighbour(fleet, version, where):
    """alice sends an ICMP error into the tunnel that quotes carol's flow as it looks outside."""
    if where == "nyc":
        exit4 = fleet.ctl("ams", "start", "carol", "nyc")["exit4"]
        fleet.ctl("ams", "start", "alice", "nyc")
        assert exit4

    def flow():
        fleet.python("carol", ASK, fleet.web(version), "9998", "7200")
        listing = fleet.sh(where, f"conntrack -L -f ipv{version} -p udp --dport 9998 2>/dev/null")
        return re.search(r"src=\S+ dst=(\S+) sport=9998 dport=(\d+)", listing)

    address, port = fleet.wait_for(flow, "carol's flow is there").groups()
    script = RAW + (
        "source, port, to, to_port = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])\n"
        "for target in (source, to):\n"
        "    with raw(to, 58 if ':' in to else 1) as s:\n"
        "        s.sendto(unreachable(source, port, to, to_port, 17), (target, 0))\n"
    )
    with fleet.capture("carol", "icmp or icmp6") as heard:
        fleet.python("alice", script, address, port, fleet.web(version), "9998")
        fleet.sh("web", f"ping -c 1 -W 1 {fleet.entry('ams', version)}")
        assert fleet.answers("carol", fleet.web(version)), "carol hears what is hers"
        fleet.wait_for(heard, "carol's capture works")
        assert [line for line in heard() if "unreachable" in line] == []


def test_only_tcp_udp_and_echoes_of_clients_leave(fleet, wire, version):
    """A client with a session and one without: neither claims a protocol of a neighbour on an exit address."""
    fleet.ctl("ams", "start", "alice", "nyc")
    since = fleet.now()
    script = RAW + (
        "to = sys.argv[1]\n"
        "for protocol in (4, 41, 47, 50, 51, 132, 136, 253):\n"
        "    with raw(to, protocol) as s:\n"
        "        try: s.sendto(bytes(range(1, 33)), (to, 0))\n"
        "        except OSError as error: print(protocol, error)\n"
        "kinds = (1, 2, 3, 4, 129) if ':' in to else (3, 4, 5, 11, 12, 13, 15, 17, 0)\n"
        "for kind in kinds:\n"
        "    head = struct.pack('!BBHI', kind, 0, 0, 7) + bytes(40)\n"
        "    if ':' not in to: head = head[:2] + struct.pack('!H', checksum(head)) + head[4:]\n"
        "    with raw(to, 58 if ':' in to else 1) as s: s.sendto(head, (to, 0))\n"
    )
    for client in ("alice", "carol"):
        fleet.python(client, script, fleet.web(version))
        fleet.python(client, ASK, fleet.web(version), "7001", "7300")
    fleet.wait_for(lambda: len(fleet.recorded("udp dst port 7001", since)) >= 2, "the web sees both clients' UDP")
    sent = [m[0] for server in ("ams", "nyc") for m in wire.packets(server, since) if m["to"] == fleet.web(version)]
    assert [line for line in sent if "proto UDP" not in line and "next-header UDP" not in line] == []


@pytest.mark.parametrize("to", ["64:ff9b::c633:6450", "64:ff9b:1::c633:6450", "2002:c633:6450::1"])
def test_no_ipv6_address_leads_to_ipv4_past_the_refused_networks(fleet, wire, to):
    """NAT64 and 6to4: 64:ff9b::a00:1 would be 10.0.0.1 where the provider translates."""
    fleet.ctl("ams", "start", "alice", "nyc")
    since = fleet.now()
    for client in ("alice", "carol"):
        fleet.try_sh(client, f"python3 -c {shlex.quote(ASK)} {to} 7001 7300")
        fleet.python(client, ASK, fleet.web(6), "7002", "7301")
    fleet.wait_for(lambda: len(fleet.recorded("udp dst port 7002", since)) >= 2, "the web sees both clients")
    assert [m[0] for server in ("ams", "nyc") for m in wire.packets(server, since) if m["to_port"] == "7001"] == []
