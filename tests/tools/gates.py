"""Run all gates, as `make test` does: several at once, those that take longest first. Print a table of their seconds.

    .venv/bin/python tests/tools/gates.py [--lanes N] [GATE...]

A gate is a session of noxfile.py, or a scenario of molecule/. What it says is printed when it is over, so nothing is
mixed, and kept in .nox/logs. An interrupt ends all gates, which clean up after themselves.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parents[2]
RECORD = ROOT / "docs/testing.md"
LOGS = ROOT / ".nox/logs"
NOX = Path(sys.executable).with_name("nox")
LANES = 2
"""At once: most of a scenario's time is waiting, and two fill two cores."""
CLOSING = re.compile(r"^(=+ .*(passed|failed|error).*=+|All checks passed!|cannot run here: .*)$", re.MULTILINE)
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@dataclass
class Gate:
    """One gate.

    Attributes:
        name: of the nox session or of the molecule scenario.
        command: what runs it.
        seconds: how long it took, once it is over.
        status: its exit status, once it is over.
        said: the closing lines of the test runners in it, and why it cannot run here.
    """

    name: str
    command: list[str]
    seconds: float = 0
    status: int | None = None
    said: list[str] = field(default_factory=list)
    process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        """All that it printed."""
        return LOGS / f"{self.name}.log"

    def start(self) -> None:
        """Run it in a process group of its own, so that an interrupt reaches it once, from here."""
        self.seconds = time.monotonic()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self.command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def is_over(self) -> bool:
        """Whether it has ended, and if so, note how."""
        assert self.process
        self.status = self.process.poll()
        if self.status is None:
            return False
        self.seconds = time.monotonic() - self.seconds
        self.said = [
            match[0].strip("= ") for match in CLOSING.finditer(COLOUR.sub("", self.log.read_text(errors="replace")))
        ]
        return True

    @property
    def result(self) -> str:
        """In one word, how it ended."""
        return "passed" if self.status == 0 else "FAILED"


def gates() -> list[Gate]:
    """All there are, those first that took longest when docs/testing.md was written; what is new there comes first."""
    sys.path.insert(0, str(ROOT))
    import noxfile  # noqa: PLC0415 - it is in the directory above, and needs nox

    sessions = [name for name in noxfile.nox.options.sessions if name != "molecule"]
    found = [Gate(name, [str(NOX), "-s", name]) for name in sessions]
    found += [Gate(name, [str(NOX), "-s", "molecule", "--", name]) for name in noxfile.scenarios()]
    took = recorded(RECORD.read_text() if RECORD.exists() else "")
    return sorted(found, key=lambda gate: -took.get(gate.name, float("inf")))


def recorded(text: str) -> dict[str, float]:
    """The seconds of each gate: the last column of the table in docs/testing.md."""
    rows = re.findall(r"^\| `([\w-]+)` \|.*\| (\d+) \|$", text, re.MULTILINE)
    return {name: float(seconds) for name, seconds in rows}


def run(waiting: list[Gate], lanes: int) -> None:
    """Run gates, at most `lanes` at once, and print each as it ends; after an interrupt, end those that run."""
    stopped = False

    def stop(_signal: int, _frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = True

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    running: list[Gate] = []
    waiting = list(waiting)
    told = False
    try:
        while running or (waiting and not stopped):
            while waiting and len(running) < lanes and not stopped:
                gate = waiting.pop(0)
                gate.start()
                running.append(gate)
                print(f"--> {time.strftime('%H:%M:%S')} {gate.name}", flush=True)
            if stopped and not told:
                told = True
                for gate in running:
                    assert gate.process
                    os.killpg(gate.process.pid, signal.SIGINT)
            for gate in [gate for gate in running if gate.is_over()]:
                running.remove(gate)
                print(f"\n===== {gate.name} =====", flush=True)
                print(gate.log.read_text(errors="replace").rstrip(), flush=True)
                print(f"<-- {time.strftime('%H:%M:%S')} {gate.name} {gate.result}, {gate.seconds:.0f} s", flush=True)
            time.sleep(0.2)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def table(done: list[Gate], seconds: float) -> str:
    """What each gate took, and what its test runners said last."""
    lines = ["", "| gate | result | seconds |", "|---|---|---|"]
    for gate in done:
        result = gate.result if gate.status is not None else "NOT RUN"
        lines.append(f"| `{gate.name}` | {'; '.join([result, *gate.said])} | {gate.seconds:.0f} |")
    total = sum(gate.seconds for gate in done)
    lines.append(f"| all, one after the other would be {total:.0f} | | {seconds:.0f} |")
    return "\n".join(lines)


def main() -> int:
    """Run those that were named, or all."""
    parser = argparse.ArgumentParser(description="Run the gates.")
    parser.add_argument("--lanes", type=int, default=int(os.environ.get("TEST_LANES") or LANES))
    parser.add_argument("gates", nargs="*")
    wanted = parser.parse_args()
    found = gates()
    unknown = set(wanted.gates) - {gate.name for gate in found}
    if unknown:
        parser.error(
            f"{', '.join(sorted(unknown))}: no gate. There are: {', '.join(sorted(gate.name for gate in found))}"
        )
    chosen = [gate for gate in found if not wanted.gates or gate.name in wanted.gates]
    LOGS.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    run(chosen, wanted.lanes)
    print(table(chosen, time.monotonic() - began))
    failed = [gate.name for gate in chosen if gate.status != 0]
    if failed:
        print(f"failed: {', '.join(failed)}; what they said is above, and in {LOGS}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
