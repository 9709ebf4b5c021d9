# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# PRIVATE to the collection.
"""Putting the engine itself on a server, so that boot restores by the code that the run used, and files beside it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path

from . import _host, _network, _nftables, _restore, _wireguard
from ._network import Report

ENGINE_DIR = Path("/usr/lib/warren/warren_network")
# Imported, and so brought along to the host, every one.
ENGINE = (_host, _nftables, _wireguard, _network, _restore)
UNIT_DIR = Path("/etc/systemd/system")


def engine_files() -> dict[Path, str]:
    """The engine's own source as this process imported it, by the path it has on a server."""
    files = {ENGINE_DIR / "__init__.py": ""}
    for module in ENGINE:
        name = module.__name__.rpartition(".")[2] + ".py"
        files[ENGINE_DIR / name] = inspect.getsource(module)
    return files


def install(files: Sequence[Mapping[str, str]], enable: Sequence[str], report: Report, apply: bool) -> None:
    """Write the engine and other files, and have systemd know them.

    Args:
        files: ``path`` and ``content`` each, world-readable: nothing secret.
        enable: units to start at boot.
        report: where differences are noted.
        apply: False only compares.
    """
    wanted = {Path(file["path"]): file["content"] for file in files}
    reload = False
    for path, text in {**engine_files(), **wanted}.items():
        if _host.in_place(path, text, 0o644):
            continue
        before = [] if path not in wanted else (_host.read(path) or "").splitlines()
        after = [] if path not in wanted else [f"file {path}", *text.splitlines()]
        report.differs(f"write {path}", [f"file {path}", *before] if before else [], after)
        if apply:
            _host.write(path, text, 0o644)
        reload = reload or UNIT_DIR in path.parents
    if reload and apply:
        _host.run(["systemctl", "daemon-reload"])
    for unit in enable:
        if not (UNIT_DIR / "multi-user.target.wants" / unit).is_symlink():
            report.differs(f"enable {unit}", [], [f"unit {unit} enabled"])
            if apply:
                _host.run(["systemctl", "enable", "--quiet", unit])
