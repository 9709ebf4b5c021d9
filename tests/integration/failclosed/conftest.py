"""What alice keeps sending, and the judge of where it came from."""

from __future__ import annotations

import re
import shlex
from contextlib import contextmanager

import pytest

PORT = 7010
# New flows, one flow that goes on, TCP and pings, in both families, every few milliseconds.
STREAM = """
import itertools, os, socket, struct, sys, time
name = "warren-stream"
web = {socket.AF_INET: sys.argv[1], socket.AF_INET6: sys.argv[2]}
port, pause = int(sys.argv[3]), float(sys.argv[4])
kept = {family: socket.socket(family, socket.SOCK_DGRAM) for family in web}
pings = {
    socket.AF_INET: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
    socket.AF_INET6: socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6),
}
def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF
tcp = []
for number in itertools.count():
    for family, address in web.items():
        def sent(what):
            try: what()
            except OSError: pass
        sent(lambda: kept[family].sendto(b"kept", (address, port)))
        with socket.socket(family, socket.SOCK_DGRAM) as s: sent(lambda: s.sendto(b"new", (address, port)))
        kind = 8 if family == socket.AF_INET else 128
        echo = struct.pack("!BBHHH", kind, 0, 0, os.getpid() & 0xFFFF, number & 0xFFFF)
        if kind == 8: echo = struct.pack("!BBHHH", kind, 0, checksum(echo), os.getpid() & 0xFFFF, number & 0xFFFF)
        sent(lambda: pings[family].sendto(echo, (address, 0)))
        if number % 10 == 0:
            s = socket.socket(family, socket.SOCK_STREAM)
            s.setblocking(False)
            sent(lambda: s.connect((address, port)))
            tcp.append(s)
    for s in tcp[:-40]: s.close()
    del tcp[:-40]
    time.sleep(pause)
"""
# What was on its way when alice was held.
BETWEEN_SECONDS = 0.05


class Judge:
    """What reached the web of the one client that sends all the time."""

    def __init__(self, fleet):
        """Take the fleet."""
        self.fleet = fleet

    def sources(self, since, until=None):
        """The source addresses of alice's packets between two times, and how many came from each."""
        until = until or self.fleet.now()
        self.fleet.until_recorded()
        expression = f"dst port {PORT} or icmp[icmptype] == icmp-echo or ip6[40] == 128"
        found = {}
        for line in self.fleet.recorded(expression, since):
            if float(line.split()[0]) < until:
                source = line.split(" > ")[0].split()[-1]
                source = re.sub(r"\.\d+$", "", source) if source.count(".") == 4 or ":" in source else source
                found[source] = found.get(source, 0) + 1
        return found

    def of(self, server):
        """All the addresses of a server."""
        every = [address for version in (4, 6) for address in self.fleet.exits(server, version)]
        return {*every, self.fleet.entry(server), self.fleet.entry(server, 6)}

    def nothing_from_ams(self, since, until=None):
        """Nothing came from ams since a session was started, nor from anywhere but exits. Returns what came."""
        found = self.sources(since + BETWEEN_SECONDS, until)
        assert set(found) & self.of("ams") == set(), found
        assert set(found) <= self.of("nyc") | self.of("fra"), found
        return found

    def flowing(self, server, version=4):
        """Whether alice comes out at a server now."""
        try:
            return self.fleet.curl("alice", version)["ip"] in self.fleet.exits(server, version)
        except AssertionError:
            return False


@pytest.fixture
def judge(fleet):
    """alice is connected and sends all the time; what she sent comes out at ams before the test begins."""
    fleet.without_sessions()
    judge = Judge(fleet)
    with streaming(fleet):
        since = fleet.now()
        fleet.wait_for(lambda: judge.sources(since), "the web sees alice")
        assert set(judge.sources(since)) <= judge.of("ams")
        yield judge
    for server in ("ams", "nyc"):
        fleet.wait_for(
            lambda server=server: fleet.try_sh(server, "warrenctl list").returncode == 0, f"{server} answers"
        )
    fleet.without_sessions()


@contextmanager
def streaming(fleet):
    """alice sends meanwhile."""
    words = f"{fleet.web(4)} {fleet.web(6)} {PORT} {0.01 * fleet.slowness}"
    stream = fleet.background("alice", f"exec python3 -c {shlex.quote(STREAM)} {words}")
    try:
        yield
        assert stream.poll() is None, stream.communicate()[0]
    finally:
        fleet.try_sh("alice", "pkill -KILL -f warren-[s]tream")
        stream.communicate(timeout=10)
