# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Routing rules: what links need, and the steps there."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from ansible_collections.warren.vpn.plugins.module_utils import _host, _rules, _wireguard
from ansible_collections.warren.vpn.plugins.plugin_utils import _addressing

EVERYWHERE = ("0.0.0.0/0", "::/0")


def link(number: int, mark: int) -> _wireguard.Link:
    routes = frozenset(_wireguard.Route(destination, f"10000{number}") for destination in EVERYWHERE)
    return _wireguard.Link(f"wg0mh-r{number}", "multihop", "key", 21000 + number, 1420, (), routes, {}, mark=mark)


LINKS = [link(2, 0x70000002), link(3, 0x70000003), link(9, 0)]


def test_links_without_a_mark_need_no_rule() -> None:
    assert _rules.wanted([link(9, 0)]) == []


def test_a_marked_packet_takes_its_links_table_or_none() -> None:
    rules = [str(rule) for rule in _rules.wanted(LINKS) if rule.family == "-6"]
    assert rules == [
        "rule -6 4002: fwmark 0x70000000/0xf0000000 unreachable",
        "rule -6 4001: fwmark 0x70000002 lookup 100002",
        "rule -6 4001: fwmark 0x70000003 lookup 100003",
        "rule -6 4001: fwmark 0x7fffffff blackhole",
        "rule -6 4000: not fwmark 0x70000000/0xf0000000 goto 4002",
    ]


def test_what_comes_in_by_a_gated_link_needs_approval() -> None:
    """Whatever is approved stands before what is not."""
    gated = [replace(link(9, 0), name=name, gated=True) for name in ("wg0access", "wg0mh")]
    rules = [str(rule) for rule in _rules.wanted([*gated, *LINKS]) if rule.family == "-4"]
    assert rules[:4] == [
        "rule -4 4003: iif wg0access fwmark 0x40000000/0x40000000 lookup main",
        "rule -4 4003: iif wg0mh fwmark 0x40000000/0x40000000 lookup main",
        "rule -4 4004: iif wg0access unreachable",
        "rule -4 4004: iif wg0mh unreachable",
    ]
    assert rules[-1] == "rule -4 4000: not fwmark 0x70000000/0xf0000000 goto 4003"
    assert _rules.wanted(gated)[:4] == _rules.wanted([*gated, *LINKS])[:4], "an exit has no link with a mark"


def test_all_marks_that_approve_are_known_to_the_rules() -> None:
    bit, mask = (int(text, 16) for text in _rules.APPROVED.split("/"))
    assert all(mark & mask == bit for mark in _addressing.PACKET_MARKS.values())
    assert int(_rules.HELD, 16) == _addressing.HOLD_MARK


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
        {"priority": 4003, "iif": "wg0mh", "fwmark": "0x40000000", "fwmask": "0x40000000", "table": "main", **ours},
        {"priority": 4004, "iif": "wg0mh", "iif_detached": None, "action": "unreachable", **ours},
        {"priority": 5210, "fwmark": "0x80000", "fwmask": "0xff0000", "table": "main", "protocol": "boot"},
    ]
    monkeypatch.setattr(_host, "run", lambda _argv: json.dumps(printed))
    gated = _wireguard.Link("wg0mh", "multihop", "key", 20001, 1420, (), frozenset(), {}, gated=True)
    assert set(_rules.live()) == set(_rules.wanted([*LINKS, gated]))


def test_what_is_missing_comes_before_what_is_taken_away() -> None:
    """And what is gone to, before what goes there."""
    steps = _rules.steps(_rules.wanted(LINKS), _rules.wanted([link(4, 0x70000004)])[1:2])
    verbs = [line.split()[1] for line in steps["-4"]]
    assert verbs == ["add"] * 5 + ["delete"]
    assert steps["-4"][0] == "rule add fwmark 0x70000000/0xf0000000 priority 4002 protocol 119 unreachable"
    assert steps["-4"][4] == "rule add not fwmark 0x70000000/0xf0000000 priority 4000 protocol 119 goto 4002"


def test_a_rule_that_only_goes_elsewhere_goes_before_the_new_one_comes() -> None:
    """To the kernel it is the same rule (EEXIST)."""
    gate = _wireguard.Link("wg0mh", "multihop", "key", 20001, 1420, (), frozenset(), {}, gated=True)
    before, after = _rules.wanted(LINKS), _rules.wanted([*LINKS, gate])
    lines = _rules.steps([rule for rule in after if rule not in before], [rule for rule in before if rule not in after])
    assert [line.split()[1] for line in lines["-4"]] == ["delete", "add", "add", "add"]
    assert lines["-4"][0].endswith("goto 4002")
