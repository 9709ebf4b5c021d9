# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What boot does with what the last run noted."""

from __future__ import annotations

import fcntl
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path

import pytest

from ansible_collections.warren.vpn.plugins.module_utils import _host, _network, _record, _restore

WANTED = {"version": "1.0.0", "userspace": None, "parts": [{"owner": "x", "packages": ["no-such-package"]}]}


@pytest.fixture
def restored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[_record.Network]:
    """What was put in place, where nothing really is."""
    done: list[_record.Network] = []
    monkeypatch.setattr(_record, "STATE_FILE", tmp_path / "network.json")
    monkeypatch.setattr(_host, "COMMANDS", {"sh": "dash"})  # whatever this machine has or has not
    monkeypatch.setattr(_record, "LOCK_FILE", tmp_path / "lock")
    monkeypatch.setattr(_network, "compare", lambda network, _plan, _ask_names: done.append(network))
    return done


def test_a_host_that_no_run_has_reached_is_left_alone(restored: list[_record.Network]) -> None:
    assert _restore.main() == 0
    assert restored == []


def test_a_package_that_only_programs_need_keeps_nobody_from_the_firewall(restored: list[_record.Network]) -> None:
    _record.STATE_FILE.write_text(_record.text_of({**WANTED, _record.UNFINISHED: True}))
    assert _restore.main() == 0
    (network,) = restored
    # What boot puts in place is then noted as finished.
    assert network.unfinished
    assert network.data == WANTED


def test_what_the_engine_cannot_do_without_is_named(
    restored: list[_record.Network], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _record.STATE_FILE.write_text(_record.text_of(WANTED))
    monkeypatch.setattr(_network, "missing_commands", lambda _network: ["nftables"])
    assert (_restore.main(), restored) == (1, [])
    assert capsys.readouterr().err == "not installed: nftables\n"


def test_what_is_put_back_is_what_the_last_run_wanted_once_that_is_over(restored: list[_record.Network]) -> None:
    """Somebody asks while a run is under way: what stood there before the run is no more to be had."""
    _record.STATE_FILE.write_text(_record.text_of({**WANTED, "version": "before"}))
    with ThreadPoolExecutor(1) as executor:
        with _record.LOCK_FILE.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            asked = executor.submit(_restore.main)
            with pytest.raises(FutureTimeoutError):
                asked.result(timeout=0.2)
            _record.STATE_FILE.write_text(_record.text_of({**WANTED, "version": "after"}))
        assert asked.result(timeout=10) == 0
    assert [network.version for network in restored] == ["after"]
