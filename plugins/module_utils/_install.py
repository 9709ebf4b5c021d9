# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# PRIVATE to the collection.
"""Files and systemd units on a server, and the engine itself, so that boot restores by the code that the run used."""

from __future__ import annotations

import grp
import inspect
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from . import _host, _netlink, _network, _nftables, _restore, _rules, _wireguard
from ._network import Report

PROGRAM_DIR = Path("/usr/lib/warren")
ENGINE_DIR = PROGRAM_DIR / "warren_network"
# Imported, and so brought along to the host, every one.
ENGINE = (_host, _netlink, _nftables, _wireguard, _rules, _network, _restore)
UNIT_DIR = Path("/etc/systemd/system")

# How systemctl prints a time with --timestamp=us+utc.
TIMESTAMP = "%a %Y-%m-%d %H:%M:%S.%f %Z"
EPOCH = "Thu 1970-01-01 00:00:00.000000 UTC"


@dataclass(frozen=True)
class File:
    """A file as it is to be. Nothing in it is secret.

    Attributes:
        path: absolute.
        content: the whole text.
        mode: permissions.
        group: whose group may read it where not everybody may; a group that systemd-sysusers makes.
        shown: whether a diff has its lines.
    """

    path: Path
    content: str
    mode: int = 0o644
    group: str = "root"
    shown: bool = True

    def in_place(self) -> bool:
        """Whether the host has it just so."""
        return _host.in_place(self.path, self.content, self.mode) and self.path.stat().st_gid == self.gid(make=False)

    def gid(self, make: bool) -> int:
        """The group's number, -1 where there is no such group."""
        try:
            return grp.getgrnam(self.group).gr_gid
        except KeyError:
            if not make:
                return -1
        _host.run(["systemd-sysusers"])
        return grp.getgrnam(self.group).gr_gid

    def write(self) -> None:
        """Put it there."""
        # In this order nobody else can read it meanwhile.
        _host.write(self.path, self.content, 0o600)
        os.chown(self.path, 0, self.gid(make=True))
        self.path.chmod(self.mode)


def engine_files() -> list[File]:
    """The engine's own source as this process imported it."""
    files = [File(ENGINE_DIR / "__init__.py", "", shown=False)]
    for module in ENGINE:
        name = module.__name__.rpartition(".")[2] + ".py"
        files.append(File(ENGINE_DIR / name, inspect.getsource(module), shown=False))
    return files


def files_from(part: Mapping[str, Any]) -> list[File]:
    """The files of a part, see the module ``network``."""
    return [
        File(Path(file["path"]), file["content"], int(file.get("mode") or "644", 8), file.get("group") or "root")
        for file in part.get("files") or []
    ]


def install(parts: Sequence[Mapping[str, Any]], report: Report, apply: bool) -> None:
    """Write the engine and the parts' files, and have systemd know them.

    Args:
        parts: see the module ``network``: ``files`` and ``services``.
        report: where differences are noted.
        apply: False only compares.
    """
    changed = _write(engine_files() + [file for part in parts for file in files_from(part)], report, apply)
    if apply and any(UNIT_DIR in path.parents for path in changed):
        _host.run(["systemctl", "daemon-reload"])
    for service in (service for part in parts for service in part.get("services") or []):
        if not any(UNIT_DIR.glob(f"*.wants/{service['name']}")):
            report.differs(f"enable {service['name']}", [], [f"unit {service['name']} enabled"])
            if apply:
                _host.run(["systemctl", "enable", "--quiet", str(service["name"])])


def _write(files: Iterable[File], report: Report, apply: bool) -> set[Path]:
    changed = set()
    for file in files:
        if file.in_place():
            continue
        changed.add(file.path)
        before = (_host.read(file.path) or "").splitlines() if file.shown else []
        after = [f"file {file.path}", *file.content.splitlines()] if file.shown else []
        report.differs(f"write {file.path}", [f"file {file.path}", *before] if before else [], after)
        if apply:
            file.write()
    return changed


def run_services(parts: Sequence[Mapping[str, Any]], report: Report, apply: bool) -> None:
    """Start the services that do not run, or that run with a file older than the one that is there now.

    Called when all else is in place. A run that died in between is found out by the next one.
    """
    due = []
    for part in parts:
        names = [str(service["name"]) for service in part.get("services") or [] if service["running"]]
        files = files_from(part) if names else []
        for name, since in _running(names).items():
            # What a service runs is all of the part; a socket stays open for all that is not its own.
            own = [file for file in files if name.endswith(".service") or file.path.name == name]
            stale = since is not None and any(not file.in_place() or file.path.stat().st_mtime >= since for file in own)
            if since is None or stale:
                report.differs(f"{'restart' if stale else 'start'} {name}", [], [f"unit {name} {'re' * stale}started"])
                due.append(name)
    if due and apply:
        _host.run(["systemctl", "restart", *due])


def _running(names: Sequence[str]) -> dict[str, float | None]:
    """When each unit became active, in seconds since 1970; None for one that is not active."""
    if not names:
        return {}
    properties = ["--property=ActiveState,ActiveEnterTimestamp", "--timestamp=us+utc"]
    found: dict[str, float | None] = {}
    for name, text in zip(names, _host.run(["systemctl", "show", *properties, *names]).split("\n\n")):
        values = dict(line.partition("=")[::2] for line in text.splitlines())
        since = datetime.strptime(values["ActiveEnterTimestamp"] or EPOCH, TIMESTAMP).replace(tzinfo=timezone.utc)
        found[name] = since.timestamp() if values["ActiveState"] in ("active", "reloading") else None
    return found
