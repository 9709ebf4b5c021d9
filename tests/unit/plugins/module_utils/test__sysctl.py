# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Kernel settings that come, and that go back to what they were."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.warren.vpn.plugins.module_utils import _sysctl
from ansible_collections.warren.vpn.plugins.module_utils._plan import Plan

FORWARD4, FORWARD6 = "net.ipv4.ip_forward", _sysctl.FORWARDING6
WANTED = {FORWARD4: "1", FORWARD6: "1"}


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kernel that forwards nothing and has an interface that listens to router advertisements."""
    monkeypatch.setattr(_sysctl, "PROC_SYS", tmp_path)
    for key, value in {FORWARD4: "0", FORWARD6: "0", "net/ipv6/conf/eth0/accept_ra": "1"}.items():
        path = _sysctl.path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")
    return tmp_path


def values() -> list[str]:
    keys = (FORWARD4, FORWARD6, "net/ipv6/conf/eth0/accept_ra")
    return list(_sysctl.live(keys).values())


def run(wanted: dict[str, str], last: dict[str, str], before: dict[str, str]) -> tuple[list[str], dict[str, str]]:
    """What a run does, and what is on record as found then."""
    plan, found = Plan(), _sysctl.found(wanted, last, before)
    _sysctl.compare({**_sysctl.listening(found), **wanted}, plan)
    _sysctl.give_back(last, before, found, plan)
    plan.carry_out()
    return plan.actions, found


def test_settings_go_back_to_what_they_were(kernel: Path) -> None:
    assert kernel.exists()
    actions, found = run(WANTED, {}, {})
    assert (actions, values()) == (["set kernel settings"], ["1", "1", "2"])
    assert run(WANTED, WANTED, found) == ([], found)
    actions, left = run({FORWARD4: "1"}, WANTED, found)
    assert (actions, values(), left) == (["set kernel settings back"], ["1", "0", "1"], {FORWARD4: "0"})
    assert run({}, {FORWARD4: "1"}, left) == (["set kernel settings back"], {})
    assert values() == ["0", "0", "1"]


def test_what_somebody_has_changed_since_stays(kernel: Path) -> None:
    _actions, found = run(WANTED, {}, {})
    (kernel / "net/ipv4/ip_forward").write_text("2\n")
    run({}, WANTED, found)
    assert values() == ["2", "0", "1"]


def test_what_was_so_before_us_stays_so(kernel: Path) -> None:
    (kernel / "net/ipv4/ip_forward").write_text("1\n")
    _actions, found = run(WANTED, {}, {})
    run({}, WANTED, found)
    assert values() == ["1", "0", "1"]


def test_what_an_earlier_version_set_is_not_guessed(kernel: Path) -> None:
    """It noted nothing of what it found."""
    (kernel / "net/ipv4/ip_forward").write_text("1\n")
    _actions, found = run({FORWARD4: "1"}, {FORWARD4: "1"}, {})
    assert found == {}
    assert run({}, {FORWARD4: "1"}, found) == ([], {})
    assert values()[0] == "1"


def test_forwarding_keeps_the_route_that_a_router_advertised(kernel: Path) -> None:
    """After a boot too, when forwarding is on before anybody looks, and where an interface is gone."""
    for interface, value in (("all", "1"), ("default", "1"), ("eth1", "0"), ("eth2", "1")):
        (kernel / "net/ipv6/conf" / interface).mkdir(exist_ok=True)
        (kernel / "net/ipv6/conf" / interface / "accept_ra").write_text(f"{value}\n")

    def accepted() -> dict[str, str]:
        return {path.parent.name: path.read_text().strip() for path in kernel.glob("net/ipv6/conf/*/accept_ra")}

    _actions, found = run(WANTED, {}, {})
    assert accepted() == {"all": "1", "default": "1", "eth0": "2", "eth1": "0", "eth2": "2"}
    (kernel / "net/ipv6/conf/eth0/accept_ra").write_text("1\n")
    (kernel / "net/ipv6/conf/eth2/accept_ra").unlink()
    assert run(WANTED, WANTED, found) == (["set kernel settings"], found)
    assert accepted()["eth0"] == "2"
    assert run(WANTED, WANTED, found) == ([], found)
