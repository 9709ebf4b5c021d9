"""What leaves the servers, as captured on their wires, and who may send it."""

from __future__ import annotations

import contextlib
import random
import re
import shlex
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from traffic import streaming

SERVERS = ("ams", "nyc")
# All that leaves a server, but what is inside WireGuard and what the tests themselves say.
FILTER = "not arp and not udp portrange 20000-29999 and not udp port 51820 and not tcp port 22 and not icmp6[0] >= 133"
OPTIONS = "-i eth0 -Q out --immediate-mode -nn -s 200 -B 16384 -U"
# Addresses that exist inside the fleet only: clients', sessions', the mesh's.
INNER = re.compile(
    r"(?<![\d.])10\.(9[6-9]|1[0-2]\d|12[89]|1[3-9]\d|2\d\d|77)\.\d+\.\d+|fd57:6172:7265:[0-9a-f:]+", re.IGNORECASE
)
# An address, and a port if there is one.
END = r"(?P<{0}>[0-9]+(?:\.[0-9]+){{3}}|[0-9a-f:]*:[0-9a-f:]*)(?:\.(?P<{0}_port>\d+))?"
LINE = re.compile(rf"(?P<time>\d+\.\d+) IP6? \(.*?\) {END.format('source')} > {END.format('to')}: (?P<rest>.*)")
# alice has a session, carol has none; both are pushed to by the web at a forwarded port, and answer.
PORTS = {"alice": 7010, "carol": 7020}
PINGS = {"alice": 0, "carol": 2}
FORWARDED = {"alice": 40000, "carol": 40001}
PUSHER = 9993

ANSWER = """
import select, socket, sys
name, port = "warren-answer", int(sys.argv[1])
socks = []
for family in (socket.AF_INET, socket.AF_INET6):
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        s = socket.socket(family, kind)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6: s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        s.bind(("", port))
        if kind == socket.SOCK_STREAM: s.listen(64)
        socks.append(s)
while True:
    for s in select.select(socks, [], [])[0]:
        try:
            if s.type == socket.SOCK_STREAM: s.accept()[0].close()
            else: s.sendto(b"answer", s.recvfrom(99)[1])
        except OSError: pass
"""
PUSH = """
import itertools, socket, sys, time
name, pusher, pause, targets = "warren-push", int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]
socks = {}
for family in (socket.AF_INET, socket.AF_INET6):
    socks[family] = socket.socket(family, socket.SOCK_DGRAM)
    if family == socket.AF_INET6: socks[family].setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    socks[family].bind(("", pusher))
tcp = []
for number in itertools.count():
    for target in targets:
        address, port = target.rsplit(",", 1)
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try: socks[family].sendto(b"push", (address, int(port)))
        except OSError: pass
        if number % 10 == 0:
            s = socket.socket(family, socket.SOCK_STREAM)
            s.setblocking(False)
            try: s.connect((address, int(port)))
            except OSError: pass
            tcp.append(s)
    for s in tcp[:-40]: s.close()
    del tcp[:-40]
    time.sleep(pause)
"""


class Wire:
    """What leaves ams and nyc by their uplinks."""

    def __init__(self, fleet):
        """Take the fleet; :meth:`listening` records."""
        self.fleet = fleet
        self.exits = {s: {a for v in (4, 6) for a in fleet.exits(s, v)} for s in SERVERS}
        self.entries = {fleet.entry("ams"), fleet.entry("ams", 6)}

    @contextlib.contextmanager
    def listening(self):
        """Record what leaves from now on."""
        with contextlib.ExitStack() as stack:
            for server in SERVERS:
                script = f"exec tcpdump {OPTIONS} -w /run/wire.pcap {shlex.quote(FILTER)}"
                dump = self.fleet.background(server, f"{script} 2>/run/wire.log")
                stack.callback(self._end, server, dump)
                self.fleet.wait_for(
                    lambda server=server: "listening on" in self.fleet.try_sh(server, "cat /run/wire.log").stdout,
                    f"{server} records",
                )
            yield self

    def _end(self, server, dump):
        self.fleet.try_sh(server, "pkill -f 'tcpdump -i eth0'; rm -f /run/wire.pcap /run/wire.log")
        dump.communicate(timeout=10)

    def packets(self, server, since, until=None):
        """What left a server between two times; a last packet of its own is the mark up to which all is recorded."""
        port, read = random.randint(10000, 19999), "tcpdump -nn -tt -v -r /run/wire.pcap"  # noqa: S311 - no secret
        self.fleet.send(server, 0, self.fleet.web(), port)
        self.fleet.wait_for(
            lambda: self.fleet.try_sh(server, f"{read} udp dst port {port} 2>/dev/null").stdout, "the mark is recorded"
        )
        text = self.fleet.try_sh(server, f"{read} 2>/dev/null").stdout
        found = []
        for line in re.sub(r"\n\s+", " ", text).splitlines():
            match = LINE.match(line)
            assert match, line
            if float(match["time"]) >= since and (until is None or float(match["time"]) <= until):
                found.append(match)
        return found

    def wrong(self, since, until=None, session=True):
        """The packets that may not leave where, or as whom, they did; with the server. `session`: alice has one."""
        return [
            (server, match[0])
            for server in SERVERS
            for match in self.packets(server, since, until)
            if not self._may(server, match, session)
        ]

    def _may(self, server, match, session):
        if INNER.search(match[0]):
            return False
        client = self._client(match)
        if client is None:
            return True
        if match["to_port"] == str(PUSHER) and server == "ams" and match["source"] in self.entries:
            return True
        # Whose flow was forgotten goes the way of what a client begins itself.
        exit_ = "nyc" if client == "alice" and session else "ams"
        return server == exit_ and match["source"] in self.exits[exit_]

    @staticmethod
    def _client(match):
        """Whose packet it is; None for nobody's."""
        for client, port in PORTS.items():
            ping = re.search(r"echo request.*length (\d+)", match["rest"])
            if match["to_port"] == str(port) or (ping and int(ping[1]) == 8 + PINGS[client]):
                return client
            if match["to_port"] == str(PUSHER):
                # An answer has the forwarded port; an error message of the server's own is not a client's.
                return client if match["source_port"] == str(FORWARDED[client]) else None
        return None

    def seen(self, client, since):
        """How many packets of a client left, wherever: a test without any shows nothing."""
        return sum(self._client(match) == client for server in SERVERS for match in self.packets(server, since))

    def flowing(self):
        """Whether both clients come out where they should, by both families: alice has a session, carol has none."""
        try:
            return all(
                self.fleet.curl(client, version)["ip"] in self.fleet.exits(server, version)
                for client, server in (("alice", "nyc"), ("carol", "ams"))
                for version in (4, 6)
            )
        except AssertionError:
            return False


@pytest.fixture(autouse=True)
def nobody_is_connected_elsewhere(fleet):
    """Both clients are at ams, and nobody has a session, before and after."""
    fleet.without_sessions()
    yield
    for server in fleet.servers:
        fleet.wait_for(
            lambda server=server: fleet.try_sh(server, "warrenctl list").returncode == 0, f"{server} answers"
        )
    fleet.without_sessions()


@pytest.fixture
def wire(fleet):
    """The wires of both servers, recorded."""
    with Wire(fleet).listening() as found:
        yield found


@pytest.fixture
def busy(fleet, wire):
    """alice has a session and carol has none; both send and are pushed to all the time."""
    with contextlib.ExitStack() as stack:
        for client, port in FORWARDED.items():
            fleet.ctl("ams", "forward", client, str(port))
            script = f"exec python3 -c {shlex.quote(ANSWER)} {port}"
            stack.callback(_end, fleet, client, fleet.background(client, script), "warren-[a]nswer")
            stack.enter_context(streaming(fleet, client, PORTS[client], PINGS[client], 0.02))
        targets = [f"{fleet.entry('ams', v)},{port}" for v in (4, 6) for port in FORWARDED.values()]
        push = f"exec python3 -c {shlex.quote(PUSH)} {PUSHER} {0.02 * fleet.slowness} {shlex.join(targets)}"
        stack.callback(_end, fleet, "web", fleet.background("web", push), "warren-[p]ush")
        fleet.ctl("ams", "start", "alice", "nyc")
        fleet.wait_for(wire.flowing, "all flows")
        yield wire


def _end(fleet, name, process, pattern):
    fleet.try_sh(name, f"pkill -KILL -f {pattern}")
    process.communicate(timeout=10)
