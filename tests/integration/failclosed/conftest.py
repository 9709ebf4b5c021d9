"""What alice keeps sending, and the judge of where it came from."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from traffic import PORT, streaming

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
