# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Routing rules: what links need, and the steps there."""

from __future__ import annotations

import json

import pytest

from ansible_collections.warren.vpn.plugins.module_utils import _host, _rules, _wireguard

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
        "rule -6 4000: not fwmark 0x70000000/0xf0000000 goto 4002",
    ]


def test_rules_are_read_as_iproute_prints_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """As printed by iproute2 6.1; a rule that is not ours is left out."""
    ours = {"src": "all", "protocol": "119"}
    printed = [
        {"priority": 0, "src": "all", "table": "local", "protocol": "kernel"},
        {"priority": 4000, "not": None, "fwmark": "0x70000000", "fwmask": "0xf0000000", "goto": 4002, **ours},
        {"priority": 4001, "fwmark": "0x70000002", "table": "100002", **ours},
        {"priority": 4001, "fwmark": "0x70000003", "table": "100003", **ours},
        {"priority": 4002, "fwmark": "0x70000000", "fwmask": "0xf0000000", "action": "unreachable", **ours},
        {"priority": 5210, "fwmark": "0x80000", "fwmask": "0xff0000", "table": "main", "protocol": "boot"},
    ]
    monkeypatch.setattr(_host, "run", lambda _argv: json.dumps(printed))
    assert set(_rules.live()) == set(_rules.wanted(LINKS))


def test_what_is_missing_comes_before_what_is_taken_away() -> None:
    """And what is gone to, before what goes there."""
    steps = _rules.steps(_rules.wanted(LINKS), _rules.wanted([link(4, 0x70000004)])[1:2])
    verbs = [line.split()[1] for line in steps["-4"]]
    assert verbs == ["add"] * 4 + ["delete"]
    assert steps["-4"][0] == "rule add fwmark 0x70000000/0xf0000000 priority 4002 protocol 119 unreachable"
    assert steps["-4"][3] == "rule add not fwmark 0x70000000/0xf0000000 priority 4000 protocol 119 goto 4002"
