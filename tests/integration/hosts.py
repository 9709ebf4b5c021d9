"""The way to a lab's hosts: containers of this machine, or of an emulated one (lab/machine, LAB_MACHINE)."""

from __future__ import annotations

import os
import resource
import shlex
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
INSIDE = "/srv/warren"
"""Where the checkout is in an emulated machine."""
FILES = 16384
"""What a test may open at once: some stand for thousands of clients."""
ENVIRONMENT = (
    "env",
    "-i",
    "HOME=/root",
    "LANG=C.UTF-8",
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
)


class Engine:
    """podman, and commands in its containers.

    A command enters its container's namespaces by itself. `podman exec` costs 0.2 s of CPU, in an emulated machine 3 s,
    and the tests run thousands of commands; nsenter costs 0.005 s. It keeps all of root's capabilities, of which the
    container has some. Ansible, which does what is tested, goes by SSH and `podman exec` (lab/README.md).
    """

    def __init__(self, machine: str = "") -> None:
        """Take the machine's name, or none for this one."""
        self._ssh = ["ssh", "-F", str(ROOT / f".lab/machines/{machine}/ssh_config"), "machine"] if machine else []
        self._root = Path(INSIDE) if machine else ROOT
        self._pids: dict[str, str] = {}
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(FILES, hard)), hard))

    def here(self, *words: str) -> list[str]:
        """A command where the containers are."""
        return [*self._ssh, shlex.join(words)] if self._ssh else list(words)

    def run(self, *words: str) -> str:
        """What a command prints where the containers are; it has to succeed."""
        done = subprocess.run(self.here(*words), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{shlex.join(words)}: {done.stdout}{done.stderr}")
        return done.stdout

    def pid(self, container: str) -> str:
        """The process that is a container's first one, here; 0 if it does not run."""
        if container not in self._pids:
            self._pids[container] = self.run("podman", "inspect", "--format", "{{.State.Pid}}", container).strip()
        return self._pids[container]

    def inside(self, container: str, *words: str) -> list[str]:
        """A command in a container, as root."""
        pid = self.pid(container)
        if pid == "0":
            return ["sh", "-c", f"echo {container} does not run >&2; exit 125"]
        return self.here("nsenter", "--target", pid, "--all", "--wdns=/", *ENVIRONMENT, *words)

    def podman(self, command: str, container: str, *options: str) -> None:
        """Have podman do something with a container, and wait until it is up again unless it was stopped."""
        self._pids.pop(container, None)
        self.run("podman", command, *options, container)
        if command != "stop":
            slowness = os.environ.get("LAB_SLOWNESS") or "1"
            self.run("env", f"LAB_SLOWNESS={slowness}", "python3", str(self._root / "lab/wait.py"), container)

    def now(self) -> float:
        """The time, by the clock that all containers share."""
        return float(self.run("date", "+%s.%N")) if self._ssh else time.time()
