# Copyright (c) 2026 the warren.vpn authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The inventory check: a good fleet, and every message by its text."""

from __future__ import annotations

import base64
import copy
import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.warren.vpn.plugins.plugin_utils import _addressing, _inventory
from ansible_collections.warren.vpn.plugins.plugin_utils._problems import Unreadable

NAMES = ["ams", "fra", "nyc"]
OPTIONS = {"server": ["server_wireguard"], "control_mesh": ["control_mesh_tcp_ports"], "access": []}
SECRET = "a secret that is long enough, really"


def key(number: int) -> str:
    return base64.b64encode(number.to_bytes(32, "big")).decode()


def server(number: int) -> dict[str, Any]:
    return {
        "server_id": number,
        "server_entry_addresses": [f"198.51.100.{10 + number}", f"2001:db8::{10 + number}"],
        "server_exit_addresses": [f"198.51.100.{20 + number}", f"2001:db8::{20 + number}"],
    }


def fleet() -> dict[str, Any]:
    """Three servers, two clients, nothing wrong."""
    return {
        "hosts": {name: server(number) for number, name in enumerate(NAMES, 1)},
        "all": {
            "warren_fleet_secret": SECRET,
            "warren_clients": [{"name": "alice", "public_key": key(100)}, {"name": "bob", "public_key": key(101)}],
            "warren_public_keys": {
                name: {"control_mesh": key(number), "multihop": key(number + 20), "access": key(number + 10)}
                for number, name in enumerate(NAMES, 1)
            },
        },
        "servers": NAMES,
        "access": NAMES,
        "run": NAMES,
    }


def groups_of(given: dict[str, Any]) -> dict[str, list[str]]:
    return {"warren_servers": given["servers"], "warren_access": given["access"]}


def read(given: dict[str, Any]) -> _inventory.Reading:
    hosts = {name: {**given["all"], **own} for name, own in given["hosts"].items()}
    return _inventory.read(hosts, groups_of(given), given["run"], OPTIONS)


def problems(given: dict[str, Any]) -> list[str]:
    reading = read(given)
    assert (reading.fleet == {}) == bool(reading.problems)
    return [str(problem) for problem in reading.problems]


def with_host(name: str, **changed: Any) -> dict[str, Any]:
    given = fleet()
    given["hosts"][name].update({f"server_{variable}": value for variable, value in changed.items()})
    return given


def with_all(**changed: Any) -> dict[str, Any]:
    given = fleet()
    given["all"].update({f"warren_{variable}": value for variable, value in changed.items()})
    return given


def with_client(**entry: Any) -> dict[str, Any]:
    given = fleet()
    given["all"]["warren_clients"].append({"name": "carol", "public_key": key(102), **entry})
    return given


def test_a_good_fleet_is_read_whole() -> None:
    reading = read(fleet())
    assert (reading.problems, reading.warnings, reading.unenrolled) == ([], [], [])
    assert json.loads(json.dumps(reading.fleet)) == reading.fleet
    assert reading.fleet["secret"] == SECRET
    assert reading.fleet["settings"]["fleet_ports"] == [20000, 29999]
    assert set(reading.fleet["settings"]) == set(_inventory.SETTINGS)
    assert reading.fleet["servers"]["fra"] == {
        "name": "fra",
        "control4": "10.77.0.2",
        "control6": "fd57:6172:7265:1::2",
        "id": 2,
        "slug": "fra",
        "label": "fra",
        "region": "",
        "entry4": "198.51.100.12",
        "entry6": "2001:db8::12",
        "exit4": ["198.51.100.22"],
        "exit6": ["2001:db8::22"],
        "nat_ports": [30000, 51000],
        "access": True,
        "keys": {"control_mesh": key(2), "multihop": key(22), "access": key(12)},
        "session4": "10.129.0.0/17",
        "session6": "fd57:6172:7265:8002::/64",
    }
    assert reading.fleet["clients"][0] == {
        "name": "alice",
        "public_key": key(100),
        "own_key": True,
        "address4": _addressing.client_address("10.96.0.0/11", "alice"),
        "address6": _addressing.client_address("fd57:6172:7265:2::/64", "alice"),
        "server": "ams",
    }


def test_values_are_normalised() -> None:
    given = with_host(
        "nyc",
        id="3",
        nat_ports="30000-40000",
        slug="n-1",
        label="New York",
        region="America",
        entry_addresses=["198.51.100.13", "2001:DB8:0::13"],
    )
    given["all"].update(
        warren_mtu="1300",
        warren_access_port="51999",
        warren_client_dns=["9.9.9.9", "2620:FE::fe"],
        warren_clients=[{"name": "x", "server": "fra"}],
        warren_client_keys={"x": key(7)},
    )
    result = read(given)
    assert result.problems == []
    nyc = result.fleet["servers"]["nyc"]
    assert (nyc["id"], nyc["nat_ports"], nyc["entry6"]) == (3, [30000, 40000], "2001:db8::13")
    assert (result.fleet["settings"]["mtu"], result.fleet["settings"]["access_port"]) == (1300, 51999)
    assert result.fleet["settings"]["client_dns"] == ["9.9.9.9", "2620:fe::fe"]
    client = result.fleet["clients"][0]
    assert (client["public_key"], client["own_key"], client["server"]) == (key(7), False, "fra")


HOST_CASES = [
    ({"id": 2}, "nyc: server_id = 2: also the server_id of fra. Give nyc a number of its own; 3 is free."),
    (
        {"id": 300},
        (
            "nyc: server_id = 300: out of range, warren_control_prefix 10.77.0.0/24 takes ids up to 254 and "
            "warren_session_pool 10.128.0.0/9 cut in /17 takes ids up to 255. "
            "Lower it or widen the setting; 3 is free."
        ),
    ),
    ({"id": 100_000_000}, "an interface name of 15 bytes takes ids up to 99999999"),
    ({"id": 0}, "nyc: server_id = 0: not a whole number from 1 to 268435453."),
    ({"id": True}, "nyc: server_id = True: not a whole number"),
    ({"id": None}, "nyc: server_id = null: not a whole number"),
    ({"id": "three"}, "nyc: server_id = three: not a whole number"),
    ({"id": [3]}, "nyc: server_id = [3]: not a whole number"),
    (
        {"id": Unreadable("'x' is undefined")},
        "nyc: server_id: cannot be read ('x' is undefined). Correct its template, or unlock its vault.",
    ),
    ({"slug": "New_York"}, "nyc: server_slug = New_York: not a DNS label. Set server_slug to 1-15 characters of a-z"),
    ({"slug": "a" * 16}, "nyc: server_slug = aaaaaaaaaaaaaaaa: longer than 15 bytes."),
    ({"slug": ["a"]}, "nyc: server_slug = ['a']: not a text."),
    ({"slug": "fra"}, "nyc: server_slug = fra: also the server_slug of fra. Give nyc its own."),
    ({"label": None}, "nyc: server_label = null: not a text."),
    ({"region": 7}, "nyc: server_region = 7: not a text."),
    ({"entry_addresses": None}, "nyc: server_entry_addresses: missing. Set it to a list of addresses."),
    ({"entry_addresses": "198.51.100.13"}, "nyc: server_entry_addresses = 198.51.100.13: not a list. Write a list"),
    ({"exit_addresses": {"a": 1}}, "nyc: server_exit_addresses = {'a': 1}: not a list."),
    ({"exit_addresses": [None]}, "nyc: server_exit_addresses = null: not an IP address."),
    (
        {"exit_addresses": ["198.51.100.300"]},
        (
            "nyc: server_exit_addresses = 198.51.100.300: not an IP address. "
            "Write one IP address, without a prefix length or a name."
        ),
    ),
    ({"exit_addresses": ["198.51.100.23/24"]}, "server_exit_addresses = 198.51.100.23/24: not an IP address."),
    (
        {"exit_addresses": ["127.0.0.1"]},
        "nyc: server_exit_addresses = 127.0.0.1: not an address that others can reach.",
    ),
    (
        {"exit_addresses": ["198.51.100.23"]},
        (
            "nyc: server_exit_addresses: no IPv6 address, but server_entry_addresses "
            "has one. Add an IPv6 address that no service of nyc listens on, or remove the entry address."
        ),
    ),
    (
        {"entry_addresses": ["198.51.100.13"]},
        (
            "nyc: server_entry_addresses: no IPv6 address, but server_exit_addresses "
            "has one. Add the one that clients connect to."
        ),
    ),
    ({"entry_addresses": ["2001:db8::13"]}, "nyc: server_entry_addresses: no IPv4 address"),
    (
        {"entry_addresses": ["198.51.100.13", "198.51.100.99", "2001:db8::13"]},
        (
            "nyc: server_entry_addresses = "
            "198.51.100.13, 198.51.100.99: more than one IPv4 address. Keep the one that "
            "clients and servers connect to."
        ),
    ),
    (
        {"exit_addresses": ["198.51.100.13", "2001:db8::23"]},
        (
            "nyc: server_exit_addresses = 198.51.100.13: also an entry "
            "address of nyc. Give nyc an exit address that no service listens on, or "
            "clients can take each other's packets."
        ),
    ),
    (
        {"exit_addresses": ["198.51.100.12", "2001:db8::23"]},
        ("nyc: server_exit_addresses = 198.51.100.12: also an entry address of fra. Correct one of the two."),
    ),
    (
        {"exit_addresses": ["198.51.100.23", "2001:db8::23", "2001:DB8:0::23"]},
        "2001:db8::23: listed twice. Keep it once.",
    ),
    (
        {"exit_addresses": ["10.77.0.200", "2001:db8::23"]},
        (
            "nyc: server_exit_addresses = 10.77.0.200: inside "
            "warren_control_prefix 10.77.0.0/24. Use a public address of the server, or move the prefix."
        ),
    ),
    ({"exit_addresses": ["10.31.33.7", "2001:db8::23"]}, "inside warren_portal_address 10.31.33.7/32."),
    ({"nat_ports": "50000-40000"}, "nyc: server_nat_ports = 50000-40000: not a range of ports. Write the first"),
    ({"nat_ports": True}, "nyc: server_nat_ports = True: not a range of ports."),
    (
        {"nat_ports": "40000-60000"},
        (
            "nyc: server_nat_ports = 40000-60000: contains ports of services, "
            "warren_access_port 51820. Choose a range without it: 30000-51000 is the default."
        ),
    ),
    ({"nat_ports": "29000-40000"}, "contains ports of services, warren_fleet_ports 20000-29999."),
    ({"entry_adresses": []}, "nyc: server_entry_adresses: unknown variable. Did you mean server_entry_addresses?"),
]


@pytest.mark.parametrize(("changed", "message"), HOST_CASES)
def test_a_problem_of_one_server(changed: dict[str, Any], message: str) -> None:
    found = problems(with_host("nyc", **changed))
    assert len(found) == 1
    assert message in found[0]


FLEET_CASES = [
    (
        {"fleet_secret": None},
        (
            "all: warren_fleet_secret: missing. Make one with `openssl rand -base64 48` and keep it in "
            "group_vars/all/secret.yml, encrypted with `ansible-vault encrypt`."
        ),
    ),
    ({"fleet_secret": "hunter2"}, "all: warren_fleet_secret: shorter than 32 characters."),
    ({"fleet_secret": ["hunter2"]}, "all: warren_fleet_secret: not a text."),
    ({"fleet_secret": Unreadable("no vault secret")}, "all: warren_fleet_secret: cannot be read (no vault secret)."),
    ({"mtu": 1279}, "all: warren_mtu = 1279: not a whole number from 1280 to 9000. Write a number from 1280 to 9000."),
    ({"mtu": 9001}, "all: warren_mtu = 9001"),
    ({"mtu": None}, "all: warren_mtu = null: not a whole number"),
    ({"client_dns": "9.9.9.9"}, "all: warren_client_dns = 9.9.9.9: not a list. Write a list of addresses, such as ["),
    (
        {"client_dns": ["dns.quad9.net"]},
        "all: warren_client_dns = dns.quad9.net: not an IP address. Write one IP address",
    ),
    (
        {"control_prefix": "10.77.0.1/24"},
        ("warren_control_prefix = 10.77.0.1/24: an address inside a network, not a network. Write 10.77.0.0/24."),
    ),
    ({"control_prefix": "fd00::/64"}, "= fd00::/64: not an IPv4 network. Write an IPv4 network, such as 10.77.0.0/24."),
    ({"control_prefix6": 5}, "all: warren_control_prefix6 = 5: not an IPv6 network."),
    (
        {"control_prefix": "10.96.0.0/24"},
        (
            "all: warren_client_prefix = 10.96.0.0/11: overlaps with warren_control_prefix "
            "10.96.0.0/24. Give each a part of the address space to itself."
        ),
    ),
    ({"portal_address": "10.77.0.250"}, "warren_portal_address = 10.77.0.250: overlaps with warren_control_prefix"),
    (
        {"portal_address": "fd00::1"},
        "all: warren_portal_address = fd00::1: not an IPv4 address. Write one IPv4 address.",
    ),
    ({"session_pool6": "fd57:6172:7265:1::/64"}, "warren_session_pool6 = fd57:6172:7265:1::/64: overlaps with"),
    (
        {"session_prefix_length": 8},
        (
            "all: warren_session_prefix_length = 8: shorter than the prefix of "
            "warren_session_pool 10.128.0.0/9. Lengthen it, or widen the pool."
        ),
    ),
    (
        {"session_prefix_length": 10},
        ("nyc: server_id = 3: out of range, warren_session_pool 10.128.0.0/9 cut in /10 takes ids up to 1."),
    ),
    (
        {"control_prefix": "10.77.0.0/30"},
        (
            "nyc: server_id = 3: out of range, warren_control_prefix 10.77.0.0/30 takes "
            "ids up to 2. Lower it or widen the setting; none is free, widen the prefixes."
        ),
    ),
    ({"client_prefix": "10.96.0.0/31"}, "all: warren_client_prefix = 10.96.0.0/31: no room for a client. Widen it."),
    ({"access_port": 0}, "all: warren_access_port = 0: not a whole number from 1 to 65535."),
    (
        {"access_port": 25000},
        (
            "all: warren_access_port = 25000: inside warren_fleet_ports 20000-29999. Clients need a port "
            "outside the block."
        ),
    ),
    (
        {"access_port": 443},
        (
            "all: warren_access_port = 443: port 443 is in the striped range, warren_striped_ports 1-19999. "
            "Move it, or shorten the striped range."
        ),
    ),
    (
        {"control_port": 30001, "striped_ports": "1-100"},
        (
            "all: warren_control_port = 30001: port 30001 is outside "
            "warren_fleet_ports 20000-29999. Move it into the block, or widen the block."
        ),
    ),
    (
        {"control_port": 20001},
        (
            "all: warren_multihop_port = 20001: collides with warren_control_port (port 20001). "
            "Give each a port of its own."
        ),
    ),
    ({"link_port_base": 19999}, "all: warren_link_port_base = 19999: collides with warren_control_port (port 20000)."),
    (
        {"link_port_base": 29998},
        (
            "nyc: server_id = 3: out of range, warren_link_port_base 29998 in "
            "warren_fleet_ports 20000-29999 takes ids up to 1"
        ),
    ),
    ({"fleet_ports": "nope"}, "all: warren_fleet_ports = nope: not a range of ports."),
    (
        {"forward_ports": "20000-40000"},
        "all: warren_forward_ports = 20000-40000: overlaps with warren_fleet_ports 20000-29999. Choose a range",
    ),
    (
        {"forward_ports": "10000-10001"},
        "all: warren_forward_ports = 10000-10001: overlaps with warren_striped_ports 1-19999. Choose a range",
    ),
    ({"striped_ports": "1-20500"}, "all: warren_fleet_ports = 20000-29999: port 20000-29999 is in the striped range"),
    ({"mtuu": 1}, "all: warren_mtuu: unknown variable. Did you mean warren_mtu?"),
    (
        {"clients": {"alice": {}}},
        "all: warren_clients = {'alice': {}}: not a list. Write a list of entries with a name",
    ),
    ({"clients": None}, "all: warren_clients = null: not a list."),
    ({"public_keys": ["x"]}, "all: warren_public_keys = ['x']: not a mapping. Write a mapping of names to keys"),
    ({"public_keys": {"nyc": "x"}}, "all: warren_public_keys[nyc] = x: not a mapping."),
    (
        {"public_keys": {"nyc": {"access": "x"}}},
        (
            "all: warren_public_keys[nyc].access = x: not a WireGuard public key. "
            "Write the 44 characters that `wg pubkey` prints, or remove the key to have one recorded."
        ),
    ),
    (
        {
            "public_keys": {"nyc": {"access": key(1)[:-2] + "B="}},
        },
        "not a WireGuard public key.",
    ),
    (
        {"public_keys": {"nyc": {"access": key(1)}, "fra": {"access": key(1)}}},
        ": also the key of fra (access). Each needs a key pair of its own",
    ),
    ({"client_keys": 3}, "all: warren_client_keys = 3: not a mapping."),
]


@pytest.mark.parametrize(("changed", "message"), FLEET_CASES)
def test_a_problem_of_the_fleet(changed: dict[str, Any], message: str) -> None:
    found = problems(with_all(**changed))
    assert any(message in problem for problem in found), found
    assert "hunter2" not in " ".join(found)


CLIENT_CASES = [
    ({"name": "alice"}, "all: warren_clients[alice].name = alice: the name of two clients. Rename one of them."),
    ({"name": None}, "all: warren_clients[2].name = null: not a name for a client."),
    ({"name": "../x"}, "all: warren_clients[2].name = ../x: not a name for a client. Give it 1-63 letters"),
    ({"adress": "10.96.0.9"}, "all: warren_clients[carol] = adress: not a key of a client. Did you mean address?"),
    ({"public_key": "x"}, "all: warren_clients[carol].public_key = x: not a WireGuard public key."),
    (
        {"public_key": key(100)},
        (
            f"all: warren_clients[carol].public_key = {key(100)}: also the key of alice. Each needs a "
            "key pair of its own: remove one of them to have it made."
        ),
    ),
    ({"public_key": key(1)}, "also the key of ams (control_mesh)."),
    ({"address": 7}, "all: warren_clients[carol].address = 7: not an IPv4 address."),
    ({"address6": "10.96.0.9"}, "all: warren_clients[carol].address6 = 10.96.0.9: not an IPv6 address."),
    (
        {"address": "10.1.0.1"},
        (
            "all: warren_clients[carol].address = 10.1.0.1: outside warren_client_prefix 10.96.0.0/11. "
            "Remove it to have one computed, or choose one inside."
        ),
    ),
    ({"address": "10.96.0.0"}, "address = 10.96.0.0: the first or last of warren_client_prefix 10.96.0.0/11."),
    ({"address": "10.31.33.7"}, "address = 10.31.33.7: also warren_portal_address."),
    (
        {"server": "nycc"},
        "all: warren_clients[carol].server = nycc: not a server of group warren_access. Did you mean nyc?",
    ),
    ({"server": "zzz"}, "server = zzz: not a server of group warren_access. Name one of ams, fra, nyc."),
    ({"server": 4}, "all: warren_clients[carol].server = 4: not a text. Name a server."),
]


@pytest.mark.parametrize(("entry", "message"), CLIENT_CASES)
def test_a_problem_of_a_client(entry: dict[str, Any], message: str) -> None:
    found = problems(with_client(**entry))
    assert len(found) == 1, found
    assert message in found[0]


def test_where_no_client_connects_their_port_is_free() -> None:
    given = with_host("nyc", nat_ports="40000-60000")
    assert problems({**given, "access": ["ams", "fra"]}) == []


def test_a_client_may_have_the_first_address_which_is_nobodys() -> None:
    assert problems(with_client(address="10.96.0.1")) == []


def test_client_keys_made_in_this_run_count() -> None:
    """They are a fact of the hosts of the run: of nyc only, with ``--limit nyc``."""
    given = with_all(clients=[{"name": "x"}, {"name": "y"}], client_keys={"x": key(7)})
    given["hosts"]["nyc"]["warren_client_keys_made"] = {"y": key(8)}
    result = read(given)
    assert (result.problems, result.warnings) == ([], [])
    assert [client["public_key"] for client in result.fleet["clients"]] == [key(7), key(8)]


def test_a_client_that_is_no_mapping() -> None:
    assert problems(with_all(clients=["alice"])) == [
        "all: warren_clients[0] = alice: not a mapping. Write an entry such as `- name: alice`."
    ]


def test_a_full_prefix_says_so() -> None:
    given = with_all(
        client_prefix="10.96.0.0/29", clients=[{"name": f"c{n}", "public_key": key(200 + n)} for n in range(7)]
    )
    found = problems(given)
    assert all("also the address of c" in problem for problem in found)
    assert any("Widen warren_client_prefix: it is full." in problem for problem in found)


def test_each_client_is_offered_an_address_of_its_own() -> None:
    entries = [{"name": name, "public_key": key(200 + n), "address": "10.96.0.9"} for n, name in enumerate("abc")]
    offered = [problem.split("`")[1] for problem in problems(with_all(clients=entries))]
    assert offered == ["address: 10.96.0.10", "address: 10.96.0.11"]


def test_following_the_remedy_of_a_meeting_ends_it() -> None:
    entries = [{"name": f"c{n}", "public_key": key(200 + n)} for n in range(60)]
    given = with_all(client_prefix="10.96.0.0/24", clients=entries)
    found = problems(given)
    assert found
    for problem in found:
        number = int(problem.split("[c")[1].split("]")[0])
        entries[number]["address"] = problem.split("`address: ")[1].split("`")[0]
    assert problems(given) == []


def test_groups() -> None:
    assert problems({**fleet(), "servers": []})[-1] == (
        "all: warren_servers: the group is empty. Put the servers of the fleet in it."
    )
    assert problems({**fleet(), "access": ["ams", "old"]}) == [
        (
            "old: warren_access: a member of this group, but not of warren_servers. "
            "Put old in warren_servers too, or take it out of warren_access."
        )
    ]
    assert problems({**fleet(), "access": []}) == [
        "all: warren_clients: there are clients, but group warren_access is empty. Add a server to it."
    ]


def test_a_missing_id_names_the_host() -> None:
    given = fleet()
    del given["hosts"]["nyc"]["server_id"]
    assert problems(given) == ["nyc: server_id: missing. Give nyc a number of its own."]


def test_a_setting_of_one_server_only_is_refused() -> None:
    given = fleet()
    given["hosts"]["nyc"]["warren_mtu"] = 1300
    assert problems(given) == [
        (
            "nyc: warren_mtu = 1300: not the same as for ams. It belongs to the whole fleet: "
            "set it once, in group_vars/all."
        )
    ]
    given = fleet()
    given["hosts"]["nyc"]["warren_fleet_secret"] = "hunter2" * 9
    assert "hunter2" not in " ".join(problems(given))


def test_a_name_too_long_for_a_slug_says_where_it_comes_from() -> None:
    given = fleet()
    given["hosts"]["nyc.example.net"] = given["hosts"].pop("nyc")
    given["all"]["warren_public_keys"]["nyc.example.net"] = given["all"]["warren_public_keys"].pop("nyc")
    for group in ("servers", "access", "run"):
        given[group] = ["ams", "fra", "nyc.example.net"]
    assert problems(given)[0].startswith(
        "nyc.example.net: server_slug = nyc.example.net: the inventory name, and not a DNS label. Set server_slug to"
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sever_id", "nyc: sever_id: unknown variable. Did you mean server_id?"),
        ("waren_mtu", "nyc: waren_mtu: unknown variable. Did you mean warren_mtu?"),
        ("control_mesh_tcp_port", "nyc: control_mesh_tcp_port: unknown variable. Did you mean control_mesh_tcp_ports?"),
        ("warren_zzz", "nyc: warren_zzz: unknown variable. Remove it, or give it a name of your own."),
        ("server_zzz", ""),
        ("access_x", ""),
        ("server_wireguard", ""),
        ("control_mesh_part", ""),
        ("warren_fleet", ""),
        ("ansible_server_id", ""),
        ("lab_server_id", ""),
        ("service_id", ""),
        ("region", ""),
        ("group_names", ""),
    ],
)
def test_names_that_nobody_reads(name: str, message: str) -> None:
    given = fleet()
    given["hosts"]["nyc"][name] = 1
    assert " ".join(problems(given)).startswith(message)
    assert bool(problems(given)) == bool(message)


def test_a_name_on_several_servers_is_reported_once() -> None:
    given = fleet()
    for host in ("fra", "nyc"):
        given["hosts"][host]["sever_id"] = 1
    assert problems(given) == ["fra: sever_id: unknown variable (also on nyc). Did you mean server_id?"]


def test_enrolment() -> None:
    given = with_all(public_keys={"ams": {"control_mesh": key(1)}, "fra": {"control_mesh": key(2), "multihop": key(3)}})
    assert read({**given, "access": ["ams"]}).unenrolled == ["ams", "nyc"]
    assert problems({**given, "access": ["ams"], "run": ["ams"]}) == [
        (
            "nyc: warren_public_keys: no recorded public key for control_mesh and multihop, and nyc is not in this "
            "run. Run site.yml once without --limit: it makes the key there and records its public half."
        )
    ]


def test_warnings_stop_nothing() -> None:
    given = with_all(clients=[{"name": f"c{n}"} for n in range(7)], client_keys={"old": key(9)})
    given["all"]["warren_public_keys"]["gone"] = {"control_mesh": "rubbish"}
    reading = read(given)
    assert reading.problems == []
    assert reading.warnings == [
        "warren_public_keys has keys of gone, not in group warren_servers. Remove the entry.",
        "No public key for c0, c1, c2, c3, c4 and 2 more: no server accepts them yet. Run playbooks/clients.yml.",
        "warren_client_keys has keys of old, not in warren_clients. Remove the entry.",
    ]


def test_all_problems_come_at_once() -> None:
    given = with_host("nyc", id=2, slug="A", nat_ports="x", entry_adresses=[])
    given["all"].update(warren_mtu=1, warren_fleet_secret=None, warren_control_port=20001)
    assert len(problems(given)) == 7


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=3),
    max_leaves=5,
)
VARIABLES = sorted(_inventory.variables())


@settings(max_examples=300, deadline=None)
@given(
    changed=st.dictionaries(st.sampled_from(VARIABLES), ANYTHING, min_size=1, max_size=4),
    entry=st.dictionaries(st.sampled_from(["name", "public_key", "address", "address6", "server"]), ANYTHING),
)
def test_no_value_of_any_type_is_a_crash(changed: dict[str, Any], entry: dict[str, Any]) -> None:
    given = with_client(**entry)
    given["hosts"]["ams"].update(changed)
    for problem in read(given).problems:
        assert all((problem.host, problem.variable, problem.problem, problem.remedy))


@settings(deadline=None)
@given(number=st.integers(4, 254))
def test_adding_a_server_or_a_client_changes_no_other(number: int) -> None:
    before = read(fleet()).fleet
    given = copy.deepcopy(fleet())
    given["hosts"]["new"] = {
        **server(number),
        "server_entry_addresses": ["192.0.2.1"],
        "server_exit_addresses": ["192.0.2.2"],
    }
    given["all"]["warren_clients"].insert(0, {"name": f"c{number}", "public_key": key(900)})
    for group in ("servers", "access", "run"):
        given[group] = ["new", *NAMES]
    after = read(given).fleet
    assert {name: after["servers"][name] for name in NAMES} == before["servers"]
    assert after["clients"][1:] == before["clients"]


def test_a_thousand_servers_take_well_under_a_second() -> None:
    given = with_all(
        control_prefix="10.77.0.0/22",
        session_prefix_length=19,
        clients=[{"name": f"c{n}", "public_key": key(10_000 + n)} for n in range(5000)],
    )
    names = [f"s{number}" for number in range(1, 1001)]
    given["hosts"] = {
        f"s{n}": {
            "server_id": n,
            "server_entry_addresses": [f"198.18.{n >> 8}.{n & 255}"],
            "server_exit_addresses": [f"198.19.{n >> 8}.{n & 255}"],
        }
        for n in range(1, 1001)
    }
    given.update(servers=names, access=names, run=names)
    hosts = {name: {**given["all"], **own} for name, own in given["hosts"].items()}
    start = time.process_time()
    _inventory.read(hosts, groups_of(given), names, OPTIONS)
    assert time.process_time() - start < 2  # about 0.25 s; the rest is for a busy machine
