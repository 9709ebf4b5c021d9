"""The kernel's side as the event loop sees it, in a network namespace."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fleets import config, fleet
from namespaces import command, fresh, load_tables, nft, router
from test_conntrack import OWN_KIND, begin, everybody, marked
from warrend import kernel as kernel_module
from warrend.conntrack import handle
from warrend.kernel import Kernel, handshakes
from warrend.tables import Key, Tables, TablesError, TablesGoneError, Value

from ansible_collections.warren.vpn.plugins.module_utils import _interfaces, _link, _rules
from ansible_collections.warren.vpn.plugins.module_utils._plan import Plan
from ansible_collections.warren.vpn.plugins.plugin_utils import _links

ALICE: dict[Key, Value] = {
    ("client_mark4", "10.100.0.1"): 0x7000_0002,
    ("client_session4", "10.100.0.1"): "10.128.128.9",
}
BOB: dict[Key, Value] = {("client_mark6", "fd57::b"): 0x7FFF_FFFE}


def with_kernel(work: Callable[[Kernel], Awaitable[None]], slug: str = "ams", clients: bool = True) -> None:
    """Run work with a kernel of a server."""
    told = replace(config(slug), clients_connect=clients)

    async def run() -> None:
        kernel = Kernel(told)
        try:
            await work(kernel)
        finally:
            kernel.close()

    asyncio.run(run())


class TestInTheKernel:
    @pytest.fixture(autouse=True)
    def tables(self) -> Iterator[None]:
        with fresh():
            load_tables(fleet(), "host-ams")
            yield

    def test_elements_are_there_once_that_is_said(self) -> None:
        async def work(kernel: Kernel) -> None:
            assert await kernel.elements() == {}
            assert sorted(await kernel.restore(ALICE)) == sorted(ALICE)
            assert await kernel.elements() == ALICE
            assert await kernel.restore(ALICE) == {}

        with_kernel(work)

    def test_surplus_elements_go_and_wrong_ones_are_put_right(self) -> None:
        async def work(kernel: Kernel) -> None:
            await kernel.restore(ALICE | BOB)
            nft(
                """
                flush map inet warren_path client_session4
                add element inet warren_path session_exit4 { 10.129.0.5 : 203.0.113.13 }
                delete element inet warren_path client_mark4 { 10.100.0.1 }
                add element inet warren_path client_mark4 { 10.100.0.1 : 5 }
                """
            )
            wrong = [("client_mark4", "10.100.0.1"), ("client_session4", "10.100.0.1"), ("session_exit4", "10.129.0.5")]
            assert sorted(await kernel.restore(ALICE | BOB)) == wrong
            assert await kernel.elements() == ALICE | BOB

        with_kernel(work)

    def test_a_table_that_was_made_anew_is_filled_again(self) -> None:
        async def work(kernel: Kernel) -> None:
            await kernel.restore(ALICE)
            nft("delete table inet warren_path")
            load_tables(fleet(), "host-ams", "warren_path")
            assert sorted(await kernel.restore(ALICE)) == sorted(ALICE)
            assert await kernel.elements() == ALICE

        with_kernel(work)

    def test_a_table_that_is_made_anew_meanwhile_lets_pass_with_all_that_is_wanted(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As when nftables.service is restarted between two looks at what is live."""

        async def work(kernel: Kernel) -> None:
            await kernel.restore(ALICE)
            nft("delete element inet warren_path client_mark4 { 10.100.0.1 }")
            look = Tables.read

            def read_just_before(tables: Tables) -> dict[Key, Value]:
                found = look(tables)
                nft("delete table inet warren_path")
                load_tables(fleet(), "host-ams", "warren_path")
                return found

            monkeypatch.setattr(Tables, "read", read_just_before)
            await kernel.restore(ALICE)
            monkeypatch.undo()
            assert await kernel.elements() == ALICE

        with_kernel(work)

    def test_nobody_passes_when_the_elements_cannot_be_there(self) -> None:
        async def work(kernel: Kernel) -> None:
            with pytest.raises(TablesError):
                await kernel.restore({**ALICE, ("client_session4", "10.100.0.2"): "fd57::1"})
            assert await kernel.elements() == {}

        with_kernel(work)

    def test_a_table_that_is_gone_ends_whoever_asks(self) -> None:
        async def work(kernel: Kernel) -> None:
            nft("delete table inet warren_path")
            with pytest.raises(TablesGoneError):
                await kernel.elements()
            with pytest.raises(TablesGoneError):
                await kernel.restore({})

        with_kernel(work)

    def test_flows_are_forgotten_and_swept(self) -> None:
        async def work(kernel: Kernel) -> None:
            begin(OWN_KIND, 3)
            await kernel.forget(iter(["10.100.0.1"]))
            assert marked() == everybody(2, 2)
            wrong = OWN_KIND << 28 | handle("10.100.0.2")
            assert await kernel.sweep(lambda mark: mark == wrong, False) == 4
            assert await kernel.sweep(lambda mark: mark == wrong) == 4
            assert marked() == everybody(1, 3)

        with_kernel(work)

    def test_what_others_do_is_reported_and_what_we_do_is_not(self) -> None:
        async def work(kernel: Kernel) -> None:
            seen: list[None] = []
            damaged: list[None] = []
            watching = asyncio.create_task(kernel.watch(lambda: seen.append(None), lambda: damaged.append(None)))
            await asyncio.sleep(0)
            await kernel.restore(ALICE)
            await kernel.apply(BOB)
            await asyncio.sleep(3 * kernel_module.SETTLE_SECONDS)
            assert not seen
            for number in range(5):  # a reload is more than one transaction
                nft(f"add table inet other{number}")
            await asyncio.sleep(3 * kernel_module.SETTLE_SECONDS)
            assert 1 <= len(seen) <= 2
            assert not damaged
            before = len(seen)
            nft("flush ruleset")
            await asyncio.sleep(3 * kernel_module.SETTLE_SECONDS)
            assert len(seen) > before
            assert damaged
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching

        with_kernel(work)

    def test_changes_are_made_in_the_order_in_which_they_were_asked_for(self) -> None:
        async def work(kernel: Kernel) -> None:
            await kernel.elements()
            key = ("client_mark4", "10.100.0.1")
            await asyncio.gather(*(kernel.apply({key: number}) for number in range(1, 50)))
            assert await kernel.elements() == {key: 49}

        with_kernel(work)


@pytest.mark.parametrize(
    ("command_line", "damaged"),
    [
        ("link set dev wg0mh-r2 down", True),
        ("link delete dev wg0mh-r2", True),
        ("link delete dev wg0access", True),
        ("link delete dev wg0ctl", True),
        ("link set dev wg0mh group 0", True),
        ("link set dev wg0mh-r2 mtu 1400", False),
        ("route delete default dev wg0mh-r2 table 100002", True),
        ("route delete 10.96.0.0/11 dev wg0access", True),
        ("address delete 10.31.33.7/32 dev wg0access", True),
        ("rule delete priority 4000", True),
        ("rule delete priority 4001", True),
        ("rule delete priority 4002", True),
        ("rule delete priority 4003", True),
        ("rule delete priority 4004", True),
        ("rule add priority 77 fwmark 5 lookup main", False),
        ("route add 192.0.2.0/24 dev uplink", False),
        ("link set dev uplink down", False),
        ("link add mine type veth peer name theirs", False),
    ],
)
def test_what_others_take_away_is_seen(command_line: str, damaged: bool) -> None:
    async def work(kernel: Kernel) -> None:
        seen = asyncio.Event()
        watching = asyncio.create_task(kernel.watch(lambda: None, seen.set))
        await asyncio.sleep(0.05)
        seen.clear()
        for attempt in ("ip", "ip -6") if command_line.startswith("rule delete") else ("ip",):
            command(*attempt.split(), *command_line.split())
        await asyncio.sleep(0.1)
        assert seen.is_set() == damaged
        assert kernel.links_missing() == command_line.startswith("link delete")
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching

    with fresh(), router(fleet(), "host-ams"):
        with_kernel(work)


def answering(path: Path, text: bytes) -> dict[tuple[str, str], float] | None:
    """What handshakes() makes of what the socket says."""

    async def run() -> dict[tuple[str, str], float] | None:
        async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(text)
            writer.close()

        async with await asyncio.start_unix_server(answer, path):
            return await handshakes()

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        (b"", {}),
        (
            b"wg0access\tkeyA=\t1700000000\nwg0mh-r2\tkeyB=\t0\n",
            {("wg0access", "keyA="): 1_700_000_000.0, ("wg0mh-r2", "keyB="): 0.0},
        ),
    ],
)
def test_handshakes_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: bytes, seen: dict[tuple[str, str], float]
) -> None:
    monkeypatch.setattr(kernel_module, "HANDSHAKES", str(tmp_path / "socket"))
    assert answering(tmp_path / "socket", text) == seen


def test_without_anybody_who_knows_there_are_no_handshakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_module, "HANDSHAKES", str(tmp_path / "socket"))
    assert asyncio.run(handshakes()) is None


@pytest.mark.parametrize("order", [1, -1])
def test_routing_rules_become_others(order: int) -> None:
    """As when a release wants other ones: the first rule goes elsewhere then, which is the same rule to the kernel."""
    wanted = _links.routing_rules(fleet(), "host-ams", "multihop")
    fewer = [{**rule, "action": "goto 4002"} if rule["priority"] == 4000 else rule for rule in wanted[2:]]
    before, after = [[rule for data in listed for rule in _rules.rules_from(data)] for listed in (fewer, wanted)][
        ::order
    ]
    with fresh():
        _interfaces.batch(_rules.steps(before, []))
        missing, surplus = (
            [rule for rule in after if rule not in before],
            [rule for rule in before if rule not in after],
        )
        assert missing
        _interfaces.batch(_rules.steps(missing, surplus))
        live = [rule for rule in _rules.live() if "detached" not in rule.selector]
        assert sorted(map(str, live)) == sorted(map(str, after))


def test_routes_that_lead_nowhere_come_and_go() -> None:
    """Those of each family as the kernel prints them, and one that another program has made is left alone."""
    data = _links.closed_routes(fleet())
    routes = [_link.route_from(route) for route in data]
    with fresh():
        command("ip", "route", "add", "blackhole", "198.51.100.0/24")
        found = []
        for wanted in (routes, routes, routes[1:], []):
            plan = Plan()
            _interfaces.compare_routes(wanted, _interfaces.routes_by_interface(), plan)
            plan.carry_out()
            found.append(
                (len(plan.actions), command("ip", "-4", "route", "show"), command("ip", "-6", "route", "show"))
            )
        assert [changes for changes, _four, _six in found] == [1, 0, 1, 1]
        assert "blackhole 10.96.0.0/11 proto 119 metric 4294967295" in found[0][1]
        assert found[0][2].count("blackhole") == 3
        assert found[0][1].count("blackhole") == 4
        assert found[2][1].count("blackhole") == 3
        assert found[3][1].split() == ["blackhole", "198.51.100.0/24"]
