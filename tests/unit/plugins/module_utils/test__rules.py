# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Routing rules: how they are read, and the steps from those that are there to those that are wanted."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ansible_collections.warren.vpn.plugins.module_utils import _host, _rules
from ansible_collections.warren.vpn.plugins.module_utils._rules import Rule

EXIT = {"priority": 4001, "fwmark": "0x70000002", "table": "100002"}
REST = {"priority": 4002, "fwmark": "0x70000000/0xf0000000", "action": "unreachable"}
PAST = {"priority": 4000, "not": True, "fwmark": "0x70000000/0xf0000000", "action": "goto 4002"}
GATE = {"priority": 4003, "iif": "wg0mh", "fwmark": "0x40000000/0x40000000", "table": "main"}


def rules(*listed: dict[str, Any]) -> list[Rule]:
    return [rule for data in listed for rule in _rules.rules_from(data)]


def test_a_rule_is_for_both_families_unless_it_names_one() -> None:
    assert [str(rule) for rule in rules(EXIT, {**GATE, "family": "-6"})] == [
        "rule -4 4001: fwmark 0x70000002 lookup 100002",
        "rule -6 4001: fwmark 0x70000002 lookup 100002",
        "rule -6 4003: iif wg0mh fwmark 0x40000000/0x40000000 lookup main",
    ]


def test_networks_are_put_in_canonical_form() -> None:
    (rule,) = rules({"priority": 7, "family": "-6", "from": "FD57::/64", "to": "2001:db8::1", "action": "blackhole"})
    assert rule.selector == "from fd57::/64 to 2001:db8::1/128"


@pytest.mark.parametrize(
    "wrong",
    [
        {"fwmark": "0x1", "table": "main"},
        {"priority": 1},
        {"priority": 1, "table": "main", "action": "blackhole"},
        {"priority": 1, "oif": "eth0", "table": "main"},
        {"priority": 1, "from": "nowhere", "table": "main"},
    ],
)
def test_a_rule_of_the_wrong_form_is_one_clear_error(wrong: dict[str, Any]) -> None:
    with pytest.raises(_host.NetworkError, match=r"routing rule (1|\?) is not as it should be"):
        _rules.rules_from(wrong)


def test_rules_are_read_as_iproute_prints_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """As printed by iproute2 6.1; a rule that is not ours is left out."""
    ours = {"src": "all", "protocol": "119"}
    printed = [
        {"priority": 0, "src": "all", "table": "local", "protocol": "kernel"},
        {"priority": 4000, "not": None, "fwmark": "0x70000000", "fwmask": "0xf0000000", "goto": 4003, **ours},
        {"priority": 4001, "fwmark": "0x70000002", "table": "100002", **ours},
        {"priority": 4001, "fwmark": "0x70000003", "table": "100003", **ours},
        {"priority": 4001, "fwmark": "0x7fffffff", "action": "blackhole", **ours},
        {"priority": 4002, "fwmark": "0x70000000", "fwmask": "0xf0000000", "action": "unreachable", **ours},
        {"priority": 4002, "src": "10.0.0.0", "srclen": 8, "dst": "192.0.2.1", "action": "prohibit", "protocol": "119"},
        {"priority": 4003, "iif": "wg0mh", "fwmark": "0x40000000", "fwmask": "0x40000000", "table": "main", **ours},
        {"priority": 4004, "iif": "wg0mh", "iif_detached": None, "action": "unreachable", **ours},
        {"priority": 5210, "fwmark": "0x80000", "fwmask": "0xff0000", "table": "main", "protocol": "boot"},
    ]
    monkeypatch.setattr(_host, "run", lambda _argv: json.dumps(printed))
    wanted = [
        {**PAST, "action": "goto 4003"},
        EXIT,
        {**EXIT, "fwmark": "0x70000003", "table": "100003"},
        {"priority": 4001, "fwmark": "0x7fffffff", "action": "blackhole"},
        REST,
        {"priority": 4002, "from": "10.0.0.0/8", "to": "192.0.2.1/32", "action": "prohibit"},
        GATE,
        {"priority": 4004, "iif": "wg0mh", "action": "unreachable"},
    ]
    assert set(_rules.live()) == set(rules(*wanted))


def test_what_is_missing_comes_before_what_is_taken_away() -> None:
    """And what is gone to, before what goes there."""
    gone = rules({**EXIT, "fwmark": "0x70000004"})
    steps = _rules.steps(rules(PAST, EXIT, REST), gone)
    assert steps["-4"] == [
        "rule add fwmark 0x70000002 priority 4001 protocol 119 lookup 100002",
        "rule add fwmark 0x70000000/0xf0000000 priority 4002 protocol 119 unreachable",
        "rule add not fwmark 0x70000000/0xf0000000 priority 4000 protocol 119 goto 4002",
        "rule delete fwmark 0x70000004 priority 4001 protocol 119 lookup 100002",
    ]


def test_a_rule_that_only_goes_elsewhere_goes_before_the_new_one_comes() -> None:
    """To the kernel it is the same rule (EEXIST)."""
    lines = _rules.steps(rules({**PAST, "action": "goto 4003"}, GATE), rules(PAST))
    assert [line.split()[1] for line in lines["-4"]] == ["delete", "add", "add"]
    assert lines["-4"][0].endswith("goto 4002")
    assert lines["-4"][2].endswith("goto 4003")
