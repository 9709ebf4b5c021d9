# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# PRIVATE to the collection.
"""Files and systemd units on a server, and the engine itself, so that boot restores by the code that the run used."""

from __future__ import annotations

import functools
import grp
import inspect
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from . import (
    _host,
    _interfaces,
    _keys,
    _link,
    _netlink,
    _network,
    _nftables,
    _plan,
    _record,
    _restore,
    _rules,
    _sysctl,
    _wireguard,
)
from ._plan import Plan
from ._record import Network

PROGRAM_DIR = Path("/usr/lib/warren")
ENGINE_DIR = PROGRAM_DIR / "warren_network"
# Imported, and so brought along to the host, every one.
ENGINE = (
    _host, _plan, _link, _interfaces, _keys, _netlink, _nftables, _rules, _sysctl, _wireguard, _record, _network,
    _restore,
)  # fmt: skip
UNIT_DIR = Path("/etc/systemd/system")
ENDPOINTS = "warren-endpoints.timer"
# Made by Debian, though no package has it.
LOCAL_DIR = Path("/usr/local")

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


def compare(parts: Sequence[Mapping[str, Any]], network: Network, plan: Plan) -> None:
    """The engine and the parts' files that are not in place, and units that do not start at boot.

    Args:
        parts: see the module ``network``: ``files`` and ``services``.
        network: all that is wanted on this host, the parts of other owners too.
        plan: where differences are noted.
    """
    files = (engine_files() if network.parts else []) + [file for part in parts for file in files_from(part)]
    due = [file for file in files if not file.in_place()]
    for file in due:
        before = (_host.read(file.path) or "").splitlines() if file.shown else []
        after = file.content.splitlines() if file.shown else []
        plan.add(f"write {file.path}", str(file.path), before, after, file.write)
    if any(UNIT_DIR in file.path.parents for file in due):
        plan.then(_reload_systemd)
    for name in (str(service["name"]) for part in parts for service in part.get("services") or []):
        if not _is_enabled(name):
            step = functools.partial(_host.run, ["systemctl", "enable", "--quiet", name])
            plan.add(f"enable {name}", name, [], [f"unit {name} enabled"], step)


def _reload_systemd() -> None:
    _host.run(["systemctl", "daemon-reload"])


def _is_enabled(name: str) -> bool:
    return any(UNIT_DIR.glob(f"*.wants/{name}"))


def compare_services(parts: Sequence[Mapping[str, Any]], plan: Plan) -> None:
    """The services that do not run, or that run with a file older than the one that is there now.

    They are due when all else is in place. A run that died in between is found out by the next one.
    """
    due: dict[str, list[str]] = {"restart": [], "reload": []}
    for part in parts:
        services = {str(service["name"]): service for service in part.get("services") or [] if service["running"]}
        files = files_from(part) if services else []
        for name, (since, told) in _running(list(services)).items():
            verb = _verb(name, since, told, files, set(services[name].get("reload") or []))
            if verb:
                plan.add(f"{verb} {name}", name, [], [f"unit {name} {verb}ed"])
                due["reload" if verb == "reload" else "restart"].append(name)
    for verb, names in due.items():
        if names:
            plan.then(functools.partial(_host.run, ["systemctl", verb, *names]))


def _verb(name: str, since: float | None, told: float, files: Sequence[File], reloaded: set[str]) -> str:
    """What a unit needs: ``start``, ``restart``, ``reload`` or nothing.

    Args:
        name: of the unit.
        since: when it started; None if it does not run.
        told: when it started or was last told to read its files again.
        files: of its part.
        reloaded: the paths of those that it reads again when it is told to.
    """
    if since is None:
        return "start"

    def newer(file: File, than: float) -> bool:
        return not file.in_place() or file.path.stat().st_mtime >= than

    # What a service runs is all of the part; a socket stays open for all that is not its own.
    own = [file for file in files if name.endswith(".service") or file.path.name == name]
    if any(newer(file, since) for file in own if str(file.path) not in reloaded):
        return "restart"
    return "reload" if any(newer(file, told) for file in own if str(file.path) in reloaded) else ""


def _running(names: Sequence[str]) -> dict[str, tuple[float | None, float]]:
    """When each unit became active, and when its state last changed, which a reload does; in seconds since 1970.

    The first is None for a unit that is not active.
    """
    if not names:
        return {}
    wanted = ["ActiveState", "ActiveEnterTimestamp", "StateChangeTimestamp"]
    properties = [f"--property={','.join(wanted)}", "--timestamp=us+utc"]
    found: dict[str, tuple[float | None, float]] = {}
    for name, text in zip(names, _host.run(["systemctl", "show", *properties, *names]).split("\n\n")):
        values = dict(line.partition("=")[::2] for line in text.splitlines())
        since, told = (_seconds(values.get(key, "")) for key in wanted[1:])
        found[name] = (since if values["ActiveState"] in ("active", "reloading") else None, told)
    return found


def _seconds(timestamp: str) -> float:
    return datetime.strptime(timestamp or EPOCH, TIMESTAMP).replace(tzinfo=timezone.utc).timestamp()


def compare_endpoints(network: Network, plan: Plan) -> None:
    """Whether somebody has to look now and then where peers are that are known by a DNS name: boot cannot, and it may
    stand for another address one day."""
    peers = [peer for link in network.links.values() for peer in link.peers.values()]
    wanted = any(_link.has_name(peer.endpoint) for peer in peers)
    if wanted != _is_enabled(ENDPOINTS):
        verb = "enable" if wanted else "disable"
        step = functools.partial(_host.run, ["systemctl", verb, "--now", "--quiet", ENDPOINTS])
        plan.add(f"{verb} {ENDPOINTS}", ENDPOINTS, [], [f"unit {ENDPOINTS} {verb}d"], step)


# --- what nobody declares any more ---------------------------------------------------------------------------------


def compare_surplus_services(network: Network, last: Network, plan: Plan) -> None:
    """Stop what nobody declares any more, before anything that it needs goes."""
    kept = set(network.named("services"))
    for name in last.named("services"):
        if name not in kept:
            plan.add(f"stop {name}", name, [f"unit {name} enabled"], [], functools.partial(_stop, name))


def _stop(name: str) -> None:
    result = _host.attempt(["systemctl", "stop", name])
    if result.returncode not in (0, 5):  # 5: there is no such unit (systemctl(1))
        raise _host.NetworkError(f"{name} does not stop: {result.stderr.strip()}. See journalctl --unit {name}")
    _host.attempt(["systemctl", "disable", "--quiet", name])


def compare_surplus(network: Network, last: Network, plan: Plan) -> None:
    """Remove files, directories and users that nobody declares any more, and all of the engine where nothing is left.

    Args:
        network: all that is wanted on this host.
        last: what is on record.
        plan: where differences are noted.
    """
    declared = {Path(path) for path in network.named("files")}
    gone = [path for path in map(Path, last.named("files")) if path not in declared and path.exists()]
    engine = {file.path for file in engine_files()} if network.parts else set()
    programs = (
        {path for path in PROGRAM_DIR.rglob("*.*") if path.is_file() and path.suffix != ".pyc"} - declared - engine
    )
    for path in sorted({*gone, *programs}):
        shown = [] if path in programs else (_host.read(path) or "").splitlines()
        plan.add(f"remove {path}", str(path), shown, [], functools.partial(_remove_file, path))
    for name in sorted(set(last.named("users")) - set(network.named("users"))):
        plan.add(f"remove user {name}", name, [f"user {name}"], [], functools.partial(_remove_user, name))
    ours = [] if network.parts else [path for path in (_host.STATE_DIR, PROGRAM_DIR) if path.exists()]
    directories = set(map(Path, last.named("directories"))) - set(map(Path, network.named("directories")))
    for path in sorted({*directories, *ours}):
        if path.exists():
            plan.add(f"remove {path}", str(path), [str(path)], [], functools.partial(_remove_tree, path))
    if any(UNIT_DIR in path.parents for path in gone):
        plan.then(_reload_systemd)


def _remove_tree(path: Path) -> None:
    if path.exists():  # it goes with the last file in it
        shutil.rmtree(path)


def _remove_user(name: str) -> None:
    result = _host.attempt(["userdel", name])
    if result.returncode not in (0, 6):  # 6: there is none (userdel(8))
        raise _host.NetworkError(f"userdel {name} failed: {result.stderr.strip()}")


def _remove_file(path: Path) -> None:
    if path.name.endswith("@.service"):
        _host.attempt(["systemctl", "stop", path.name.replace("@.", "@*.")])
    path.unlink()
    # Directories that were made for our files go too. Those of the distribution's packages stay, empty or not.
    for parent in path.parents:
        if any(parent.iterdir()) or LOCAL_DIR in parent.parents:
            return
        if not _host.attempt(["dpkg", "--search", str(parent)]).returncode:
            return
        parent.rmdir()
