"""What the gates keep between runs: made once, by whoever comes first, and known by all that it is made from."""

from __future__ import annotations

import importlib
import os
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module, with a place of its own for what is kept."""
    monkeypatch.syspath_prepend(ROOT)
    module = importlib.import_module("tests.tools.kept")
    monkeypatch.setattr(module, "KEPT", tmp_path / "kept")
    return module


def test_what_is_made_once_is_there_for_the_next(kept: ModuleType) -> None:
    with kept.made_once("thing", b"recipe") as (directory, is_new):
        assert is_new
        (directory / "made").write_text("so")
    with kept.made_once("thing", b"recipe") as (again, is_new):
        assert (again, is_new) == (directory, False)
    with kept.made_once("thing", b"another recipe") as (other, is_new):
        assert is_new
        assert other != directory
    assert directory.exists(), "another checkout may use it still"


def test_what_failed_half_way_is_made_anew(kept: ModuleType) -> None:
    with suppress(ZeroDivisionError), kept.made_once("thing", b"recipe") as (directory, _is_new):
        (directory / "half").touch()
        raise ZeroDivisionError
    with kept.made_once("thing", b"recipe") as (directory, is_new):
        assert is_new
        assert not (directory / "half").exists()


def test_what_nobody_has_used_for_a_week_goes_when_something_new_is_made(kept: ModuleType) -> None:
    with kept.made_once("thing", b"old") as (old, _is_new):
        pass
    week = time.time() - 8 * 86400
    os.utime(old, (week, week))
    with kept.made_once("thing", b"new"):
        assert not old.exists()


def test_what_is_in_use_is_not_cleaned_away(kept: ModuleType) -> None:
    """By lab/clean of another checkout, which asks for the lock alone."""
    with kept.made_once("thing", b"recipe"):
        pass
    alone = ["flock", "--nonblock", "--exclusive", "/run/lock/warren-kept", "true"]
    assert subprocess.run(alone, check=False).returncode == 1
    assert "exec 8>>/run/lock/warren-kept" in (ROOT / "lab/clean").read_text()


def test_two_at_once_make_it_once(kept: ModuleType) -> None:
    found = []

    def make() -> None:
        with kept.made_once("thing", b"recipe") as (_directory, is_new):
            found.append(is_new)
            time.sleep(0.2)

    threads = [threading.Thread(target=make) for _number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [False, False, True]


def test_a_machines_state_is_known_by_all_that_it_is_made_from(
    kept: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "ROOT", tmp_path)
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / "lab").mkdir()
    file = tmp_path / "lab/up"
    names = [kept.state_of("hosts", ["lab"])]
    for change in (
        lambda: file.write_text("one"),
        lambda: file.write_text("two"),
        lambda: file.chmod(0o755),
        lambda: file.rename(file.with_name("down")),
    ):
        change()
        names.append(kept.state_of("hosts", ["lab"]))
    assert len(set(names)) == len(names)
    (tmp_path / "roles").mkdir()
    (tmp_path / "roles/main.yml").touch()
    assert kept.state_of("hosts", ["lab"]) == names[-1]


def test_what_a_deployed_state_is_made_from_is_there(kept: ModuleType) -> None:
    for name in kept.DEPLOYED:
        assert (ROOT / name).exists(), name
