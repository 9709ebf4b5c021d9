# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# PRIVATE to the collection, and installed on every server as part of the engine that restores its network at boot:
# standard library and relative imports only.
"""The ground the engine stands on: commands, packages and files of this host."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

STATE_DIR = Path("/etc/warren")

# The commands that the engine runs for every host, and the Debian package that has each.
COMMANDS = {"ip": "iproute2", "nft": "nftables"}


class NetworkError(Exception):
    """Something on the host is in the way. The message says what, and what to do about it; it holds no secret."""


def run(argv: Sequence[str], stdin: str = "") -> str:
    """Run a command and return what it printed.

    Args:
        argv: the command and its arguments; never a secret, for arguments are visible to every user of the host.
        stdin: what the command reads; secrets go here.

    Raises:
        NetworkError: it failed or is not installed; the message has the command and what it said.
    """
    result = attempt(argv, stdin)
    if result.returncode:
        raise NetworkError(f"{' '.join(argv)} failed: {(result.stderr or result.stdout).strip()}")
    return result.stdout


def attempt(argv: Sequence[str], stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command whose failure is an answer too.

    Raises:
        NetworkError: it is not installed.
    """
    environment = {**os.environ, "LC_ALL": "C", "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:/usr/bin:/bin"}
    try:
        # At boot there is no AnsibleModule whose run_command could be used.
        return subprocess.run(  # pylint: disable=ansible-bad-function
            argv, input=stdin, capture_output=True, text=True, check=False, env=environment
        )
    except FileNotFoundError as error:
        raise NetworkError(f"{argv[0]} is not installed on this host") from error


def missing_packages(commands: Mapping[str, str]) -> list[str]:
    """The packages, of a map from command to package, whose command this host lacks."""
    directories = ("/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/sbin", "/usr/local/bin")
    return sorted(
        {
            package
            for command, package in commands.items()
            if not any(os.access(f"{directory}/{command}", os.X_OK) for directory in directories)
        }
    )


def not_installed(packages: Sequence[str]) -> list[str]:
    """Which of these Debian packages this host lacks."""
    if not packages:
        return []
    listing = attempt(["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\n", *packages]).stdout
    here = {line.split()[0] for line in listing.splitlines() if line.endswith(" installed")}
    return sorted(set(packages) - here)


def read(path: Path) -> str | None:
    """A file's text, or None where there is no such file."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def write(path: Path, text: str, mode: int = 0o600) -> None:
    """Replace a file by one with this text and mode, atomically: a reader, or a power cut, finds the old or the new."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), mode)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink()
        raise


def in_place(path: Path, text: str, mode: int = 0o600) -> bool:
    """Whether a file has just this text and mode."""
    return read(path) == text and path.stat().st_mode & 0o777 == mode


def secret_number(name: str, create: bool) -> int:
    """A 32-bit number that this host made for itself and tells nobody, the same at every call.

    Args:
        name: what it is for; its file is ``/etc/warren/secrets/<name>``.
        create: make it when there is none yet; otherwise 0 stands for the number to come.
    """
    path = STATE_DIR / "secrets" / name
    text = read(path)
    if text is None:
        if not create:
            return 0
        text = f"{int.from_bytes(os.urandom(4), 'big')}\n"
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write(path, text)
    return int(text)
