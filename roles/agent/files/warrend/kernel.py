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

from . import links
from .batches import Batches
from .config import Config
from .conntrack import Flows, handle
from .tables import Key, Tables, Value, others_changed, watch

SETTLE_SECONDS = 0.02
"""So long after somebody else's transaction the elements are compared: a reload of nftables is more than one."""

HANDSHAKES = "/run/warrend-handshakes.sock"
"""``wg show all latest-handshakes``, run by root for whoever connects."""

RESTORE = "/run/warrend-restore.sock"
"""Whoever connects has root put back what the last run of site.yml wanted, and hears no more once that is done."""

T = TypeVar("T")


class Kernel:
    """Changes elements of maps and flows, in threads."""

    def __init__(self, config: Config) -> None:
        """Connect to nftables and conntrack."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="kernel", initializer=Tables.own_thread)
        # Going through all flows takes its time: no client waits for that to be held.
        self._flow_thread = ThreadPoolExecutor(1, thread_name_prefix="flows")
        self._tables = Tables(config.clients_connect)
        self._links = config.links
        self._flows = Flows()
        self._applied = Batches(self._apply)
        self._forgotten = Batches(self._forget)
        self._forwards_forgotten = Batches(self._forget_forwards)

    async def _run(self, function: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    async def _run_slowly(self, function: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._flow_thread, function, *arguments)

    async def elements(self) -> dict[Key, Value]:
        """Read all elements."""
        return await self._run(self._tables.read)

    async def apply(self, wanted: Mapping[Key, Value | None]) -> None:
        """Give elements their wanted values, None for none, all at once."""
        await self._applied(wanted)

    async def _apply(self, batch: list[Mapping[Key, Value | None]]) -> None:
        await self._run(self._tables.apply, {key: value for wanted in batch for key, value in wanted.items()})

    async def restore(self, wanted: Mapping[Key, Value]) -> dict[Key, Value | None]:
        """Make the elements just those that are wanted.

        Returns:
            What was there instead of those that were not as wanted, None for nothing.
        """
        return await self._run(self._restore, wanted)

    def _restore(self, wanted: Mapping[Key, Value]) -> dict[Key, Value | None]:
        live = self._tables.read()
        changes: dict[Key, Value | None] = {key: value for key, value in wanted.items() if live.get(key) != value}
        changes |= {key: None for key in live if key not in wanted}
        if changes:
            # What lets a client pass comes together with all the rest: a table that was loaded anew since has none.
            self._tables.apply({**wanted, **changes}, anyway=True)
        return {key: live.get(key) for key in changes}

    async def forget(self, addresses: Iterable[str]) -> None:
        """Forget every flow, of both families, of clients or sessions, named by their IPv4 addresses."""
        await self._forgotten(addresses)

    async def _forget(self, batch: list[Iterable[str]]) -> None:
        await self._run_slowly(self._flows.forget, {handle(address) for addresses in batch for address in addresses})

    async def forget_forwards(self, ports: Iterable[int]) -> None:
        """Forget every flow that came in by one of these forwarded ports."""
        await self._forwards_forgotten(ports)

    async def _forget_forwards(self, batch: list[Iterable[int]]) -> None:
        await self._run_slowly(self._flows.forget_forwards, [port for ports in batch for port in ports])

    async def exit_seed(self) -> int:
        """See ``Tables.exit_seed``."""
        return await self._run(self._tables.exit_seed)

    async def sweep(self, wrong: Callable[[int], bool], delete: bool = True) -> int:
        """Count and delete flows that should not be there, see ``Flows.sweep``."""
        return await self._run_slowly(self._flows.sweep, wrong, delete)

    async def watch(self, changed: Callable[[], None], damaged: Callable[[], None]) -> None:
        """Watch what others do, until it is cancelled.

        Args:
            changed: called whenever somebody else has changed anything in nftables.
            damaged: called whenever a table, a link, a route or a routing rule of ours is not what it was.
        """
        loop, seen = asyncio.get_running_loop(), asyncio.Event()
        with watch() as tables, links.watch() as network:

            def read_table_events() -> None:
                foreign, ours = others_changed(tables)
                if foreign:
                    seen.set()
                if ours:
                    damaged()

            def read_link_events() -> None:
                if links.damaged(network, self._links):
                    damaged()

            loop.add_reader(tables, read_table_events)
            loop.add_reader(network, read_link_events)
            try:
                while True:
                    await seen.wait()
                    await asyncio.sleep(SETTLE_SECONDS)
                    seen.clear()
                    changed()
            finally:
                loop.remove_reader(tables)
                loop.remove_reader(network)

    def links_missing(self) -> bool:
        """Whether any WireGuard link of this server is missing."""
        return links.missing(self._links)

    def close(self) -> None:
        """Finish what is under way."""
        self._thread.shutdown()
        self._flow_thread.shutdown()
        self._flows.close()


async def handshakes() -> dict[tuple[str, str], float] | None:
    """When each WireGuard peer last shook hands: Unix time by interface and public key, 0 for never.

    Nothing else of wg(8) gets here: the clients' real addresses are in it. None if nobody answers.
    """
    try:
        listing = await _read_all(HANDSHAKES)
    except OSError:
        return None
    rows = [line.split("\t") for line in listing.decode().splitlines()]
    return {(interface, key): float(seconds) for interface, key, seconds in rows}


async def put_back() -> bool:
    """Have root put back what somebody has taken away; return once that was tried. Whether there was anybody to ask."""
    try:
        await _read_all(RESTORE)
    except OSError:
        return False
    return True


async def _read_all(path: str) -> bytes:
    """Read all that the service behind a socket sends."""
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        return await reader.read()
    finally:
        writer.close()
