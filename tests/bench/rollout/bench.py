"""Measure what a run costs, and print tables for docs/performance.md.

    bench.py fleet     a no-change site.yml against one trivial module call per host, over the same lab containers
    bench.py render    playbooks/render.yml of a generated fleet, no host contacted

Each pair of runs is one after the other, so that what else the machine does meets both. Removes what it made.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from generated import generated, key, write

ROOT = Path(__file__).resolve().parents[3]
LAB = ROOT / ".lab"
PROGRAM = ROOT / ".venv/bin/ansible-playbook"
FLOOR = [{"hosts": "warren_servers", "gather_facts": False, "tasks": [{"name": "Floor", "ansible.builtin.ping": None}]}]
OWN_SERVERS = 4  # those of inventory/lab itself


@dataclass(frozen=True)
class Run:
    """What one run took, in seconds: wall clock, CPU of the controller, CPU of all hosts together."""

    wall: float
    cpu: float
    hosts: float = 0.0


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("fleet", "render"))
    parser.add_argument("--sizes", help="numbers of servers; default 5,10,20,40, for render 250,1000")
    parser.add_argument("--runs", type=int, default=5, help="pairs of runs at each size")
    parser.add_argument("--clients", type=int, default=20, help="clients in the inventory")
    parser.add_argument("--forks", type=int, default=20, help="for fleet; render has one")
    parser.add_argument("--name", default="bench", help="the lab's name")
    args = parser.parse_args()
    default = "5,10,20,40" if args.what == "fleet" else "250,1000"
    args.sizes = sorted(int(size) for size in (args.sizes or default).split(","))
    if args.what == "fleet" and args.sizes[0] < OWN_SERVERS:
        parser.error(f"--sizes: the lab has at least {OWN_SERVERS} servers")
    return args


@contextmanager
def group(command: list[str | Path], **options: Any) -> Iterator[subprocess.Popen]:
    """Start a command and leave none of its children behind: one could start containers after they were removed."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, **options)
    try:
        yield process
    except BaseException:
        with suppress(ProcessLookupError):
            for attempt in range(100):
                os.killpg(process.pid, signal.SIGTERM if attempt < 50 else signal.SIGKILL)
                process.poll()
                time.sleep(0.2)
        raise


def play(args: list[str], env: dict[str, str]) -> tuple[Run, str]:
    """Run ansible-playbook; wall time, the CPU of it and all its children, and what it printed."""
    with tempfile.TemporaryFile("w+") as output:
        start = time.monotonic()
        with group([PROGRAM, *args], env=env, stdout=output, stderr=output) as process:
            _pid, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        run = Run(time.monotonic() - start, usage.ru_utime + usage.ru_stime)
        output.seek(0)
        text = output.read()
    if process.returncode:
        sys.exit(f"{text}\nbench: {' '.join(map(str, args))} failed")
    return run, text


def environment(name: str, directory: Path, forks: int) -> dict[str, str]:
    """Take nothing of the caller's Ansible settings over."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
    return env | {
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_FORKS": str(forks),
        "ANSIBLE_SSH_CONTROL_PATH_DIR": str(directory / "ssh"),
        "LAB_NAME": name,
        "LAB_DIR": str(LAB),
    }


def cpu_of(container_pids: list[str]) -> float:
    """The CPU seconds that containers took so far; 0 where that cannot be read."""
    total = 0.0
    for pid in container_pids:
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            _number, controllers, path = line.split(":", 2)
            if "cpuacct" in controllers.split(","):
                usage = next(Path("/sys/fs/cgroup").glob(f"*cpuacct*{path}/cpuacct.usage"), None)
                total += int(usage.read_text()) / 1e9 if usage else 0
            elif not controllers:
                stat = Path(f"/sys/fs/cgroup{path.removesuffix('/init.scope')}/cpu.stat")
                total += int(re.findall(r"usage_usec (\d+)", stat.read_text())[0]) / 1e6 if stat.exists() else 0
    return total


def spread(values: list[float], digits: int = 1) -> str:
    """The median, and the smallest and largest value."""
    return f"{median(values):.{digits}f} ({min(values):.{digits}f}..{max(values):.{digits}f})"


class Fleet:
    """The lab, with an inventory of its own."""

    def __init__(self, args: argparse.Namespace, directory: Path) -> None:
        """Start the containers of the largest size."""
        self.args, self.directory = args, directory
        self.env = environment(args.name, directory, args.forks)
        self.inventory = directory / "inventory"
        ignored = shutil.ignore_patterns("secret.yml", "warren_*_keys.yml", ".clients")
        shutil.copytree(ROOT / "inventory/lab", self.inventory, ignore=ignored)
        shared = self.inventory / "group_vars/all"
        (shared / "fleet.yml").unlink()
        clients = [{"name": f"client{number}", "public_key": key()} for number in range(args.clients)]
        write(shared / "fleet.json", {"warren_fleet_secret": key(), "warren_clients": clients})
        write(directory / "floor.yml", FLOOR)
        command = [ROOT / "lab/up", "--name", args.name, "--hosts", "warren_servers", "--inventory", self.inventory]
        command += ["--servers", str(max(args.sizes))]
        log = directory / "up.log"
        with log.open("w") as output, group(command, stdout=output, stderr=output) as process:
            process.wait()
        if process.returncode:
            sys.exit(f"{log.read_text()}\nbench: lab/up failed")
        extra = LAB / args.name / "servers.json"
        self.extra = json.loads(extra.read_text()) if extra.exists() else {}

    def use(self, size: int) -> None:
        """Have so many servers in the inventory, and bring them in line."""
        extra = list(self.extra.get("warren_servers", {}).get("hosts", {}))
        names, unused = extra[: size - OWN_SERVERS], extra[size - OWN_SERVERS :]
        cut = {
            group: {**data, "hosts": {name: data["hosts"][name] for name in names}}
            for group, data in self.extra.items()
        }
        write(self.directory / "servers.json", cut)
        command = ["podman", "ps", "--filter", f"label=warren.lab={self.args.name}", "--format", "{{.Names}}"]
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        used = [name for name in listed if name.removeprefix(f"{self.args.name}-") not in unused]
        command = ["podman", "inspect", "--format", "{{.State.Pid}}", *used]
        self.pids = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        self.run("site.yml")
        self.run("site.yml", unchanged=True)

    def run(self, playbook: str, unchanged: bool = False) -> Run:
        """Run a playbook on the fleet."""
        inventories = ["-i", str(self.inventory), "-i", str(self.directory / "servers.json")]
        before = cpu_of(self.pids)
        run, text = play([*inventories, playbook], self.env)
        if unchanged and re.search(r"\bchanged=[1-9]", text):
            sys.exit(f"{text}\nbench: {playbook} changed something, though nothing had changed")
        return Run(run.wall, run.cpu, cpu_of(self.pids) - before)


def fleet(args: argparse.Namespace, directory: Path) -> None:
    """Print the table of site.yml against the floor."""
    lab = Fleet(args, directory)
    print(f"forks {args.forks}, {args.clients} clients, {args.runs} pairs; seconds, median (min..max)\n")
    header = "floor: wall | CPU | site.yml: wall | CPU | ratio: wall | CPU | CPU a host, controller's | its own"
    print(f"| servers | {header} |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    for size in args.sizes:
        lab.use(size)
        pairs = []
        for _number in range(args.runs):
            pairs.append((lab.run(str(directory / "floor.yml")), lab.run("site.yml", unchanged=True)))
        floors, sites = zip(*pairs, strict=True)
        cells = [
            spread([run.wall for run in floors]), spread([run.cpu for run in floors]),
            spread([run.wall for run in sites]), spread([run.cpu for run in sites]),
            spread([site.wall / floor.wall for floor, site in pairs], 2),
            spread([site.cpu / floor.cpu for floor, site in pairs], 2),
            f"{median(run.cpu for run in floors) / size:.2f} / {median(run.cpu for run in sites) / size:.2f}",
            f"{median(run.hosts for run in floors) / size:.2f} / {median(run.hosts for run in sites) / size:.2f}",
        ]  # fmt: skip
        print(f"| {size} | {' | '.join(cells)} |", flush=True)


def render(args: argparse.Namespace, directory: Path) -> None:
    """Print the table of the offline render."""
    env = environment(args.name, directory, 1)
    print(f"forks 1, {args.clients} clients, {args.runs} runs; seconds, median (min..max)\n")
    print("| servers | files | MB | wall | CPU | CPU per server, ms |")
    print("|---|---|---|---|---|---|", flush=True)
    for size in args.sizes:
        inventory, top, runs = generated(size, args.clients, directory), directory / "render", []
        for _number in range(args.runs):
            shutil.rmtree(top, ignore_errors=True)
            runs.append(play(["-i", str(inventory), "playbooks/render.yml", "-e", f"render_dir={top}"], env)[0])
        files = [path for path in top.rglob("*") if path.is_file()]
        megabytes = sum(path.stat().st_size for path in files) / 1e6
        cpu = [run.cpu for run in runs]
        cells = [str(size), str(len(files)), f"{megabytes:.0f}", spread([run.wall for run in runs]), spread(cpu)]
        print(f"| {' | '.join(cells)} | {median(cpu) / size * 1000:.0f} |", flush=True)


def main() -> None:
    """Measure in a directory of its own, and clean up whatever happens."""
    args = options()
    if not PROGRAM.exists():
        sys.exit("bench: there is no .venv yet: run `make venv` first")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench: terminated"))
    os.chdir(ROOT)
    with tempfile.TemporaryDirectory(prefix="warren-bench-") as directory:
        try:
            (fleet if args.what == "fleet" else render)(args, Path(directory))
        finally:
            if args.what == "fleet":
                subprocess.run([ROOT / "lab/down", "--name", args.name], stdin=subprocess.DEVNULL, check=False)


if __name__ == "__main__":
    main()
