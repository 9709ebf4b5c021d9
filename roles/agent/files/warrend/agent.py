# Copyright (c) 2026 the warren.vpn authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent as a whole: its parts, and how they start, agree with the kernel, and end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from pathlib import Path

from . import clients
from .clients import ClientsError
from .config import Config
from .conntrack import EXIT_KIND, FORWARD_KIND, HANDLES, OWN_KIND, SESSION_KIND
from .entry import Entry
from .exits import Exit, http_session
from .kernel import Kernel, put_back
from .leases import Leases
from .metrics import Metrics
from .store import Store
from .tables import FORWARD_MAPS, Key, TablesError, TablesGoneError, Value

LOG = logging.getLogger(__name__)

AUDIT_SECONDS = 60.0
"""How often the elements are compared with what they should be, even if the kernel reports no change."""

PUT_BACK_SECONDS = 1.0
"""The shortest time between two repairs by root: each takes a processor half a second."""


class Agent:
    """What this server is as an entry and as an exit, and the work that goes on by itself."""

    def __init__(self, config: Config, directory: Path) -> None:
        """Open the database in a directory, and connect to the kernel."""
        self.config = config
        self.metrics = Metrics()
        self.kernel = Kernel(config)
        self.http = http_session(limit_per_host=8, keepalive_timeout=max(75, config.lease_seconds))
        exits = {
            s.slug: Exit(s, config, self.http, self.metrics) for s in config.servers.values() if s.mark is not None
        }
        self.leases = Leases(config, self.kernel)
        self.entry = Entry(config, Store(directory / "sessions.db"), self.kernel, exits, self.metrics)
        self.metrics.gauges(self._gauges)
        self._changed, self._damaged = asyncio.Event(), asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._reloading = asyncio.Lock()
        self._half_reloaded: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._clients_file_broken = False

    async def start(self) -> None:
        """Put the sessions on disk in the kernel, let clients pass, and begin to look after them.

        Raises:
            TablesGoneError: the table is not there, and cannot be put back.
        """
        try:
            live = await self._found()
        except TablesGoneError:
            await put_back()
            live = await self._found()
        self.leases.adopt(live)
        await self.entry.load(live)
        await self.restore()
        works: list[Callable[[], Awaitable[None]]] = [
            self._sweep,
            self._audit,
            self._put_back,
            lambda: self.kernel.watch(self._changed.set, self._damaged.set),
            self.leases.expire,
            self.entry.watch_liveness,
            *(partial(self.entry.renewals.maintain, exit_) for exit_ in self.entry.exits.values()),
        ]
        self._tasks = [asyncio.create_task(self._guarded(work)) for work in works]

    async def reload(self) -> None:
        """Read the clients again, and let those connect that are in the file now.

        Raises:
            ClientsError: the file cannot be used; all stays as it was.
            TablesError, OSError: the kernel has refused; :meth:`wait` raises too.
        """
        async with self._reloading:
            try:
                new = await asyncio.to_thread(clients.load)
            except ClientsError as error:
                self._clients_file_broken = True
                LOG.error("%s; the clients of before stay", error)  # noqa: TRY400 - it says all
                raise
            self._clients_file_broken = False
            try:
                await self.entry.replace_clients(new)
            except Exception:
                # The next start does the rest, and leaves everybody's traffic as it is.
                if not self._half_reloaded.done():
                    why = "the elements of clients that come and go could not be changed"
                    self._half_reloaded.set_exception(TablesError(why))
                raise

    async def wait(self) -> None:
        """Wait until some of the work in the background has failed, and raise what it failed with."""
        done, _pending = await asyncio.wait({*self._tasks, self._half_reloaded}, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()

    async def _guarded(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run work in the background. Without its table it waits: `_audit` has that put back, or ends the agent."""
        while True:
            try:
                return await work()
            except TablesGoneError:
                if work == self._audit:
                    raise
                self._changed.set()
                await asyncio.sleep(PUT_BACK_SECONDS)

    async def _found(self) -> dict[Key, Value]:
        """The elements that are there, once all is there that the agent reads of the table."""
        if self.config.clients_connect:
            self.entry.exit_seed = await self.kernel.exit_seed()
        return await self.kernel.elements()

    async def restore(self) -> None:
        """Make the kernel's elements what they should be."""
        if self.config.clients_connect:
            self.entry.exit_seed = await self.kernel.exit_seed()
        wanted = self._wanted()
        changed = await self.kernel.restore(wanted)
        if changed:
            self.metrics.repairs.inc(len(changed))
            LOG.info("%d elements put right, of %d", len(changed), len(wanted))
            # What was only missing let nobody pass, but for a chosen exit address.
            maps = {key: was for key, was in changed.items() if key[0] not in FORWARD_MAPS}
            wrong = {address for (name, address), was in maps.items() if was is not None or "choice" in name}
            known = {self._ipv4(address) for address in wrong}
            await self.kernel.forget(known - {""})
            if "" in known:  # nobody's any more, so nobody else ends its flows
                await self._sweep()
            ports = {int(port) for (name, port), was in changed.items() if name in FORWARD_MAPS and was is not None}
            if ports:
                await self.kernel.forget_forwards(ports)

    def _ipv4(self, address: str) -> str:
        """The IPv4 address of the client or session that has an address; empty if there is none any more."""
        if ":" not in address:
            return address
        client = self.config.clients.at(address)
        return client.address4 if client else self.leases.session4_of(address)

    def _wanted(self) -> dict[Key, Value]:
        return {**self.entry.elements(), **self.leases.elements()}

    async def _audit(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), AUDIT_SECONDS)
            self._changed.clear()
            try:
                await self.restore()
            except TablesGoneError:
                await put_back()
                await self.restore()
            if self.kernel.links_missing():
                self._damaged.set()

    async def _put_back(self) -> None:
        """Have root put back what others take away; at the start, what they took while no agent ran."""
        while True:
            self._damaged.clear()
            if not await put_back():
                self._damaged.set()  # and so it is asked for again
            await self.entry.liveness.refresh()
            await asyncio.sleep(PUT_BACK_SECONDS)
            await self._damaged.wait()

    async def _sweep(self) -> None:
        """Forget flows that an earlier run of the agent did not get to."""
        await self.kernel.sweep(self._wrong)

    def _wrong(self, mark: int) -> bool:
        # Looked up, for this is asked for each flow of the host, in the kernel's thread.
        kind, number = mark >> 28, mark % HANDLES
        if kind == FORWARD_KIND:
            return mark not in self.entry.forwards.marks
        if kind == SESSION_KIND:
            return number not in self.leases.handles
        client4 = self.config.clients.address_of_handle(number)
        session = client4 in self.entry.sessions
        return (kind == OWN_KIND and session) or (kind == EXIT_KIND and not session)

    async def check(self) -> dict[str, int]:
        """How many elements, flows and files are not as they should be; for tests and people who doubt."""
        live, wanted = await self.kernel.elements(), self._wanted()
        return {
            "missing_elements": sum(live.get(key) != value for key, value in wanted.items()),
            "surplus_elements": sum(key not in wanted for key in live),
            "wrong_flows": await self.kernel.sweep(self._wrong, False),
            "broken_clients_file": int(self._clients_file_broken),
            "sessions": len(self.entry.sessions),
            "choices": len(self.entry.choices),
            "forwards": len(self.entry.forwards),
            "leases": sum(self.leases.count().values()),
        }

    def _gauges(self) -> Iterable[tuple[str, str, str, dict[str, float]]]:
        by_exit = dict.fromkeys(self.entry.exits, 0.0)
        states = dict.fromkeys(("active", "blocked", "held"), 0.0)
        for session in self.entry.sessions.values():
            by_exit[session.row.exit] = by_exit.get(session.row.exit, 0.0) + 1
            states[session.state.value] += 1
        exits = self.entry.exits.values()
        yield "warren_sessions", "Sessions of clients of this server", "exit", by_exit
        yield "warren_sessions_by_state", "Sessions of clients of this server", "state", states
        forwards = {self.config.slug: float(len(self.entry.forwards))}
        yield "warren_forwards", "Ports forwarded to clients of this server", "entry", forwards
        yield (
            "warren_leases",
            "Sessions that leave from here",
            "entry",
            {k: float(v) for k, v in self.leases.count().items()},
        )
        yield (
            "warren_exit_up",
            "Whether the backend answers",
            "exit",
            {e.server.slug: float(e.reachable) for e in exits},
        )
        yield "warren_exit_link_up", "Whether the link is up", "exit", {e.server.slug: float(e.link_up) for e in exits}
        times = {e.server.slug: e.round_trip for e in exits if e.round_trip is not None}
        yield "warren_exit_round_trip_seconds", "Of the last probe of the backend", "exit", times

    async def close(self) -> None:
        """End in order. The kernel stays as it is."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.entry.close()
        await self.http.close()
        self.kernel.close()


__all__ = ["Agent", "TablesGoneError"]
