"""Forgetting flows, against the kernel: the hash that finds them, and that only they go."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

import pytest
from fleets import fleet
from hypothesis import given
from hypothesis import strategies as st
from namespaces import approve, flows, fresh, nft, router, send_over_lo, udp
from warrend import conntrack
from warrend.conntrack import EXIT_KIND, MAX_WALKS, OWN_KIND, SESSION_KIND, Flows, handle

# As in the rules of role packet_path, for whatever leaves this host: a mark from a map.
MARKING = """
table inet marking {
    map flow4 { type ipv4_addr : mark; elements = { %(four)s } }
    map flow6 { type ipv6_addr : mark; elements = { %(six)s } }
    chain output {
        type filter hook output priority 0;
        udp sport 7 accept
        ct mark 0 ct mark set ip saddr map @flow4
        ct mark 0 ct mark set ip6 saddr map @flow6
    }
}
"""
ZONE = """
table inet zone {
    chain output {
        type filter hook output priority raw;
        ct zone set 5
    }
}
"""
UNMARKED = 7  # the source port of flows that the rules leave alone
SESSION4, SESSION6 = "10.129.0.5", "fd57:6172:7265:8002::5"
CLIENT4, CLIENT6 = "10.100.0.1", "fd57:6172:7265:2::c1"


def begin(kind: int, count: int) -> None:
    """Have so many neighbours begin flows of a kind: two of each family, and one that is not ours."""
    marks = {number: hex(kind << 28 | handle(f"10.100.0.{number}")) for number in range(1, count + 1)}
    four = ", ".join(f"10.100.0.{number} : {mark}" for number, mark in marks.items())
    six = ", ".join(f"fd57::{number:x} : {mark}" for number, mark in marks.items())
    nft(MARKING % {"four": four, "six": six})
    for source in everybody(count):
        for port in (1000, 1001, UNMARKED):
            send_over_lo(source, port)


def everybody(count: int, start: int = 1) -> set[str]:
    """The addresses of so many neighbours."""
    return {
        f"{prefix}{n:{base}}"
        for n in range(start, start + count)
        for prefix, base in (("10.100.0.", "d"), ("fd57::", "x"))
    }


def handles(count: int, start: int = 1) -> set[int]:
    """What their flows' marks have of them."""
    return {handle(f"10.100.0.{n}") for n in range(start, start + count)}


def marked() -> set[str]:
    """The addresses of the flows that have a mark."""
    return {address for (address, port), mark in flows().items() if mark and port != UNMARKED}


@pytest.fixture
def table() -> Iterator[Flows]:
    with fresh():
        found = Flows()
        yield found
        found.close()


@given(st.lists(st.ip_addresses(v=4, network="10.96.0.0/11"), unique=True))
def test_each_client_has_a_handle_of_its_own(addresses: list[ipaddress.IPv4Address]) -> None:
    found = {handle(str(address)) for address in addresses}
    assert len(found) == len(addresses)
    assert all(0 <= number < conntrack.HANDLES for number in found)


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        (SESSION_KIND, 3),
        (EXIT_KIND, 1),
        (OWN_KIND, MAX_WALKS),
        (OWN_KIND, MAX_WALKS + 1),
        (SESSION_KIND, 40),
        (EXIT_KIND, 20),
    ],
)
def test_the_flows_of_these_go_and_no_others(table: Flows, kind: int, count: int) -> None:
    """By their marks for a few, from a list for many; both families at once."""
    begin(kind, 45)
    assert marked() == everybody(45)
    table.forget(handles(count))
    assert marked() == everybody(45 - count, count + 1)
    unmarked = {address for address, port in flows() if port == UNMARKED}
    assert unmarked == everybody(45), "not ours, and of others"


def test_one_request_ends_both_families(table: Flows, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each goes through the whole table."""
    begin(OWN_KIND, 3)
    sent: list[int] = []
    send = Flows._send  # noqa: SLF001

    def counted(flows_: Flows, kind: int, flags: int, family: int, attributes: bytes) -> None:
        sent.append(family)
        send(flows_, kind, flags, family, attributes)

    monkeypatch.setattr(Flows, "_send", counted)
    table.forget(handles(1))
    assert sent == [0]
    assert marked() == everybody(2, 2)


def test_one_without_flows_is_no_error(table: Flows) -> None:
    begin(OWN_KIND, 1)
    table.forget(handles(1, 2))
    table.forget([])
    table.forget(handles(30, 2))
    assert marked() == everybody(1)


def test_a_flow_in_a_zone_goes_too(table: Flows) -> None:
    nft(ZONE)
    begin(OWN_KIND, 30)
    table.forget(handles(20))
    assert marked() == everybody(10, 21)
    table.forget(handles(2, 21))
    assert marked() == everybody(8, 23)


def test_a_sweep_counts_and_deletes_what_is_wrong(table: Flows) -> None:
    begin(EXIT_KIND, 20)
    asked: set[int] = set()

    def wrong(mark: int) -> bool:
        asked.add(mark)
        return mark % 256 == 5

    assert table.sweep(wrong, delete=False) == 4  # 10.100.0.5 and fd57::5, two flows of each
    assert marked() == everybody(20)
    assert asked == {EXIT_KIND << 28 | number for number in handles(20)}
    assert table.sweep(wrong, delete=True) == 4
    assert marked() == everybody(20) - everybody(1, 5)
    assert table.sweep(wrong, delete=True) == 0


def test_the_kernel_says_why_not(table: Flows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conntrack, "MARK", 99)  # no such attribute: the kernel refuses what has a mask and no mark
    monkeypatch.setattr(conntrack, "DELETE", conntrack.SUBSYSTEM | 0x77)
    with pytest.raises(OSError, match="Invalid argument"):
        table.forget([1])


def test_what_the_roles_rules_mark_is_found(table: Flows) -> None:
    """A client's flow from here, one by an exit, and one of another server's session, in the table of the role."""
    session = hex(SESSION_KIND << 28 | handle(SESSION4))
    with router(fleet(), "host-ams") as interfaces:
        approve(CLIENT4, CLIENT6)
        approve("10.100.0.2", "fd57:6172:7265:2::c2")
        nft(
            f"""
            add element inet warren_path session_exit4 {{ {SESSION4} : 203.0.113.11 }}
            add element inet warren_path session_exit6 {{ {SESSION6} : 2001:db8:e::11 }}
            add element inet warren_path session_flow4 {{ {SESSION4} : {session} }}
            add element inet warren_path session_flow6 {{ {SESSION6} : {session} }}
            add element inet warren_path client_session4 {{ {CLIENT4} : 10.128.128.9 }}
            """
        )
        for address in (CLIENT4, "10.100.0.2", CLIENT6):
            interfaces["wg0access"].send(udp(address, "192.0.2.80" if "." in address else "2001:db8::80"))
        interfaces["wg0mh"].send(udp(SESSION4, "192.0.2.80"))
        interfaces["wg0mh"].send(udp(SESSION6, "2001:db8::80"))
        kinds = {address: mark >> 28 for (address, _port), mark in flows().items()}
        assert kinds == {
            **dict.fromkeys((CLIENT4, "10.100.0.2", CLIENT6), OWN_KIND),
            **dict.fromkeys((SESSION4, SESSION6), SESSION_KIND),
        }
        table.forget([handle(CLIENT4), handle(SESSION4)])
        assert {address for address, _port in flows()} == {"10.100.0.2"}
        nft(f"delete element inet warren_path client_mark4 {{ {CLIENT4} }}")
        nft(f"add element inet warren_path client_mark4 {{ {CLIENT4} : 0x70000002 }}")
        interfaces["wg0mh-r2"].sources()
        interfaces["wg0access"].send(udp(CLIENT4, "192.0.2.80"))
        assert interfaces["wg0mh-r2"].sources() == ["10.128.128.9"]
        assert {mark >> 28 for (address, _port), mark in flows().items() if address == CLIENT4} == {EXIT_KIND}
        table.forget([handle(CLIENT4)])
        assert {address for address, _port in flows()} == {"10.100.0.2"}
