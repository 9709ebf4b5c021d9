# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Files and units: what counts as a difference, and when a service is started anew."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from ansible_collections.warren.vpn.plugins.module_utils import _host, _install, _network

SHOWN = "ActiveState={}\nActiveEnterTimestamp={}\n"


def stamp(seconds: float) -> str:
    whole = time.strftime("%a %Y-%m-%d %H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds % 1 * 1e6):06} UTC"


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> dict:
    """A host whose units are as told, and whose commands are noted."""
    state: dict = {"units": {}, "ran": []}

    def run(argv: list[str], _stdin: str = "") -> str:
        if argv[1] != "show":
            state["ran"].append(" ".join(argv))
            return ""
        units = [word for word in argv[2:] if not word.startswith("--")]
        return "\n".join(SHOWN.format(*state["units"].get(unit, ("inactive", ""))) for unit in units)

    monkeypatch.setattr(_host, "run", run)
    return state


@pytest.fixture
def part(tmp_path: Path) -> dict:
    """A part with a program and the units that run it, all in place since an hour."""
    names = ("program.py", "x.service", "x.socket")
    files = [{"path": str(tmp_path / name), "content": name, "mode": "644", "group": "root"} for name in names]
    for file in files:
        Path(file["path"]).write_text(file["content"])
        os.utime(file["path"], (time.time() - 3600,) * 2)
    return {"files": files, "services": [{"name": name, "running": True} for name in ("x.socket", "x.service")]}


def started(part: dict, host: dict) -> list[str]:
    report = _network.Report()
    _install.run_services([part], report, apply=True)
    assert [f"systemctl restart {' '.join(action.split()[1] for action in report.actions)}"] == (host["ran"] or [
        "systemctl restart "
    ])  # fmt: skip
    return report.actions


def test_what_runs_with_its_files_is_left_alone(part: dict, host: dict) -> None:
    host["units"] = {name: ("active", stamp(time.time() - 60)) for name in ("x.socket", "x.service")}
    assert started(part, host) == []


def test_what_does_not_run_is_started(part: dict, host: dict) -> None:
    host["units"] = {"x.socket": ("active", stamp(time.time() - 60)), "x.service": ("failed", "")}
    assert started(part, host) == ["start x.service"]


def test_a_file_newer_than_the_service_restarts_it_and_not_its_socket(part: dict, host: dict) -> None:
    """Whoever wrote the file: the run that did may have died before the restart."""
    host["units"] = {name: ("active", stamp(time.time() - 60)) for name in ("x.socket", "x.service")}
    os.utime(part["files"][0]["path"])
    assert started(part, host) == ["restart x.service"]


def test_a_socket_is_opened_anew_for_its_own_file(part: dict, host: dict) -> None:
    host["units"] = {name: ("active", stamp(time.time() - 60)) for name in ("x.socket", "x.service")}
    os.utime(part["files"][2]["path"])
    assert started(part, host) == ["restart x.socket", "restart x.service"]


def test_a_file_is_in_place_with_its_text_mode_and_group(tmp_path: Path) -> None:
    file = _install.File(tmp_path / "x", "text", 0o640)
    assert not file.in_place()
    file.write()
    assert file.in_place()
    file.path.chmod(0o644)
    assert not file.in_place()
    assert not _install.File(tmp_path / "x", "text", 0o644, "no_such_group").in_place()
