"""Measure what the links of one server of a large fleet cost it, on the kernel's WireGuard; print a table for
docs/performance.md.

The server's part of a generated fleet is rendered by playbooks/render.yml, and the engine that boot runs puts it in
place in network and mount namespaces of its own: from nothing, with no change, with one peer changed. In turn with it,
the same engine with `wg` for every link instead of one netlink conversation.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from generated import generated, key

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = ROOT / ".venv/bin/ansible-playbook"
ENGINE = ROOT / "plugins/module_utils"
PURPOSES = ("control_mesh", "access", "multihop")
SIDES = ("netlink", "wg")
STEPS = ("Python and imports alone", "from nothing", "no change", "one peer changed")

# In namespaces of its own, where /etc/warren and the engine are those of the bench: four runs, a line of JSON each.
INSIDE = """
import json, os, subprocess, sys, time
side, changed = sys.argv[1:]
start = (
    "from warren_network import _restore, _wireguard\\n"
    "def configure(pairs):\\n"
    "    for wanted, here in pairs:\\n"
    "        _wireguard._configure_userspace(wanted, here)\\n"
    "if %r == 'wg':\\n"
    "    _wireguard.configure = configure\\n"
    "raise SystemExit(_restore.main())\\n"
) % side
def available():
    return int(open("/proc/meminfo").read().split("MemAvailable:")[1].split()[0])
def run(name, start=start):
    free, began = available(), time.monotonic()
    process = subprocess.Popen(["/usr/bin/python3", "-c", start], stdout=subprocess.PIPE)
    actions = process.stdout.read().decode().splitlines()
    _pid, status, usage = os.wait4(process.pid, 0)
    wall = time.monotonic() - began
    if status:
        sys.exit(f"{name}: status {status}")
    print(json.dumps({"wall": wall, "cpu": usage.ru_utime + usage.ru_stime, "rss": usage.ru_maxrss / 1024,
                      "kernel": (free - available()) / 1024, "actions": len(actions)}), flush=True)
run("imports", "from warren_network import _restore")
run("from nothing")
run("no change")
os.replace(changed, "/etc/warren/network.json")
run("one peer changed")
"""


@dataclass
class Figures:
    """Of one side: by step, one value a round."""

    wall: dict[str, list[float]] = field(default_factory=dict)
    cpu: dict[str, list[float]] = field(default_factory=dict)
    rss: dict[str, list[float]] = field(default_factory=dict)
    kernel: list[float] = field(default_factory=list)


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", default="250,1000", help="peers on the control mesh")
    parser.add_argument("--links", type=int, default=250, help="multihop links")
    parser.add_argument("--rounds", type=int, default=3, help="of each side, in turn")
    args = parser.parse_args()
    args.peers = [int(number) for number in args.peers.split(",")]
    return args


def wg(*words: str, text: str = "") -> str:
    """Run wg and return what it prints."""
    return subprocess.run(["wg", *words], input=text, text=True, capture_output=True, check=True).stdout.strip()


def rendered(peers: int, links: int, directory: Path) -> Path:
    """Render the first server of a fleet, with real keys; its /etc/warren."""
    private = {purpose: wg("genkey") for purpose in PURPOSES}
    public = {purpose: wg("pubkey", text=text) for purpose, text in private.items()}
    inventory = generated(peers + 1, 20, directory, public)
    top = directory / f"render{peers}"
    env = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    command = [PROGRAM, "-i", inventory, "--limit", "s0001", "playbooks/render.yml", "-e", f"render_dir={top}"]
    done = subprocess.run(
        command, cwd=ROOT, env={**env, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"{done.stdout}{done.stderr}\nbench: the render failed")
    warren = top / "s0001/etc/warren"
    (warren / "keys").mkdir(mode=0o700, exist_ok=True)
    for purpose, text in private.items():
        (warren / f"keys/{purpose}.key").write_text(f"{text}\n")
    data = json.loads((warren / "network.json").read_text())
    # Of a larger fleet the mesh is what counts; its tables stay those of all servers.
    parts = {part["owner"]: part for part in data["parts"]}
    exits = [link for link in parts["multihop"]["links"] if link["name"].startswith("wg0mh-")]
    others = [link for link in parts["multihop"]["links"] if link not in exits]
    parts["multihop"]["links"] = others + exits[:links]
    (mesh,) = parts["control_mesh"]["links"]
    made = {"peers": len(mesh["peers"]), "links": len(exits[:links])}
    if made != {"peers": peers, "links": links}:
        sys.exit(f"bench: rendered {made}")
    parts["agent"]["packages"] = ["python3"]  # asking costs the same, and this machine need not have the agent's
    (warren / "network.json").write_text(json.dumps(data))
    mesh["peers"][7]["public_key"] = key()
    (directory / "changed.json").write_text(json.dumps(data))
    return warren


def measured(warren: Path, side: str, directory: Path) -> Iterator[dict[str, float]]:
    """One round of one side: what each step took."""
    own, changed = directory / "etc", directory / "next.json"
    shutil.rmtree(own, ignore_errors=True)
    shutil.copytree(warren, own)
    package = directory / "lib/warren_network"
    package.mkdir(parents=True, exist_ok=True)
    for module in ENGINE.glob("_*.py"):  # more than the engine's own, and no second list of them
        shutil.copy2(module, package)
    (package / "__init__.py").touch()
    shutil.copy2(directory / "changed.json", changed)
    script = """
        mkdir -p /etc/warren
        mount --bind "$1" /etc/warren
        mount -t tmpfs none /etc/sysctl.d
        mount -t sysfs none /sys
        ip link set lo up
        cp "$3" /etc/warren/changed.json
        exec /usr/bin/python3 -c "$2" "$4" /etc/warren/changed.json
    """
    command = ["unshare", "--net", "--mount", "sh", "-euc", script, "sh", str(own), INSIDE, str(changed), side]
    env = {**os.environ, "PYTHONPATH": str(directory / "lib"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{done.stdout}{done.stderr}\nbench: {side} failed")
    for line in done.stdout.splitlines():
        yield json.loads(line)


def spread(values: list[float], digits: int = 1) -> str:
    """The median, and the smallest and largest value."""
    return f"{median(values):.{digits}f} ({min(values):.{digits}f}..{max(values):.{digits}f})"


def table(peers: int, args: argparse.Namespace, directory: Path) -> None:
    """Print the rows of one size."""
    warren = rendered(peers, args.links, directory)
    sides = {side: Figures() for side in SIDES}
    for _number in range(args.rounds):
        for side, figures in sides.items():
            steps = list(measured(warren, side, directory))
            for name, step in zip(STEPS, steps, strict=True):
                # Nothing to do, or something: otherwise it would be something else that was measured.
                if bool(step["actions"]) == (name in (STEPS[0], "no change")):
                    sys.exit(f"bench: {side}, {name}: {step['actions']} actions")
                for values, what in ((figures.wall, "wall"), (figures.cpu, "cpu"), (figures.rss, "rss")):
                    values.setdefault(name, []).append(step[what])
            figures.kernel.append(steps[1]["kernel"])
    new, old = sides["netlink"], sides["wg"]
    for name in STEPS:
        ratio = [ours / theirs for ours, theirs in zip(new.cpu[name], old.cpu[name], strict=True)]
        cells = [
            str(peers), name, spread(new.cpu[name]), spread(new.wall[name]), spread(old.cpu[name]), spread(ratio, 2),
            f"{max(new.rss[name]):.0f}", spread(new.kernel, 0) if name == "from nothing" else "",
        ]  # fmt: skip
        print(f"| {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Measure in a directory of its own."""
    args = options()
    if not PROGRAM.exists():
        sys.exit("bench: there is no .venv yet: run `make venv` first")
    if subprocess.run(["unshare", "--net", "ip", "link", "add", "probe", "type", "wireguard"], check=False).returncode:
        sys.exit("bench: this kernel has no WireGuard; in an emulated machine: make bench-links")
    print(f"{args.links} multihop links, {args.rounds} rounds; seconds and MiB, median (min..max)\n")
    print("| peers | step | CPU | wall | CPU with `wg` | ratio | its memory | the kernel's |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory(prefix="warren-bench-") as directory:
        for peers in args.peers:
            table(peers, args, Path(directory))


if __name__ == "__main__":
    main()
