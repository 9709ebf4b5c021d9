"""The runner of the gates: what runs beside what, in which order, and what it says of them."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[3]
PROGRAM = ROOT / "tests/tools/gates.py"


@pytest.fixture
def gates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The program as a module, with a place of its own for logs."""
    spec = importlib.util.spec_from_file_location("gates", PROGRAM)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "gates", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "LOGS", tmp_path)
    return module


def shell(gates: ModuleType, name: str, script: str) -> object:
    """A gate that is a shell script."""
    return gates.Gate(name, ["sh", "-c", script])


def test_every_session_and_every_scenario_is_a_gate(gates: ModuleType) -> None:
    names = {gate.name for gate in gates.gates()}
    scenarios = {path.parent.name for path in ROOT.glob("molecule/*/molecule.yml")}
    assert {"lint", "specs", "unit", "build", "sanity", "newest", "kernel", *scenarios} == names


def test_those_that_took_longest_come_first_and_new_ones_before_them(
    gates: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = tmp_path / "testing.md"
    all_but_unit = {gate.name for gate in gates.gates()} - {"unit", "lint", "portal"}
    rows = [f"| `{name}` | passed | 70 | 7 |\n" for name in all_but_unit]
    record.write_text("| gate | | |\n|---|---|---|\n| `lint` | 900 | 8 |\n| `portal` | 5 | 600 |\n" + "".join(rows))
    monkeypatch.setattr(gates, "RECORD", record)
    assert [gate.name for gate in gates.gates()][:3] == ["unit", "portal", "lint"]


def test_the_table_in_docs_names_every_gate(gates: ModuleType) -> None:
    """Otherwise one that is new there is started first, however short it is."""
    assert set(gates.recorded(gates.RECORD.read_text())) == {gate.name for gate in gates.gates()}


def test_no_more_run_at_once_than_there_are_lanes(gates: ModuleType, tmp_path: Path) -> None:
    script = f"echo $(date +%s%N) + >>{tmp_path}/times; sleep 0.3; echo $(date +%s%N) - >>{tmp_path}/times"
    gates.run([shell(gates, f"gate{number}", script) for number in range(5)], 2)
    at_once = [0]
    for line in sorted((tmp_path / "times").read_text().splitlines()):
        at_once.append(at_once[-1] + (1 if line.endswith("+") else -1))
    assert max(at_once) == 2
    assert at_once[-1] == 0


def test_one_that_fails_is_named_with_what_it_said_and_the_others_go_on(
    gates: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    closing = "\x1b[31m===== \x1b[1m1 failed\x1b[0m, 3 passed in 2.00s =====\x1b[0m"
    done = [shell(gates, "bad", f"echo what went wrong; echo '{closing}'; exit 3"), shell(gates, "good", "echo fine")]
    gates.run(done, 1)
    said = capsys.readouterr().out
    assert said.index("what went wrong") < said.index("bad FAILED") < said.index("fine") < said.index("good passed")
    table = gates.table(done, 5)
    assert "| `bad` | FAILED; 1 failed, 3 passed in 2.00s | 0 |" in table
    assert "| `good` | passed | 0 |" in table


def test_one_that_cannot_run_here_has_failed_and_the_table_says_why(gates: ModuleType) -> None:
    """By the emulated machine's own program, where there is no emulator."""
    program = ROOT / "lab/machine"
    without = (
        f"mkdir {gates.LOGS}/bin; ln -s /bin/* {gates.LOGS}/bin; rm {gates.LOGS}/bin/qemu-*; PATH={gates.LOGS}/bin"
    )
    done = [shell(gates, "kernel", f"{without} {program} start none")]
    gates.run(done, 1)
    row = "| `kernel` | FAILED; cannot run here: the emulated machine: there is no qemu-system-x86_64. apt-get install"
    assert row in gates.table(done, 1)


def test_the_table_is_one_that_can_be_read_again(gates: ModuleType) -> None:
    done = [shell(gates, "good", "sleep 1.1")]
    gates.run(done, 1)
    assert gates.recorded(gates.table(done, 5)) == {"good": 1}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_all_and_lets_them_clean_up(tmp_path: Path, number: signal.Signals) -> None:
    """As CI starts it: from a shell that has its own children ignore the interrupt."""
    script = f"""
import sys; sys.path.insert(0, {str(PROGRAM.parent)!r})
import gates; from pathlib import Path
gates.LOGS = Path({str(tmp_path)!r})
wait = "trap 'echo clean >{tmp_path}/$0; exit 1' INT; echo >{tmp_path}/started-$0; while :; do sleep 0.1; done"
found = [gates.Gate(name, ["sh", "-c", wait, name]) for name in ("one", "two", "three")]
gates.run(found, 2)
print(gates.table(found, 1))
"""
    as_ci_does = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", sys.executable, "-c", script]
    started = subprocess.Popen(as_ci_does, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 30
    while not all((tmp_path / f"started-{name}").exists() for name in ("one", "two")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(started.pid, number)
    said = started.communicate(timeout=30)[0]
    assert (tmp_path / "one").read_text() == (tmp_path / "two").read_text() == "clean\n"
    assert "| `two` | FAILED |" in said
    assert "| `three` | NOT RUN | 0 |" in said
    assert not (tmp_path / "started-three").exists()


def test_an_unknown_gate_is_refused_with_those_there_are() -> None:
    done = subprocess.run([sys.executable, PROGRAM, "portals"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "portals: no gate. There are: attacks, build, " in done.stderr
    assert "portal, " in done.stderr
