"""The kernel's side as the event loop sees it, in a network namespace."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fleets import config, fleet
from namespaces import command, flows, fresh, load_tables, nft, send_over_lo
from test_conntrack import OWN_KIND, rules
from warrend import kernel as kernel_module
from warrend.conntrack import flow_mark
from warrend.kernel import Kernel, handshakes
from warrend.tables import Key, Tables, TablesError, TablesGoneError, Value

ALICE: dict[Key, Value] = {
    ("client_mark4", "10.100.0.1"): 0x7000_0002,
    ("client_session4", "10.100.0.1"): "10.128.128.9",
}
BOB: dict[Key, Value] = {("client_mark6", "fd57::b"): 0x7FFF_FFFE}
OPEN = {"wg0access"}


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


def gates() -> set[str]:
    listing = command("nft", "list", "set", "inet", "warren_multihop", "ready")
    return {"wg0access"} if "wg0access" in listing else set()


class TestInTheKernel:
    @pytest.fixture(autouse=True)
    def tables(self) -> Iterator[None]:
        with fresh():
            load_tables(fleet(), "host-ams")
            yield

    def test_clients_pass_once_the_elements_are_there(self) -> None:
        async def work(kernel: Kernel) -> None:
            assert await kernel.elements() == {}
            assert gates() == set()
            assert sorted(await kernel.restore(ALICE)) == sorted(ALICE)
            assert gates() == OPEN
            assert await kernel.elements() == ALICE
            assert await kernel.restore(ALICE) == {}

        with_kernel(work)

    def test_without_sessions_clients_pass_too(self) -> None:
        async def work(kernel: Kernel) -> None:
            assert await kernel.restore({}) == {}
            assert gates() == OPEN

        with_kernel(work)

    def test_a_server_without_clients_has_no_gate(self) -> None:
        async def work(kernel: Kernel) -> None:
            nft("delete table inet warren_access")
            await kernel.restore({})
            assert gates() == set()

        with_kernel(work, clients=False)

    def test_surplus_elements_go_and_wrong_ones_are_put_right(self) -> None:
        async def work(kernel: Kernel) -> None:
            await kernel.restore(ALICE | BOB)
            nft(
                """
                flush map inet warren_multihop client_session4
                add element inet warren_multihop session_exit4 { 10.129.0.5 : 203.0.113.13 }
                delete element inet warren_multihop client_mark4 { 10.100.0.1 }
                add element inet warren_multihop client_mark4 { 10.100.0.1 : 5 }
                """
            )
            wrong = [("client_mark4", "10.100.0.1"), ("client_session4", "10.100.0.1"), ("session_exit4", "10.129.0.5")]
            assert sorted(await kernel.restore(ALICE | BOB)) == wrong
            assert await kernel.elements() == ALICE | BOB

        with_kernel(work)

    def test_tables_that_were_made_anew_open_when_all_is_there_again(self) -> None:
        async def work(kernel: Kernel) -> None:
            await kernel.restore(ALICE)
            nft("delete table inet warren_multihop")
            load_tables(fleet(), "host-ams", "multihop")
            assert gates() == set()
            assert sorted(await kernel.restore(ALICE)) == sorted(ALICE)
            assert gates() == OPEN

        with_kernel(work)

    def test_tables_that_are_made_anew_meanwhile_open_with_all_that_is_wanted(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As when nftables.service is restarted between two looks at what is live."""

        async def work(kernel: Kernel) -> None:
            await kernel.restore(ALICE)
            look = Tables.gates

            def gates_of_new_tables(tables: Tables) -> set[str]:
                nft("delete table inet warren_multihop")
                load_tables(fleet(), "host-ams", "multihop")
                return look(tables)

            monkeypatch.setattr(Tables, "gates", gates_of_new_tables)
            await kernel.restore(ALICE)
            assert gates() == OPEN
            assert await kernel.elements() == ALICE

        with_kernel(work)

    def test_the_gate_stays_shut_when_the_elements_cannot_be_there(self) -> None:
        async def work(kernel: Kernel) -> None:
            with pytest.raises(TablesError):
                await kernel.restore({**ALICE, ("client_session4", "10.100.0.2"): "fd57::1"})
            assert gates() == set()
            assert await kernel.elements() == {}

        with_kernel(work)

    def test_a_table_that_is_gone_ends_whoever_asks(self) -> None:
        async def work(kernel: Kernel) -> None:
            nft("delete table inet warren_access")
            with pytest.raises(TablesGoneError):
                await kernel.elements()
            with pytest.raises(TablesGoneError):
                await kernel.restore({})

        with_kernel(work)

    def test_flows_are_forgotten_and_swept(self) -> None:
        async def work(kernel: Kernel) -> None:
            rules(OWN_KIND)
            for address in ("10.100.0.1", "10.100.0.2", "10.100.0.3", "fd57::b"):
                send_over_lo(address)
            await kernel.forget(iter(["10.100.0.1", "fd57::b"]))
            assert {address for address, _port in flows()} == {"10.100.0.2", "10.100.0.3"}
            assert (
                await kernel.sweep(lambda address, mark: address == "10.100.0.2" and mark >> 28 == OWN_KIND, False) == 1
            )
            assert await kernel.sweep(lambda address, _kind: address == "10.100.0.2") == 1
            assert {address for address, _port in flows()} == {"10.100.0.3"}

        with_kernel(work)

    def test_what_others_do_is_reported_and_what_we_do_is_not(self) -> None:
        async def work(kernel: Kernel) -> None:
            seen: list[None] = []
            watching = asyncio.create_task(kernel.watch(lambda: seen.append(None)))
            await asyncio.sleep(0)
            await kernel.restore(ALICE)
            await kernel.apply(BOB)
            await asyncio.sleep(3 * kernel_module.SETTLE_SECONDS)
            assert not seen
            for number in range(5):  # a reload is more than one transaction
                nft(f"add table inet other{number}")
            await asyncio.sleep(3 * kernel_module.SETTLE_SECONDS)
            assert 1 <= len(seen) <= 2
            before = len(seen)
            nft("flush ruleset")
            await asyncio.sleep(3 * kernel_module.SETTLE_SECONDS)
            assert len(seen) > before
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


def test_the_hash_of_an_address_has_no_bit_of_the_kinds() -> None:
    assert all(flow_mark(bytes([10, 0, 0, n])) & 0xF000_0000 == 0x4000_0000 for n in range(200))


def answering(path: Path, text: bytes) -> dict[tuple[str, str], float]:
    """What handshakes() makes of what the socket says."""

    async def run() -> dict[tuple[str, str], float]:
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
    assert asyncio.run(handshakes()) == {}
