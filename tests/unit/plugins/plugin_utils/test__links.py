# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The links computed from a fleet."""

from __future__ import annotations

import base64
import ipaddress
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.warren.vpn.plugins.plugin_utils import _addressing, _inventory, _links

SECRET = "a secret that is long enough, really"
IDS = st.integers(min_value=1, max_value=4000)


def key(number: int) -> str:
    return base64.b64encode(number.to_bytes(32, "big")).decode()


def fleet(count: int = 3, enrolled: int | None = None) -> dict[str, Any]:
    """A fleet of servers s1, s2, ... with two clients, read by the inventory check itself."""
    names = [f"s{number}" for number in range(1, count + 1)]
    common = {
        "warren_fleet_secret": SECRET,
        "warren_clients": [{"name": "alice", "public_key": key(9001)}, {"name": "bob"}],
        "warren_public_keys": {
            name: {"control_mesh": key(number), "access": key(5000 + number), "multihop": key(7000 + number)}
            for number, name in enumerate(names[:enrolled], 1)
        },
    }
    hosts = {
        name: {
            **common,
            "server_id": number,
            "server_entry_addresses": [f"198.51.100.{number}", f"2001:db8::{number}"],
            "server_exit_addresses": [f"198.51.100.{100 + number}", f"2001:db8::1:{number}"],
        }
        for number, name in enumerate(names, 1)
    }
    reading = _inventory.read(hosts, {"warren_servers": names, "warren_access": names}, names)
    assert not reading.problems
    return reading.fleet


def test_every_other_server_is_a_peer() -> None:
    link = _links.control_mesh_link(fleet(), "s2")
    assert link["name"] == "wg0ctl"
    assert link["listen_port"] == 20000
    assert link["addresses"] == ["10.77.0.2/24", "fd57:6172:7265:1::2/64"]
    assert link["public_key"] == key(2)
    assert [peer["name"] for peer in link["peers"]] == ["s1", "s3"]
    assert link["peers"][0] == {
        "name": "s1",
        "public_key": key(1),
        "preshared_key": _links.preshared_key(SECRET, "control mesh", 1, 2),
        "endpoint": "198.51.100.1:20000",
        "allowed_ips": ["10.77.0.1/32", "fd57:6172:7265:1::1/128"],
        "keepalive": 25,
        "watched": True,
    }


def test_a_server_without_a_key_is_nobodys_peer_and_has_no_link() -> None:
    partly = fleet(enrolled=2)
    assert [peer["name"] for peer in _links.control_mesh_link(partly, "s1")["peers"]] == ["s2"]
    with pytest.raises(ValueError, match=r"s3 has no control_mesh key in warren_public_keys: run site\.yml with this"):
        _links.control_mesh_link(partly, "s3")


def test_clients_with_a_key_are_peers_by_one_address_on_every_server() -> None:
    links = [_links.access_link(fleet(), name) for name in ("s1", "s2")]
    assert [peer["name"] for peer in links[0]["peers"]] == ["alice"]
    assert links[0]["peers"] == links[1]["peers"]
    assert links[0]["addresses"] == ["10.31.33.7/32", "fd57:6172:7265:33::7/128"]
    assert [route["destination"] for route in links[0]["routes"] if "table" not in route] == [
        "10.96.0.0/11",
        "fd57:6172:7265:2::/64",
    ]
    # A strict reverse path filter asks the table of the packet's mark for the way back.
    elsewhere = {route["table"] for route in links[0]["routes"] if "table" in route}
    assert elsewhere == {
        route["table"] for link in _links.multihop_links(fleet(), "s1")[1:] for route in link["routes"]
    }
    assert links[0]["public_key"] == key(5001)


@given(one=IDS, other=IDS, third=IDS)
def test_a_pair_has_one_key_and_no_other_pair_has_it(one: int, other: int, third: int) -> None:
    pair = _links.preshared_key(SECRET, "control mesh", one, other)
    assert pair == _links.preshared_key(SECRET, "control mesh", other, one)
    assert len(base64.b64decode(pair)) == 32
    assert (pair == _links.preshared_key(SECRET, "control mesh", one, third)) == (third == other)
    assert pair != _links.preshared_key(SECRET, "multihop", one, other)
    assert pair != _links.preshared_key(SECRET + "x", "control mesh", one, other)


def test_both_ends_of_every_pair_agree() -> None:
    whole = fleet(6)
    links = {name: _links.control_mesh_link(whole, name) for name in whole["servers"]}
    ends = {
        frozenset((name, peer["name"])): {peer["preshared_key"] for peer in links[name]["peers"]}
        & {peer["preshared_key"] for peer in links[peer["name"]]["peers"]}
        for name in links
        for peer in links[name]["peers"]
    }
    assert all(len(keys) == 1 for keys in ends.values())
    assert len(set.union(*ends.values())) == len(ends) == 15


def test_the_secret_itself_is_in_no_link() -> None:
    assert SECRET not in json.dumps([_links.control_mesh_link(fleet(), "s1"), _links.access_link(fleet(), "s1")])


@pytest.mark.parametrize(
    ("address", "text"), [("198.51.100.1", "198.51.100.1:20000"), ("2001:db8::1", "[2001:db8::1]:20000")]
)
def test_endpoints(address: str, text: str) -> None:
    assert _links.endpoint(address, 20000) == text


def test_a_server_receives_the_sessions_of_all_others() -> None:
    """Each may send from its own session prefix only: WireGuard itself refuses the rest."""
    link = _links.multihop_links(fleet(), "s2")[0]
    assert (link["name"], link["purpose"], link["listen_port"]) == ("wg0mh", "multihop", 20001)
    assert link["routes"] == [{"destination": "10.128.0.0/9"}, {"destination": "fd57:6172:7265:8000::/49"}]
    assert [(peer["name"], peer["public_key"], peer["allowed_ips"]) for peer in link["peers"]] == [
        ("s1", key(7001), ["10.128.128.0/17", "fd57:6172:7265:8001::/64"]),
        ("s3", key(7003), ["10.129.128.0/17", "fd57:6172:7265:8003::/64"]),
    ]
    assert [peer["endpoint"] for peer in link["peers"]] == ["198.51.100.1:21002", "198.51.100.3:21002"]


def test_a_link_leads_to_each_exit() -> None:
    link = _links.multihop_links(fleet(), "s2")[2]
    assert link == {
        "name": "wg0mh-r3",
        "purpose": "multihop",
        "public_key": key(7002),
        "listen_port": 21003,
        "mtu": 1420,
        "group": 0x57000002,
        "settings": {"ipv4/rp_filter": "2"},
        "addresses": ["10.31.33.7/32"],
        "routes": [
            {"destination": "0.0.0.0/0", "table": "100003"},
            {"destination": "::/0", "table": "100003"},
        ],
        "peers": [
            {
                "name": "s3",
                "public_key": key(7003),
                "preshared_key": _links.preshared_key(SECRET, "multihop", 2, 3),
                "endpoint": "198.51.100.3:20001",
                "allowed_ips": ["0.0.0.0/0", "::/0"],
                "keepalive": 25,
            }
        ],
    }


def test_both_ends_of_a_link_agree() -> None:
    """What s1 uses towards s3 is what s3 expects of s1, and the other way round."""
    links = {name: _links.multihop_links(fleet(), name) for name in ("s1", "s3")}
    for here, there in (("s1", "s3"), ("s3", "s1")):
        (leaving,) = (
            link for link in links[here] if link["peers"][0]["name"] == there and link["routes"][0].get("table")
        )
        (expected,) = (peer for peer in links[there][0]["peers"] if peer["name"] == here)
        assert expected["public_key"] == leaving["public_key"]
        assert expected["preshared_key"] == leaving["peers"][0]["preshared_key"]
        assert leaving["peers"][0]["public_key"] == links[there][0]["public_key"]


def test_a_server_without_clients_is_an_exit_only() -> None:
    read = fleet()
    read["servers"]["s2"]["access"] = False
    assert "endpoint" not in _links.multihop_links(read, "s1")[0]["peers"][0], "it has no link towards s1"
    assert [link["name"] for link in _links.multihop_links(read, "s2")] == ["wg0mh"]
    assert _links.remotes(read, "s2") == []
    assert [remote["id"] for remote in _links.remotes(read, "s1")] == [2, 3]


def test_what_comes_in_by_a_link_of_the_fleet_needs_approval() -> None:
    """In every role alike, and whatever is approved stands before what is not."""
    for role, interface in (("control_mesh", "wg0ctl"), ("access", "wg0access"), ("multihop", "wg0mh")):
        assert _links.routing_rules(fleet(), "s1", role)[:2] == [
            {"priority": 4003, "iif": interface, "fwmark": "0x40000000/0x40000000", "table": "main"},
            {"priority": 4004, "iif": interface, "action": "unreachable"},
        ]


def test_a_marked_packet_takes_its_links_table_or_none() -> None:
    assert _links.routing_rules(fleet(), "s1", "multihop")[2:] == [
        {"priority": 4002, "fwmark": "0x70000000/0xf0000000", "action": "unreachable"},
        {"priority": 4001, "fwmark": "0x70000002", "table": "100002"},
        {"priority": 4001, "fwmark": "0x70000003", "table": "100003"},
        {"priority": 4001, "fwmark": "0x7fffffff", "action": "blackhole"},
        {"priority": 4000, "not": True, "fwmark": "0x70000000/0xf0000000", "action": "goto 4003"},
    ]


def test_a_server_without_clients_has_no_link_with_a_mark() -> None:
    read = fleet()
    read["servers"]["s2"]["access"] = False
    assert len(_links.routing_rules(read, "s2", "multihop")) == 2


def test_all_marks_that_approve_have_the_bit_that_routing_asks_for() -> None:
    assert all(mark & _addressing.APPROVED_BIT for mark in _addressing.PACKET_MARKS.values())


def test_the_loose_reverse_path_check_is_for_what_comes_back_from_an_exit() -> None:
    links = [_links.control_mesh_link(fleet(), "s1"), _links.access_link(fleet(), "s1")]
    links += _links.multihop_links(fleet(), "s1")
    found = {link["name"]: link["settings"]["ipv4/rp_filter"] for link in links}
    assert found == {"wg0ctl": "0", "wg0access": "0", "wg0mh": "0", "wg0mh-r2": "2", "wg0mh-r3": "2"}


def test_what_goes_by_links_only_never_takes_the_default_route() -> None:
    """Every network that a link has a route or an address in."""
    links = [_links.control_mesh_link(fleet(), "s1"), _links.access_link(fleet(), "s1")]
    links += _links.multihop_links(fleet(), "s1")
    closed = [ipaddress.ip_network(route["destination"]) for route in _links.closed_routes(fleet())]
    routed = [route["destination"] for link in links for route in link["routes"] if "table" not in route]
    routed += [address for link in links for address in link["addresses"] if not address.endswith(("/32", "/128"))]
    for text in routed:
        network = ipaddress.ip_interface(text).network
        assert any(network.version == each.version and network.subnet_of(each) for each in closed), text
