"""What the gates keep between runs: made once, by whoever comes first, and known by all that it is made from."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

ROOT = Path(__file__).resolve().parents[2]
# What takes long to make and is the same for every checkout. `make clean` removes it.
KEPT = ROOT / ".nox" if os.geteuid() else Path("/var/lib/warren-lab")
IN_USE: list[TextIO] = []


def use_kept() -> None:
    """Keep `make clean` of another checkout from taking KEPT away, for as long as this process runs."""
    lock = Path("/run/lock/warren-kept").open("a")  # noqa: SIM115 - it ends with the process
    fcntl.flock(lock, fcntl.LOCK_SH)
    IN_USE.append(lock)


@contextmanager
def made_once(word: str, *parts: bytes) -> Iterator[tuple[Path, bool]]:
    """A directory under KEPT for what is made from `parts`, and whether it has to be made; the older ones go.

    Whoever else wants it waits. It counts as made when the block ends without an error.
    """
    if os.geteuid() == 0:
        use_kept()
    digest = hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]
    directory = KEPT / f"{word}-{digest}"
    directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (KEPT / f"{word}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = directory / ".made"
        if done.exists():
            os.utime(directory)
            yield directory, False
            return
        # One that another checkout may still use was touched not long ago.
        for old in KEPT.glob(f"{word}-*"):
            if old == directory or time.time() - old.stat().st_mtime > 7 * 86400:
                shutil.rmtree(old)
        directory.mkdir()
        yield directory, True
        done.touch()


# What the saved states of an emulated machine are made from: hosts that were just started, and the fleet on them.
HOSTS = ["inventory/lab", "lab", "molecule/kernel/molecule.yml", "molecule/shared/create.yml", "molecule/shared/vars"]
DEPLOYED = [*HOSTS, "meta", "molecule/shared/converge.yml", "playbooks", "plugins", "requirements/lab.txt", "roles"]


def state_of(word: str, paths: list[str]) -> str:
    """Name a state of a machine by all that it is made from."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *paths]
    listing = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    digest = hashlib.sha256()
    for path in sorted(ROOT / name for name in set(listing.split("\0")) - {""}):
        if path.is_file():
            digest.update(f"{path.relative_to(ROOT)} {path.stat().st_mode}\n".encode() + path.read_bytes())
    return f"{word}-{digest.hexdigest()[:16]}"
