"""Measure our sessions against the source document's way of making them, and print tables for docs/performance.md.

Both sides run on this machine, in network namespaces, one after the other and again and again, so that what else the
machine does meets both. Needs root. Removes what it made.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from document import Document
from ours import ADDRESSES, AGENT, PLAYBOOK, Ours, render
from report import Figures, Notes, show
from spaces import PYTHON, CommandError, Spaces

COMMANDS = {"iptables": "iptables", "nft": "nftables", "ip": "iproute2", "ping": "iputils-ping", "sysctl": "procps"}
MODULES = {
    "aiohttp": "python3-aiohttp",
    "jinja2": "python3-jinja2",
    "nftables": "python3-nftables",
    "prometheus_client": "python3-prometheus-client",
}

SAMPLED = 64
"""So many clients send at once, picked from all: where a session's rule stands in a list then does not matter."""
WINDOW, FLOWS_WINDOW, MOST_FLOWS = 0.2, 0.4, 80_000
ONE_WAY = 0.010
"""How long a packet takes over the mesh of the far pair of servers."""
STARTS = 8
"""Our starts for each of the document's."""
BUSY_SECONDS = 20.0
"""Longer than an entry waits between renewals."""
TRACKED = (10_000, 100_000)

World = Ours | Document


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="1,253,1000,5000,10000", help="numbers of sessions; default %(default)s")
    parser.add_argument("--runs", type=int, default=5, help="rounds at each size; default %(default)s")
    parser.add_argument("--limit", type=float, default=20.0, help="seconds for the document's restore, one by one")
    parser.add_argument("--agent", type=Path, default=AGENT, help="directory with another warrend, to compare versions")
    args = parser.parse_args()
    args.sizes = sorted({int(size) for size in args.sizes.split(",")})
    if args.runs < 1 or args.sizes[0] < 1 or args.sizes[-1] > 20000:
        parser.error("--sizes are numbers from 1 to 20000, --runs is at least 1")
    return args


def preflight() -> None:
    """Say what is missing, and how to get it."""
    if os.geteuid():
        sys.exit("bench: it makes network namespaces: run it as root")
    if not PLAYBOOK.exists():
        sys.exit("bench: there is no .venv yet: run `make venv` first")
    probe = "import importlib.util as u, sys; print(*(m for m in sys.argv[1:] if not u.find_spec(m)))"
    without = subprocess.run([PYTHON, "-c", probe, *MODULES], capture_output=True, text=True, check=True).stdout.split()
    missing = [package for command, package in COMMANDS.items() if not shutil.which(command)]
    missing += [MODULES[name] for name in without]
    if missing:
        sys.exit(f"bench: run `apt-get install --no-install-recommends {' '.join(missing)}` first")


class Bench:
    """All sizes, one after the other."""

    def __init__(self, args: argparse.Namespace, spaces: Spaces) -> None:
        """Start two pairs of servers that have one session all the time, one of them far apart."""
        self.args, self.spaces = args, spaces
        self.figures: dict[int, Figures] = {}
        self.rendered = render(args.sizes[-1] + 2 * SAMPLED, spaces.directory, args.agent)
        self.one, self.far = Ours(spaces, "one", self.rendered), Ours(spaces, "far", self.rendered, apart=ONE_WAY)
        for world in (self.one, self.far):
            world.note(1)
            world.restart()
        self.notes = Notes(self.one.round_trip(), self.far.round_trip(), [os.getloadavg()[0]])

    def say(self, text: str) -> None:
        """Tell who waits how far it is."""
        print(f"bench: {time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)

    def run(self) -> None:
        """Measure every size."""
        for size in self.args.sizes:
            found = self.figures[size] = Figures()
            ours = Ours(self.spaces, f"ours{size}", self.rendered)
            ours.note(size)
            self.say(f"{size} sessions: restore")
            document = self._restores(found, ours)
            worlds = {"ours": ours, "one": self.one, "document": document}
            self.say(f"{size} sessions: start and stop")
            self._sessions(found, worlds | {"far": self.far})
            found.one_by_one = self._one_by_one(size, ours)
            self.say(f"{size} sessions: packets and flows")
            self._traffic(found, worlds)
            ours.check()
            document.end()
            if size == self.args.sizes[-1]:
                self._under_load(ours)
            ours.end()
        self.notes.load.append(os.getloadavg()[0])

    # --- restore

    def _restores(self, found: Figures, ours: Ours) -> Document:
        """Restore all sessions, each side in turn; the document's servers of the last round stay."""
        for number in range(self.args.runs):
            ready, restored = ours.restart()
            found.ready.append(ready)
            found.restored.append(restored)
            document = self._document(f"document{number}", ours)
            found.bulk.append(document.restore_in_bulk())
            if number < self.args.runs - 1:
                document.end()
        return document

    def _document(self, name: str, ours: Ours) -> Document:
        document = Document(self.spaces, name, ours.clients)
        document.note(len(ours.sessions))
        return document

    def _one_by_one(self, size: int, ours: Ours) -> str:
        """How long the document's commands take for all sessions; from the time of one start where that is too long."""
        reckoned = self._reckoned(size)
        if reckoned > self.args.limit * 1.5:
            return f"about {reckoned:,.0f}, reckoned"
        document = self._document("slow", ours)
        took, number = document.restore_one_by_one(self.args.limit)
        document.end()
        return f"{took:,.1f}" if number == size else f"> {took:,.0f} ({number:,} of {size:,})"

    def _reckoned(self, size: int) -> float:
        """The sum of the times of so many starts, taking them as linear between the sizes that were measured."""
        points = [(n, median(self.figures[n].start["document"])) for n in sorted(self.figures) if n <= size]
        total, (before, cost) = 0.0, (0, points[0][1])
        for number, then in points:
            total += (number - before) * (cost + then) / 2
            before, cost = number, then
        return total

    # --- start and stop

    def _sessions(self, found: Figures, worlds: dict[str, World]) -> None:
        """Start and stop one more session, on each side in turn."""
        for number in range(self.args.runs):
            for name, world in worlds.items():
                client, times = world.clients[len(world.sessions)], []
                for again in range(1 if name == "document" else STARTS):
                    started = world.start(client)
                    if number == again == 0:
                        self._effective(world, client, "exit")
                    times.append((started, world.stop(client)))
                    if number == again == 0:
                        self._effective(world, client, "entry")
                starts, stops = zip(*times, strict=True)
                found.start.setdefault(name, []).append(median(starts))
                found.stop.setdefault(name, []).append(median(stops))

    def _effective(self, world: World, client: dict[str, str], where: str) -> None:
        """See that every packet of a client, both families, leaves from the right server from now on."""
        if isinstance(world, Document):  # it says nothing of flows that were there before
            self._forget(world)
        before = self.spaces.counted(world.web)
        world.sender.ask(sources=[client["address4"], client["address6"]], packets=10)
        after = self.spaces.counted(world.web)
        left = {name: after[name] - before[name] for name in after if after[name] != before[name]}
        if left != {where: 20}:
            raise CommandError(f"{world.world}: 20 packets should have left from the {where}, but {left} did")

    @staticmethod
    def _forget(world: World) -> None:
        for forgetter in world.forgetters:
            forgetter.ask()

    def _under_load(self, ours: Ours) -> None:
        """Our starts and stops for longer than the time between renewals, and beside many tracked flows."""
        client = ours.clients[len(ours.sessions)]

        def several(seconds: float, most: int = 100_000) -> list[tuple[float, float]]:
            found, end = [], time.monotonic() + seconds
            while len(found) < most and time.monotonic() < end:
                found.append((ours.start(client), ours.stop(client)))
            return found

        self.say(f"{len(ours.sessions)} sessions: starts beside renewals and many flows")
        self.notes.busy = several(BUSY_SECONDS)
        sources = [each.client4 for each in ours.sessions[: 10 * SAMPLED]]
        for tracked in TRACKED:
            # Both servers' flows are in the one table of this kernel, and whoever looks for some goes through all.
            ours.sender.ask(sources=sources, flows=tracked // 2, seconds=BUSY_SECONDS)
            self.notes.tracked[tracked] = several(BUSY_SECONDS / 4, 2 * STARTS)
            self._forget(ours)

    # --- traffic

    def _traffic(self, found: Figures, worlds: dict[str, World]) -> None:
        """Send through each side in turn: flows that are there, of clients with and without a session, and new ones."""
        with_session = {
            name: [each.client4 for each in random.sample(world.sessions, min(SAMPLED, len(world.sessions)))]
            for name, world in worlds.items()
        }
        for number in range(4 * self.args.runs):
            order = list(worlds.items())[:: 1 if number % 2 else -1]
            for name, world in order:
                plain = [client["address4"] for client in world.clients[-len(with_session[name]) :]]
                for rates, answers, clients, where in (
                    (found.packets, found.answers, with_session[name], "exit"),
                    (found.plain, found.plain_answers, plain, "entry"),
                ):
                    world.sender.ask(sources=clients, packets=1)
                    rate = self._rate(world, where, sources=clients, seconds=WINDOW)
                    rates.setdefault(name, []).append(rate)
                    answers.setdefault(name, []).append(self._answers(world, where, len(clients)))
            for name, world in order if number % 2 else ():
                wanted = {"flows": MOST_FLOWS, "seconds": FLOWS_WINDOW}
                rate = self._rate(world, "exit", sources=with_session[name], **wanted)
                found.flows.setdefault(name, []).append(rate)
                self._forget(world)

    def _answers(self, world: World, where: str, flows: int) -> float:
        """Answers a second that arrived at the clients, to flows that are there."""
        mine = set(ADDRESSES[where][1])
        ends = {tuple(end) for helper in world.forgetters for end in helper.ask(list=True) if end[0] in mine}
        if len(ends) < flows:
            raise CommandError(f"{world.world}: {len(ends)} flows leave by the {where}, of {flows}")
        before = self.spaces.counted(world.client)["answers"]
        seconds = world.answerers[where].ask(answers=sorted(ends), seconds=WINDOW)[1]
        return (self.spaces.counted(world.client)["answers"] - before) / seconds

    def _rate(self, world: World, where: str, **what: object) -> float:
        """Packets a second that arrived in the web's namespace from a server."""
        before = self.spaces.counted(world.web)[where]
        seconds = world.sender.ask(**what)[1]
        return (self.spaces.counted(world.web)[where] - before) / seconds


def main() -> None:
    """Measure, and clean up whatever happens."""
    args = options()
    preflight()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench: terminated"))
    spaces = Spaces()
    try:
        bench = Bench(args, spaces)
        bench.run()
        show(bench.figures, bench.notes)
    except CommandError as error:
        sys.exit(f"bench: {error}")
    except KeyboardInterrupt:
        sys.exit("bench: interrupted")
    finally:
        spaces.close()


if __name__ == "__main__":
    main()
