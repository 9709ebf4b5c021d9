# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A kind of host that does not exist goes all the way, by an entry in the table alone."""

from __future__ import annotations

import base64
from collections.abc import Collection, Mapping
from typing import Any

import pytest

from ansible_collections.warren.vpn.plugins.plugin_utils import _inventory, _kinds, _options, _problems
from ansible_collections.warren.vpn.plugins.plugin_utils._problems import Place, Report


def read_lighthouse(report: Report, name: str, given: Mapping[str, object], groups: Collection[str]) -> dict[str, Any]:
    place = Place(report, name, "lighthouse_height")
    return {
        "height": _problems.whole_number(place, given.get("lighthouse_height"), 1, 100),
        "lit": "warren_lamps" in groups,
    }


def check_lighthouses(report: Report, _settings: Mapping[str, Any], hosts: Mapping[str, Any]) -> None:
    owners: dict[int, str] = {}
    for name, host in hosts.items():
        if host["height"] and owners.setdefault(host["height"], name) != name:
            report.add(name, "lighthouse_height", host["height"], "taken", "Build another.")


LIGHTHOUSE = _kinds.Kind(
    name="lighthouse",
    group="warren_lighthouses",
    variables=frozenset({"lighthouse_height"}),
    read=read_lighthouse,
    check=check_lighthouses,
    complete=lambda settings, host: {"seen_from": host["height"] * settings["lighthouse_miles"]},
    settings={"lighthouse_miles": ("port", 3)},
    purposes={"beam": "warren_lighthouses", "lamp": "warren_lamps"},
    roles={"tower": "warren_lighthouses", "lamp": "warren_lamps", "agent": "warren_lighthouses"},
)
KINDS = (*_kinds.KINDS, LIGHTHOUSE)


def key(number: int) -> str:
    return base64.b64encode(number.to_bytes(32, "big")).decode()


SERVER = {
    "server_id": 1,
    "server_entry_addresses": ["198.51.100.11"],
    "server_exit_addresses": ["198.51.100.21"],
    "warren_fleet_secret": "a secret that is long enough, really",
}
SERVER_KEYS = {"control_mesh": key(1), "multihop": key(2)}


def read(
    hosts: dict[str, dict[str, Any]], groups: dict[str, list[str]], keys: dict[str, Any], run: list[str] | None = None
) -> _inventory.Reading:
    shared = {"warren_public_keys": keys, **next((own for own in hosts.values() if "warren_fleet_secret" in own), {})}
    shared = {name: value for name, value in shared.items() if name.startswith("warren_")}
    hosts = {name: {**own, **shared} for name, own in hosts.items()}
    return _inventory.read(hosts, groups, list(hosts) if run is None else run, {"tower": ["tower_colours"]}, KINDS)


def test_a_fleet_of_one_kind_alone_is_complete() -> None:
    reading = read({"l1": {"lighthouse_height": 7}}, {"warren_lighthouses": ["l1"]}, {"l1": {"beam": key(9)}})
    assert (reading.problems, reading.unenrolled) == ([], [])
    assert reading.fleet["lighthouses"] == {
        "l1": {"name": "l1", "height": 7, "lit": False, "seen_from": 21, "keys": {"beam": key(9)}}
    }
    assert (reading.fleet["servers"], reading.fleet["secret"]) == ({}, "")


def test_a_host_of_two_kinds_beside_one_of_each() -> None:
    reading = read(
        {"both": {**SERVER, "lighthouse_height": 7}, "l1": {"lighthouse_height": 8}},
        {"warren_servers": ["both"], "warren_lighthouses": ["l1", "both"]},
        {"both": {**SERVER_KEYS, "beam": key(8)}, "l1": {"beam": key(9)}},
    )
    assert reading.problems == []
    assert list(reading.fleet["servers"]) == ["both"]
    assert list(reading.fleet["lighthouses"]) == ["l1", "both"]
    assert reading.fleet["servers"]["both"]["control4"] == "10.77.0.1"


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("lighthouse_heigth", 1, "l1: lighthouse_heigth: unknown variable. Did you mean lighthouse_height?"),
        ("warren_mtuu", 1, "l1: warren_mtuu: unknown variable. Did you mean warren_mtu?"),
        ("tower_colour", 1, "l1: tower_colour: unknown variable. Did you mean tower_colours?"),
        ("lighthouse_height", 0, "l1: lighthouse_height = 0: not a whole number from 1 to 100."),
        ("lighthouse_height", 8, "l1: lighthouse_height = 8: taken. Build another."),
        ("warren_lighthouse_miles", 0, "l1: warren_lighthouse_miles = 0: not the same as for ams."),
    ],
)
def test_what_is_wrong_on_such_a_host_is_seen(variable: str, value: object, message: str) -> None:
    hosts = {"ams": SERVER, "l0": {"lighthouse_height": 8}, "l1": {"lighthouse_height": 7, variable: value}}
    keys = {"ams": SERVER_KEYS, "l0": {"beam": key(8)}, "l1": {"beam": key(9)}}
    reading = read(hosts, {"warren_servers": ["ams"], "warren_lighthouses": ["l0", "l1"]}, keys)
    assert any(str(problem).startswith(message) for problem in reading.problems), reading.problems
    assert reading.fleet == {}


def test_names_that_are_somebody_elses_pass() -> None:
    own = {"lighthouse_height": 7, "lighthouse_name": "x", "tower_name": "x", "server_timezone": "UTC"}
    assert read({"l1": own}, {"warren_lighthouses": ["l1"]}, {"l1": {"beam": key(9)}}).problems == []


def test_enrolment_asks_each_host_for_the_keys_of_its_groups() -> None:
    hosts = {"ams": SERVER, "l1": {"lighthouse_height": 7}, "l2": {"lighthouse_height": 8}}
    groups = {"warren_servers": ["ams"], "warren_lighthouses": ["l1", "l2"], "warren_lamps": ["l2"]}
    keys = {"ams": SERVER_KEYS, "l1": {"beam": key(8)}, "l2": {"beam": key(9)}}
    assert read(hosts, groups, keys).unenrolled == ["l2"]
    assert [str(problem) for problem in read(hosts, groups, keys, run=["ams"]).problems] == [
        (
            "l2: warren_public_keys: no recorded public key for lamp, and l2 is not in this run. "
            "Run site.yml once without --limit: it makes the key there and records its public half."
        )
    ]


def test_a_key_of_another_kind_of_host_is_not_used_twice() -> None:
    hosts = {"ams": SERVER, "l1": {"lighthouse_height": 7}}
    groups = {"warren_servers": ["ams"], "warren_lighthouses": ["l1"]}
    (problem,) = read(hosts, groups, {"ams": SERVER_KEYS, "l1": {"beam": key(1)}}).problems
    assert "warren_public_keys[l1].beam" in str(problem)
    assert "also the key of ams (control_mesh)" in str(problem)


def test_a_member_of_a_group_within_a_kind_is_of_that_kind() -> None:
    groups = {"warren_lighthouses": ["l1"], "warren_lamps": ["old"]}
    (problem,) = read({"l1": {"lighthouse_height": 7}}, groups, {"l1": {"beam": key(9)}}).problems
    assert str(problem) == (
        "old: warren_lamps: a member of this group, but not of warren_lighthouses. "
        "Put old in warren_lighthouses too, or take it out of warren_lamps."
    )


def test_a_fleet_without_hosts_names_all_groups() -> None:
    assert [str(problem) for problem in read({}, {"web": ["x"]}, {}).problems] == [
        (
            "all: warren_servers or warren_lighthouses: no host is in any of these groups. "
            "Put the servers or lighthouses of the fleet in it."
        )
    ]


def test_the_secret_is_asked_for_by_the_kinds_that_need_it() -> None:
    server = {name: value for name, value in SERVER.items() if name != "warren_fleet_secret"}
    groups = {"warren_servers": ["ams"], "warren_lighthouses": ["l1"]}
    (problem,) = read(
        {"ams": server, "l1": {"lighthouse_height": 7}}, groups, {"ams": SERVER_KEYS, "l1": {"beam": key(9)}}
    ).problems
    assert str(problem).startswith("all: warren_fleet_secret: missing.")


def test_roles_purposes_and_pattern_follow_from_the_groups() -> None:
    both = ["warren_servers", "warren_lighthouses", "warren_lamps"]
    assert _kinds.roles_of(both, KINDS) == ["control_mesh", "multihop", "packet_path", "agent", "tower", "lamp"]
    assert _kinds.roles_of(["warren_lighthouses"], KINDS) == ["tower", "agent"]
    assert _kinds.roles_of(["warren_lamps"], KINDS) == []
    assert _kinds.purposes_of(both, KINDS) == ["control_mesh", "multihop", "beam", "lamp"]
    groups = {"warren_servers": ["ams"], "warren_lighthouses": ["l1", "ams"]}
    assert _kinds.hosts_of(groups, KINDS) == ["ams", "l1"]
    assert _kinds.pattern_of(groups, (), KINDS) == "warren_servers:warren_lighthouses"
    assert _kinds.pattern_of({"warren_lighthouses": ["l1"]}, ["web"], KINDS) == "warren_lighthouses"
    assert _kinds.pattern_of({"warren_servers": []}, (), KINDS) == "localhost"


def test_every_role_of_the_table_is_there() -> None:
    roles = {role for kind in _kinds.KINDS for role in kind.roles}
    assert roles <= set(_options.role_options())
