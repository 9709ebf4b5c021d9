# Copyright (c) 2026 the warren.vpn authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kernel's side of sessions, for the rest of the agent: elements, flows, handshakes. Nothing here blocks the loop.

Changes of elements go through one thread, one after the other; flows through another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from .batches import Batches
from .config import Config
from .conntrack import Flows
from .tables import Key, Tables, Value, others_changed, watch

SETTLE_SECONDS = 0.02
"""After somebody else's transaction, so long until a look: a reload is more than one."""

HANDSHAKES = "/run/warrend-handshakes.sock"
"""``wg show all latest-handshakes``, run by root for whoever connects."""

T = TypeVar("T")


class Kernel:
    """Elements of maps, and flows."""

    def __init__(self, config: Config) -> None:
        """Connect to nftables and conntrack."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="kernel", initializer=Tables.own_thread)
        # Going through all flows takes its time: no client waits for that to be held.
        self._flow_thread = ThreadPoolExecutor(1, thread_name_prefix="flows")
        self._gate = {config.access_interface} if config.clients_connect else set()
        self._tables = Tables(config.clients_connect)
        self._flows = Flows()
        self._applied = Batches(self._apply)
        self._forgotten = Batches(self._forget)
        self._forwards_forgotten = Batches(self._forget_forwards)

    async def _run(self, function: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    async def _run_slowly(self, function: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._flow_thread, function, *arguments)

    async def elements(self) -> dict[Key, Value]:
        """All elements as they are."""
        return await self._run(self._tables.read)

    async def apply(self, wanted: Mapping[Key, Value | None]) -> None:
        """Give elements their wanted values, None for none, all at once."""
        await self._applied(wanted)

    async def _apply(self, batch: list[Mapping[Key, Value | None]]) -> None:
        await self._run(self._tables.apply, {key: value for wanted in batch for key, value in wanted.items()})

    async def restore(self, wanted: Mapping[Key, Value]) -> dict[Key, Value | None]:
        """Make the elements just those that are wanted, and let clients pass from then on.

        Returns:
            What was there instead of those that were not as wanted, None for nothing.
        """
        return await self._run(self._restore, wanted)

    def _restore(self, wanted: Mapping[Key, Value]) -> dict[Key, Value | None]:
        live = self._tables.read()
        changes: dict[Key, Value | None] = {key: value for key, value in wanted.items() if live.get(key) != value}
        changes |= {key: None for key in live if key not in wanted}
        closed = self._gate - self._tables.gates()
        if changes or closed:
            # The gate opens with all of them: tables that were loaded anew since they were read have none.
            self._tables.apply({**wanted, **changes} if closed else changes, closed)
        return {key: live.get(key) for key in changes}

    async def forget(self, addresses: Iterable[str]) -> None:
        """Forget every flow that one of these addresses began."""
        await self._forgotten(addresses)

    async def _forget(self, batch: list[Iterable[str]]) -> None:
        await self._run_slowly(self._flows.forget, [address for addresses in batch for address in addresses])

    async def forget_forwards(self, ports: Iterable[int]) -> None:
        """Forget every flow that came in by one of these forwarded ports."""
        await self._forwards_forgotten(ports)

    async def _forget_forwards(self, batch: list[Iterable[int]]) -> None:
        await self._run_slowly(self._flows.forget_forwards, [port for ports in batch for port in ports])

    async def exit_seed(self) -> int:
        """See ``Tables.exit_seed``."""
        return await self._run(self._tables.exit_seed)

    async def sweep(self, wrong: Callable[[str, int], bool], delete: bool = True) -> int:
        """Count and delete flows that should not be there, see ``Flows.sweep``."""
        return await self._run_slowly(self._flows.sweep, wrong, delete)

    async def watch(self, changed: Callable[[], None]) -> None:
        """Call a function whenever somebody else has changed anything in nftables. Runs until it is cancelled."""
        loop, seen = asyncio.get_running_loop(), asyncio.Event()
        sock = watch()

        def look() -> None:
            if others_changed(sock):
                seen.set()

        loop.add_reader(sock, look)
        try:
            while True:
                await seen.wait()
                await asyncio.sleep(SETTLE_SECONDS)
                seen.clear()
                changed()
        finally:
            loop.remove_reader(sock)
            sock.close()

    def close(self) -> None:
        """Finish what is under way."""
        self._thread.shutdown()
        self._flow_thread.shutdown()
        self._flows.close()


async def handshakes() -> dict[tuple[str, str], float]:
    """When each WireGuard peer last shook hands: Unix time by interface and public key, 0 for never.

    Nothing else of wg(8) gets here: the clients' real addresses are in it. Empty if nobody answers.
    """
    try:
        reader, writer = await asyncio.open_unix_connection(HANDSHAKES)
        listing = await reader.read()
        writer.close()
    except OSError:
        return {}
    rows = [line.split("\t") for line in listing.decode().splitlines()]
    return {(interface, key): float(seconds) for interface, key, seconds in rows}
