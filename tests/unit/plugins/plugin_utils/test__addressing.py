# Copyright (c) 2026 the warren.vpn authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The addressing functions: the source document's values, and what must hold for any fleet."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.warren.vpn.plugins.plugin_utils import _addressing as a

IDS = st.integers(1, 254)
PREFIXES = st.sampled_from(["10.77.0.0/24", "10.32.0.0/12", "fd57:6172:7265:1::/64", "fd57::/118"])
POOLS = st.sampled_from([("10.1.0.0/16", 24), ("10.128.0.0/9", 17), ("fd57:6172:7265:8000::/49", 64)])
NAMES = st.text(min_size=1, max_size=40)


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (a.link_interface(7), "wg0mh-r7"),
        (a.link_interface(99999999), "wg0mh-r99999999"),
        (a.link_port(21000, 7), 21007),
        (a.link_table(7), 100007),
        (a.link_mark(7), 0x70000007),
        (a.host_address("10.77.0.0/24", 1), "10.77.0.1"),
        (a.host_address("10.77.0.0/24", 254), "10.77.0.254"),
        (a.host_address("10.77.0.0/16", 256), "10.77.1.0"),
        (a.host_address("fd57:6172:7265:1::/64", 254), "fd57:6172:7265:1::fe"),
        (a.highest_server_id("10.77.0.0/24"), 254),
        (a.highest_server_id("10.77.0.0/32"), 0),
        (a.highest_server_id("fd57::/64"), a.HIGHEST_SERVER_ID),
        (a.session_prefix("10.1.0.0/16", 24, 7), "10.1.7.0/24"),
        (a.session_prefix("10.128.0.0/9", 17, 255), "10.255.128.0/17"),
        (a.session_prefix("fd57:6172:7265:8000::/49", 64, 7), "fd57:6172:7265:8007::/64"),
        (a.highest_session_id("10.1.0.0/16", 24), 255),
        # Written down because a client's file carries it: a change would strand every client.
        (a.client_address("10.96.0.0/11", "alice"), "10.99.162.68"),
        (a.client_address("fd57:6172:7265:2::/64", "alice"), "fd57:6172:7265:2:925b:713d:1e79:6f7"),
        (a.client_address("10.0.0.0/30", "anybody"), "10.0.0.2"),
        (a.parse_ports("30000-51000"), (30000, 51000)),
        (a.parse_ports("51820"), (51820, 51820)),
    ],
)
def test_value(result: object, expected: object) -> None:
    assert result == expected


def test_prefixes_overlap_when_one_holds_the_other() -> None:
    assert a.overlap("10.0.0.0/8", "10.77.0.0/24")
    assert a.overlap("10.77.0.0/24", "10.0.0.0/8")
    assert a.overlap("fd57::/64", "fd57::1")
    assert not a.overlap("10.77.0.0/24", "10.77.1.0/24")
    assert not a.overlap("0.0.0.0/0", "::/0")


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (a.link_interface, (100_000_000,), "interface name wg0mh-r100000000 is longer than 15 bytes"),
        (a.link_interface, (0,), "server id 0 is not between 1 and"),
        (a.link_interface, (True,), "a server id is a whole number: True"),
        (a.link_interface, ("3",), "a server id is a whole number: '3'"),
        (a.link_table, (-1,), "server id -1 is not between"),
        (a.link_mark, (1 << 28,), "server id 268435456 is not between 1 and 268435453"),
        (a.link_port, (65000, 600), r"link port 65600 \(base 65000 \+ id 600\) is not between 1 and 65535"),
        (a.link_port, (0, 6), "link port 6 .base 0"),
        (a.host_address, ("10.77.0.0/24", 255), "server id 255 does not fit in 10.77.0.0/24: the highest is 254"),
        (a.host_address, ("10.77.0.1/24", 1), "not a network prefix: '10.77.0.1/24'"),
        (a.session_prefix, ("10.1.0.0/16", 24, 256), "server id 256 does not fit in 10.1.0.0/16 cut in /24: .* is 255"),
        (a.session_prefix, ("10.1.0.0/16", 12, 1), "10.1.0.0/16 cannot be cut in /12"),
        (a.session_prefix, ("10.1.0.0/16", 33, 1), "10.1.0.0/16 cannot be cut in /33"),
        (a.client_address, ("10.0.0.0/31", "alice"), "client prefix 10.0.0.0/31 has no room for a client"),
        (a.client_address, ("10.0.0.0/24", ""), "a client needs a name: ''"),
        (a.parse_ports, ("51000-30000",), "not a range of ports .* '51000-30000'"),
        (a.parse_ports, ("0-5",), "not a range of ports .* '0-5'"),
        (a.parse_ports, ("1-65536",), "not a range of ports .* '1-65536'"),
        (a.parse_ports, ("5-",), "not a port range such as 30000-51000: '5-'"),
        (a.parse_ports, ("-5",), "not a port range"),
        (a.parse_ports, ("1-2-3",), "not a port range"),
        (a.parse_ports, ("٣",), "not a port range"),
    ],
)
def test_bad_value_is_named(function, arguments: tuple, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        function(*arguments)


@settings(deadline=None)
@given(one=IDS, other=IDS, prefix=PREFIXES)
def test_everything_of_a_server_is_its_own(one: int, other: int, prefix: str) -> None:
    for function in (
        a.link_interface,
        a.link_table,
        a.link_mark,
        lambda i: a.link_port(21000, i),
        lambda i: a.host_address(prefix, i),
    ):
        assert (function(one) == function(other)) == (one == other)


@settings(deadline=None)
@given(server_id=st.integers(1, a.HIGHEST_SERVER_ID))
def test_tables_and_marks_keep_clear_of_the_kernel_and_wg_quick(server_id: int) -> None:
    assert 51820 < a.link_table(server_id) < 1 << 32
    assert 51820 < a.link_mark(server_id) < 1 << 32


@settings(deadline=None)
@given(server_id=IDS, prefix=PREFIXES)
def test_a_control_address_is_inside_and_no_edge(server_id: int, prefix: str) -> None:
    network = ipaddress.ip_network(prefix)
    address = ipaddress.ip_address(a.host_address(prefix, server_id))
    assert network.network_address < address < network.broadcast_address


@settings(deadline=None)
@given(one=IDS, other=IDS, pool=POOLS)
def test_session_prefixes_are_in_the_pool_and_apart(one: int, other: int, pool: tuple[str, int]) -> None:
    first, second = (ipaddress.ip_network(a.session_prefix(*pool, server_id)) for server_id in (one, other))
    assert first.subnet_of(ipaddress.ip_network(pool[0]))
    assert first.overlaps(second) == (one == other)


@settings(deadline=None)
@given(name=NAMES, prefix=st.sampled_from(["10.96.0.0/11", "10.0.0.0/29", "fd57::/64", "fd57::/126"]))
def test_a_client_address_is_inside_and_not_the_first(name: str, prefix: str) -> None:
    network = ipaddress.ip_network(prefix)
    address = ipaddress.ip_address(a.client_address(prefix, name))
    assert network.network_address + 1 < address < network.broadcast_address


@settings(deadline=None)
@given(low=st.integers(1, 65535), high=st.integers(1, 65535))
def test_ports_come_back(low: int, high: int) -> None:
    low, high = sorted((low, high))
    assert a.parse_ports(f"{low}-{high}") == (low, high)
