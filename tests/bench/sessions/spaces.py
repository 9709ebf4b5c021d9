"""Network namespaces, the links between them and the processes in them, all of which are gone afterwards."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

PYTHON = "/usr/bin/python3"  # the distribution's: the agent runs on it
HERE = Path(__file__).resolve().parent
MAC = "02:00:00:00:00:01"

JUDGE = """
table inet judge {{
    counter entry {{}}
    counter exit {{}}
    counter stray {{}}
    chain arriving {{
        type filter hook prerouting priority raw;
        iifname "entry" ip saddr {{ {entry4} }} counter name entry drop
        iifname "entry" ip6 saddr {{ {entry6} }} counter name entry drop
        iifname "exit" ip saddr {{ {exit4} }} counter name exit drop
        iifname "exit" ip6 saddr {{ {exit6} }} counter name exit drop
        meta l4proto udp counter name stray drop
        drop
    }}
}}
"""

# Counts, and drops, what comes back to the clients.
TALLY = """
table inet judge {
    counter answers {}
    chain arriving { type filter hook prerouting priority raw; udp sport 9 counter name answers drop; }
}
"""


class CommandError(Exception):
    """A command failed, or a process that should not have ended did."""


class Spaces:
    """What one run has made."""

    def __init__(self) -> None:
        """Nothing yet but a directory."""
        self._made = tempfile.TemporaryDirectory(prefix="warren-bench-")
        self.directory = Path(self._made.name)
        self._names: list[str] = []
        self._processes: list[tuple[str, subprocess.Popen]] = []
        self._sockets: list[socket.socket] = []

    def add(self, world: str, *names: str) -> None:
        """Make namespaces of a world, which has the usual settings of a router."""
        for name in names:
            full = self.name(world, name)
            self._names.append(full)
            run(["ip", "netns", "add", full])
            self.ip(full, "link set dev lo up")
            forward = ("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1", "net.ipv6.conf.default.accept_dad=0")
            self.run(full, "sysctl", "-qw", *forward)

    @staticmethod
    def name(world: str, name: str) -> str:
        """The full name of a namespace: another run may be going on."""
        return f"wbs{os.getpid()}-{world}-{name}"

    def remove(self, world: str) -> None:
        """End the processes of a world and remove its namespaces."""
        prefix = self.name(world, "")
        for process in [process for full, process in self._processes if full.startswith(prefix)]:
            self.stop(process)
        for full in [full for full in self._names if full.startswith(prefix)]:
            run(["ip", "netns", "delete", full])
            self._names.remove(full)

    def run(self, space: str, *command: str | Path, text: str = "") -> str:
        """Run a command in a namespace."""
        return run(["ip", "netns", "exec", space, *command], text)

    def start(self, space: str, *command: str | Path, **options: Any) -> subprocess.Popen:
        """Start a program in a namespace: ip(8) becomes it, so its process is the one that is known here."""
        line = ["ip", "netns", "exec", space, *command]
        process = subprocess.Popen(line, start_new_session=True, **options)
        self._processes.append((space, process))
        return process

    def stop(self, process: subprocess.Popen) -> None:
        """End a process that was started here."""
        for number, patience in ((signal.SIGTERM, 10), (signal.SIGKILL, 10)):
            if process.poll() is None:
                process.send_signal(number)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(patience)
        for stream in filter(None, (process.stdin, process.stdout)):
            with suppress(OSError):
                stream.close()
        self._processes = [item for item in self._processes if item[1] is not process]

    def listen(self, path: Path) -> socket.socket:
        """A socket for datagrams, closed at the end: one that nobody has read keeps its sender's namespace."""
        path.unlink(missing_ok=True)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sockets.append(sock)
        sock.bind(str(path))
        return sock

    def ip(self, space: str, *lines: str, family: str = "-4") -> None:
        """Run lines of ip(8) in a namespace."""
        run(["ip", family, "-n", space, "-batch", "-"], "\n".join(lines) + "\n")

    def join(self, one: tuple[str, str], other: tuple[str, str], mtu: int = 1420) -> None:
        """Join two namespaces by a link that, like WireGuard's, has no neighbours to look up.

        Without ARP a packet goes to the sender's own hardware address: so both ends have the same one.
        """
        self.ip(one[0], f"link add name {one[1]} mtu {mtu} type veth peer name {other[1]} mtu {mtu} netns {other[0]}")
        for space, name in (one, other):
            change = f"link set dev {name}"
            self.ip(space, f"{change} address {MAC}", f"{change} arp off addrgenmode none", f"{change} up")

    def judge(self, space: str, addresses: dict[str, str]) -> None:
        """Count, and drop, what arrives in the namespace that stands for the internet."""
        self.run(space, "nft", "-f", "-", text=JUDGE.format(**addresses))

    def tally(self, space: str) -> None:
        """Count what comes back to the clients' namespace."""
        self.run(space, "nft", "-f", "-", text=TALLY)

    def counted(self, space: str) -> dict[str, int]:
        """How many packets have arrived there by now: from the entry, from the exit, with a wrong address."""
        listing = json.loads(self.run(space, "nft", "-j", "list", "counters", "table", "inet", "judge"))
        return {
            item["counter"]["name"]: item["counter"]["packets"] for item in listing["nftables"] if "counter" in item
        }

    def close(self) -> None:
        """Remove everything; a second Ctrl-C does not stop that."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        for _space, process in reversed(self._processes):
            self.stop(process)
        for sock in self._sockets:
            sock.close()
        for full in reversed(self._names):
            subprocess.run(["ip", "netns", "delete", full], capture_output=True, check=False)
        self._made.cleanup()


def run(command: list[str | Path], text: str = "") -> str:
    """Run a command and return what it printed."""
    result = subprocess.run(
        command, input=text, capture_output=True, text=True, check=False, env=os.environ | {"LC_ALL": "C"}
    )
    if result.returncode:
        shown = " ".join(map(str, command))
        raise CommandError(f"{shown} failed: {(result.stderr or result.stdout).strip()[:2000]}")
    return result.stdout


class Helper:
    """A program of this directory in a namespace that is asked by lines of JSON and answers so."""

    def __init__(self, spaces: Spaces, space: str, program: str, *arguments: str) -> None:
        """Start it."""
        self._process = spaces.start(
            space, PYTHON, "-B", HERE / program, *arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, **question: Any) -> Any:
        """Ask, and wait for the answer."""
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise CommandError("a helper in a namespace has failed: see above")
        return json.loads(answer)
