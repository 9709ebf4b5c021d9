"""Forgetting flows, against the kernel: the hash that finds them, and that only they go."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator

import pytest
from fleets import fleet
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from namespaces import flows, fresh, nft, router, send_over_lo, udp
from warrend import conntrack
from warrend.conntrack import EXIT_KIND, FEW, OWN_KIND, SESSION_KIND, Flows, flow_mark

# As in the rules of role multihop, for whatever leaves this host.
MARKING = """
table inet marking {
    chain output {
        type filter hook output priority 0;
        udp sport 7 accept
        ct mark 0 ct mark set jhash ip saddr mod 0x10000000 seed 0x77617272 offset %(offset)s
        ct mark 0 ct mark set jhash ip6 saddr mod 0x10000000 seed 0x77617272 offset %(offset)s
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
# Each try asks the kernel.
NO_SHRINKING = (Phase.explicit, Phase.reuse, Phase.generate)
UNMARKED = 7  # the source port of flows that the rules leave alone
SESSION4, SESSION6 = "10.129.0.5", "fd57:6172:7265:8002::5"
CLIENT4, CLIENT6 = "10.100.0.1", "fd57:6172:7265:2::c1"


def addresses() -> st.SearchStrategy[str]:
    """Whatever can be a source address."""
    fours = st.ip_addresses(v=4).filter(lambda a: not (a.is_multicast or a.is_loopback or int(a) >> 24 in (0, 255)))
    sixes = st.ip_addresses(v=6).filter(lambda a: not (a.is_multicast or a.is_loopback or a.is_unspecified))
    return st.one_of(fours, sixes).map(str)


def packed(address: str) -> bytes:
    return ipaddress.ip_address(address).packed


def rules(kind: int) -> None:
    nft(MARKING % {"offset": hex(kind << 28)})


def neighbours(count: int) -> list[str]:
    """So many addresses of each family, near each other."""
    return [f"10.100.0.{n}" for n in range(1, count + 1)] + [f"fd57::{n:x}" for n in range(1, count + 1)]


def begin(sources: Iterable[str]) -> None:
    """Begin flows: two of each address, and one that is not ours."""
    for source in sources:
        for port in (1000, 1001, UNMARKED):
            send_over_lo(source, port)


def marked() -> set[str]:
    """The addresses of the flows that have a mark."""
    return {address for (address, port), mark in flows().items() if mark and port != UNMARKED}


@pytest.fixture
def table() -> Iterator[Flows]:
    with fresh():
        found = Flows()
        yield found
        found.close()


@pytest.mark.usefixtures("netns")
@given(sources=st.lists(addresses(), min_size=20, max_size=60, unique=True))
@settings(
    max_examples=10, deadline=None, phases=NO_SHRINKING, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_the_hash_is_the_kernels(sources: list[str]) -> None:
    rules(OWN_KIND)
    for source in sources:
        send_over_lo(source)
    seen = flows()
    for source in sources:
        mark = seen[source, 1000]
        assert mark & conntrack.OURS_MASK == flow_mark(packed(source))
        assert mark >> 28 == OWN_KIND


@pytest.mark.parametrize(
    ("kind", "count"),
    [(SESSION_KIND, 3), (EXIT_KIND, 1), (OWN_KIND, FEW), (OWN_KIND, FEW + 1), (SESSION_KIND, 40), (EXIT_KIND, 20)],
)
def test_the_flows_of_these_addresses_go_and_no_others(table: Flows, kind: int, count: int) -> None:
    """By their hash for a few addresses, from a list for many; of both families at once, or of one of them."""
    rules(kind)
    everybody = neighbours(45)
    begin(everybody)
    assert marked() == set(everybody)
    gone = everybody[:count] + everybody[45 : 45 + count]
    table.forget(gone)
    assert marked() == set(everybody) - set(gone)
    one_family = everybody[count : 2 * count][: 45 - count]
    table.forget(one_family)
    assert marked() == set(everybody) - set(gone) - set(one_family)
    unmarked = {address for address, port in flows() if port == UNMARKED}
    assert unmarked >= set(everybody) - set(gone) - set(one_family), "not ours, and of others"


def test_an_address_without_flows_is_no_error(table: Flows) -> None:
    rules(OWN_KIND)
    begin(["10.100.0.1"])
    table.forget(["10.100.0.2", "fd57::2"])
    table.forget([])
    table.forget(neighbours(30)[1:])
    assert marked() == {"10.100.0.1"}


def test_a_flow_in_a_zone_goes_too(table: Flows) -> None:
    nft(ZONE)
    rules(OWN_KIND)
    everybody = neighbours(30)
    begin(everybody)
    table.forget(everybody[:20])
    assert marked() == set(everybody[20:])
    table.forget(everybody[20:22])
    assert marked() == set(everybody[22:])


def test_a_sweep_counts_and_deletes_what_is_wrong(table: Flows) -> None:
    rules(EXIT_KIND)
    everybody = neighbours(20)
    begin(everybody)
    asked: list[tuple[str, int]] = []

    def wrong(address: str, mark: int) -> bool:
        kind = mark >> 28
        asked.append((address, kind))
        return kind == EXIT_KIND and address.endswith("5")

    assert table.sweep(wrong, delete=False) == 6  # 10.100.0.5, 10.100.0.15 and fd57::5, two flows of each
    assert marked() == set(everybody)
    assert set(asked) == {(address, kind) for address in everybody for kind in (EXIT_KIND, 0)}
    assert table.sweep(wrong, delete=True) == 6
    assert marked() == {address for address in everybody if not address.endswith("5")}
    assert table.sweep(wrong, delete=True) == 0


def test_the_kernel_says_why_not(table: Flows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conntrack, "MARK", 99)  # no such attribute: the kernel refuses what has a mask and no mark
    monkeypatch.setattr(conntrack, "DELETE", conntrack.SUBSYSTEM | 0x77)
    with pytest.raises(OSError, match="Invalid argument"):
        table.forget(["10.100.0.1"])


def test_what_the_roles_rules_mark_is_found(table: Flows) -> None:
    """A client's flow from here, one by an exit, and one of another server's session, in the tables of the roles."""
    with router(fleet(), "host-ams") as interfaces:
        nft(
            f"""
            add element inet warren_multihop ready {{ wg0access }}
            add element inet warren_multihop session_exit4 {{ {SESSION4} : 203.0.113.11 }}
            add element inet warren_multihop session_exit6 {{ {SESSION6} : 2001:db8:e::11 }}
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
        table.forget([CLIENT4, CLIENT6, SESSION4, SESSION6])
        assert {address for address, _port in flows()} == {"10.100.0.2"}
        nft(
            f"""
            add element inet warren_multihop client_mark4 {{ {CLIENT4} : 0x70000002 }}
            add element inet warren_multihop client_session4 {{ {CLIENT4} : 10.128.128.9 }}
            """
        )
        interfaces["wg0mh-r2"].sources()
        interfaces["wg0access"].send(udp(CLIENT4, "192.0.2.80"))
        assert interfaces["wg0mh-r2"].sources() == ["10.128.128.9"]
        assert {mark >> 28 for (address, _port), mark in flows().items() if address == CLIENT4} == {EXIT_KIND}
        table.forget([CLIENT4])
        assert {address for address, _port in flows()} == {"10.100.0.2"}
