"""Measure the portal with many clients at once, against the same server handing out a small file to as many.

The agents are real, with real tables, in network namespaces on this machine; only WireGuard is left out, for here it
would be the userspace one. Needs root. Removes what it made.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1] / "sessions"))

from bench import preflight
from ours import Ours, render
from spaces import PYTHON, Spaces

CROWD = Path(__file__).parent / "crowd.py"
PORTAL = "10.31.33.7"
CLIENTS = "10.96.0.0/11"
KINDS = ("load", "submit", "load again")
MEGABYTE = 1024


class Portal(Ours):
    """Two servers, the first with a portal."""

    def __init__(self, spaces: Spaces, rendered: Path) -> None:
        """Start them."""
        super().__init__(spaces, "portal", rendered)
        self.client = spaces.name("portal", "client")
        spaces.ip(self.client, "route add 10.31.33.7 dev link", f"route add local {CLIENTS} dev lo")
        self.entry.sockets = {"portal": [f"{PORTAL}:80"]}
        self.note(0)
        self.restart()

    def crowd(self, addresses: list[str], path: str, *exits: str) -> dict:
        """What so many see at once."""
        text = self.spaces.run(self.client, PYTHON, "-B", CROWD, PORTAL, path, *exits, text=json.dumps(addresses))
        found = json.loads(text)
        if found["errors"] or found["done"] != len(addresses):
            raise SystemExit(f"bench: {found}")
        return found

    def without_sessions(self) -> None:
        """Start from nothing, in memory and on disk."""
        self.note(0)
        self.restart()

    def peak(self) -> float:
        """MiB of memory that the entry's agent has had at most since it was started."""
        text = Path(f"/proc/{self.entry.process.pid}/status").read_text()
        return int(text.partition("VmHWM:")[2].split()[0]) / MEGABYTE


def spread(values: list[float]) -> str:
    """Median and range."""
    return f"{median(values):6.0f} ({min(values):.0f} to {max(values):.0f})"


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=500, help="so many at once; default %(default)s")
    parser.add_argument("--runs", type=int, default=7, help="rounds; default %(default)s")
    args = parser.parse_args()
    preflight()
    spaces = Spaces()
    try:
        world = Portal(spaces, render(args.clients, spaces.directory))
        addresses = [client["address4"] for client in world.clients]
        pages: dict[str, list[dict]] = {kind: [] for kind in KINDS}
        floors, peaks = [], []
        world.crowd(addresses, "/icon.svg")
        for _round in range(args.runs):
            floors.append(world.crowd(addresses, "/icon.svg")["load"])
            found = world.crowd(addresses, "/multihop", "exit")
            for kind in KINDS:
                pages[kind].append(found[kind])
            peaks.append(world.peak())
            world.without_sessions()
    finally:
        spaces.close()
    print(f"{args.clients} clients at once, {args.runs} rounds, milliseconds: median of the rounds (least to most)\n")
    print("| what | p50 | p99 | p99 against a small file |\n|---|---|---|---|")
    print(f"| a small file | {spread([f['p50'] for f in floors])} | {spread([f['p99'] for f in floors])} | 1 |")
    for kind, rounds in pages.items():
        ratios = [found["p99"] / floor["p99"] for found, floor in zip(rounds, floors, strict=True)]
        ratio = f"{median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})"
        print(f"| {kind} | {spread([f['p50'] for f in rounds])} | {spread([f['p99'] for f in rounds])} | {ratio} |")
    print(f"\nmemory of the agent at most: {max(peaks):.0f} MiB; load of the machine: {os.getloadavg()[0]:.1f}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (KeyboardInterrupt, subprocess.SubprocessError) as error:
        sys.exit(f"bench: {error}")
