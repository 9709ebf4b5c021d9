# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Files and units: what counts as a difference, and when a service is started anew."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from ansible_collections.warren.vpn.plugins.module_utils import _host, _install, _record
from ansible_collections.warren.vpn.plugins.module_utils._plan import Plan

SHOWN = "ActiveState={}\nActiveEnterTimestamp={}\nStateChangeTimestamp={}\n"


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
        return "\n".join(SHOWN.format(*(*state["units"].get(unit, ("inactive", "")), "")[:3]) for unit in units)

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
    plan = Plan()
    _install.compare_services([part], plan)
    assert host["ran"] == []
    plan.carry_out()
    names = " ".join(action.split()[1] for action in plan.actions)
    verb = "reload" if "reload" in names or "reload x.service" in plan.actions else "restart"
    assert host["ran"] == ([f"systemctl {verb} {names}"] if names else [])
    return plan.actions


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


def test_a_file_that_a_service_reads_again_reloads_it(part: dict, host: dict) -> None:
    """Until it has: a reload that did not come about is due in the next run too."""
    file = part["files"][0]["path"]
    part["services"][1]["reload"] = [file]
    an_hour_ago = stamp(time.time() - 3500)
    host["units"] = dict.fromkeys(("x.socket", "x.service"), ("active", an_hour_ago, an_hour_ago))
    assert started(part, host) == []
    os.utime(file, (time.time() - 60,) * 2)
    assert started(part, host) == ["reload x.service"]
    host["ran"].clear()
    host["units"]["x.service"] = ("active", an_hour_ago, stamp(time.time() - 30))
    assert started(part, host) == []
    os.utime(part["files"][1]["path"])
    assert started(part, host) == ["restart x.service"]


# --- what nobody declares any more

PACKAGED = ("units", "etc")


def network(*parts: dict) -> _record.Network:
    data = {"version": "1", "wireguard": "auto", "parts": list(parts)}
    return _record.network_from(_record.data_from(data))


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host whose directories are elsewhere, and whose commands are noted in `ran`."""
    for name, path in (("UNIT_DIR", "units"), ("PROGRAM_DIR", "programs")):
        (tmp_path / path).mkdir()
        monkeypatch.setattr(_install, name, tmp_path / path)
    (tmp_path / "etc").mkdir()
    monkeypatch.setattr(_install, "ENGINE_DIR", tmp_path / "programs/engine")
    monkeypatch.setattr(_host, "STATE_DIR", tmp_path / "etc")
    return tmp_path


def removed(wanted: _record.Network, last: _record.Network, monkeypatch: pytest.MonkeyPatch) -> tuple[list, list[str]]:
    """What a run would do and what commands it ran."""
    ran = []

    def run(argv: list[str], _stdin: str = "") -> subprocess.CompletedProcess[str]:
        if argv[0] == "dpkg":
            return subprocess.CompletedProcess(argv, 0 if Path(argv[-1]).name in PACKAGED else 1, "", "")
        ran.append(" ".join(argv))
        return subprocess.CompletedProcess(argv, 0, "", "")

    monkeypatch.setattr(_host, "attempt", run)
    plan = Plan()
    _install.compare_surplus_services(wanted, last, plan)
    _install.compare_surplus(wanted, last, plan)
    plan.carry_out()
    return plan.actions, ran


def test_what_its_owner_declares_no_more_is_stopped_and_removed(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when a server leaves a group: the rest of the part, and other parts, stay."""
    paths = [places / name for name in ("units/x.service", "units/x@.service", "units/y.d/z.conf", "programs/x/p.py")]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("text\n")
    files = [{"path": str(path), "content": "text\n"} for path in paths]
    services = [{"name": name} for name in ("x.service", "other.service")]
    other = {"owner": "other", "files": files[:1], "services": services[1:]}
    mine = {"owner": "x", "files": files[1:], "services": services[:1], "directories": [str(places / "state")]}
    (places / "state").mkdir()
    actions, ran = removed(network({"owner": "x", "files": files[3:]}, other), network(mine, other), monkeypatch)
    assert actions == [
        "stop x.service", f"remove {paths[1]}", f"remove {paths[2]}", f"remove {places / 'state'}",
    ]  # fmt: skip
    assert ran == [
        "systemctl stop x.service", "systemctl disable --quiet x.service", "systemctl stop x@*.service",
        "systemctl daemon-reload",
    ]  # fmt: skip
    assert [path.exists() for path in paths] == [True, False, False, True]
    assert not paths[2].parent.exists(), "a directory that was made for it"
    assert not (places / "state").exists()


def test_a_program_of_an_earlier_version_goes(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no record of it. What is not ours stays."""
    old, engine = places / "programs/agent/gone.py", places / "programs/engine/_host.py"
    for path in (old, engine, places / "units/theirs.service"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("text\n")
    actions, _ran = removed(network({"owner": "x"}), _record.EMPTY, monkeypatch)
    assert actions == [f"remove {old}"]
    assert not old.parent.exists()
    assert engine.exists()
    assert (places / "units/theirs.service").exists()


def test_with_nothing_declared_nothing_stays(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (places / "etc/keys").mkdir()
    (places / "programs/engine").mkdir()
    (places / "programs/engine/_host.py").touch()
    last = network({"owner": "x", "users": ["warrend"], "services": [{"name": "x.service"}]})
    actions, ran = removed(network(), last, monkeypatch)
    gone = [f"remove {places / name}" for name in ("etc", "programs")]
    assert actions == ["stop x.service", f"remove {places / 'programs/engine/_host.py'}", "remove user warrend", *gone]
    assert "userdel warrend" in ran
    assert not (places / "etc").exists()
    assert not (places / "programs").exists()


def test_what_does_not_stop_is_said_and_stays_on_record(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert places.exists()
    monkeypatch.setattr(_host, "attempt", lambda argv: subprocess.CompletedProcess(argv, 1, "", "Job failed.\n"))
    plan = Plan()
    last = network({"owner": "x", "services": [{"name": "x.service"}]})
    _install.compare_surplus_services(network({"owner": "x"}), last, plan)
    with pytest.raises(_host.NetworkError, match=r"x.service does not stop: Job failed.*journalctl --unit x.service"):
        plan.carry_out()
