# Copyright (c) 2026 the warren.vpn authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The sessions of this server's clients, from the start to the end. Whoever starts or ends one has the client's lock.

A client with a session leaves from its exit or not at all. So the client's packets are held, and the session is on
disk, before the exit is asked; they go to the exit once it has agreed, and to nowhere if it does not. Only the end of
the session brings the client back to this server's own exit addresses.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NoReturn

from .clients import Client
from .conntrack import EXIT_KIND, flow_mark
from .exits import Exit, ExitError
from .holds import Holds, mark_elements, own_way_elements
from .liveness import Liveness
from .pool import Pool
from .refusals import AWAY, DISK, EXIT_IS_HERE, UNKNOWN_EXIT, AwayError, RefusedError
from .session_states import Event, Session, State
from .shared import Shared
from .store import DiskError, SessionRow
from .tables import Key, TablesError, Value

LOG = logging.getLogger(__name__)

STOP_SECONDS = 2.0
"""The end of a session waits so long for the exit to agree; the lease ends it there anyway."""


class Sessions(Mapping[str, Session]):
    """The sessions, by IPv4 tunnel address.

    Attributes:
        by_client: they themselves.
        pool: their addresses.
        wakeups: by an exit's slug, what has it asked again at once (``renewals.py``).
    """

    def __init__(self, shared: Shared, exits: Mapping[str, Exit], holds: Holds, liveness: Liveness) -> None:
        """There are none; :meth:`load` takes those on disk."""
        self._shared, self._exits, self._holds, self._liveness = shared, exits, holds, liveness
        self.by_client: dict[str, Session] = {}
        self.pool = Pool(shared.config, shared.metrics)
        self.wakeups: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)

    def __getitem__(self, client4: str) -> Session:
        return self.by_client[client4]

    def __contains__(self, client4: object) -> bool:
        """Whether a client has one; asked for each flow of the host, in another thread."""
        return client4 in self.by_client

    def __iter__(self) -> Iterator[str]:
        """The clients that have one."""
        return iter(self.by_client)

    def __len__(self) -> int:
        return len(self.by_client)

    async def load(self, rows: Iterable[SessionRow]) -> None:
        """Take what is on disk, but for clients that are not there any more. It is not in the kernel yet."""
        disk, clients, began = self._shared.disk, self._shared.config.clients, time.monotonic()
        for row in rows:
            state = State.ACTIVE if row.exit in self._exits else State.BLOCKED
            self.by_client[row.client4] = Session(row, state, began)
            self.pool.take((row.session4, row.session6))
        gone = [client4 for client4 in self.by_client if client4 not in clients]
        if gone:
            LOG.info("%d sessions end: their clients are not in the inventory any more", len(gone))
            await disk.run(disk.store.drop_sessions, gone)
            ended = [session for client4 in gone for session in self.discard(client4)]
            self._shared.background.start(self.tell_end(ended))
        for client4, session in self.by_client.items():
            client = clients[client4]
            row = replace(session.row, client6=client.address6)  # or it would leave from here by its new one
            if not self._is_of_our_prefix(row):  # the pool is another one now, and the exit would refuse
                row = replace(self._row(client, row.exit), since=row.since)
            if row != session.row:
                session.row = row
                await disk.run(disk.store.put_sessions, [row])

    def _is_of_our_prefix(self, row: SessionRow) -> bool:
        config = self._shared.config
        networks = (row.session4, config.session4), (row.session6, config.session6)
        return all(ipaddress.ip_address(address) in network for address, network in networks)

    # --- elements

    def elements(self) -> dict[Key, Value]:
        """The elements that all of them need."""
        return {key: value for client4 in self.by_client for key, value in self.of(client4).items()}

    def of(self, client4: str) -> dict[Key, Value]:
        """The elements that the session of one client needs; none if it has none."""
        session = self.by_client.get(client4)
        return {k: v for k, v in self._elements(session).items() if v is not None} if session else {}

    def _elements(self, session: Session) -> dict[Key, Value | None]:
        row, active, config = session.row, session.state is State.ACTIVE, self._shared.config
        exit_ = self._exits.get(row.exit)
        marks = {State.HELD: config.hold_mark, State.BLOCKED: config.block_mark}
        mark = marks.get(session.state) or (exit_.server.mark if exit_ else None) or config.block_mark
        flow = flow_mark(EXIT_KIND, row.client4)
        return {
            **mark_elements(row.client4, row.client6, mark),
            ("client_flow4", row.client4): flow if active else None,
            ("client_flow6", row.client6): flow if active else None,
            ("client_session4", row.client4): row.session4 if active else None,
            ("client_session6", row.client6): row.session6 if active else None,
        }

    def _elements_without(self, session: Session) -> dict[Key, Value | None]:
        """What its client needs when a session is no more."""
        row = session.row
        return {**dict.fromkeys(self._elements(session)), **own_way_elements(row.client4, row.client6)}

    async def advance(self, session: Session, event: Event) -> None:
        """Have a session go on, and its client's packets with it."""
        session.advance(event)
        await self._shared.kernel.apply(self._elements(session))

    # --- start

    def exit_of(self, slug_or_name: str) -> Exit:
        """The exit of this slug or name.

        Raises:
            RefusedError: there is none.
        """
        config = self._shared.config
        server = config.exit(slug_or_name)
        if server is not None:
            return self._exits[server.slug]
        self._shared.metrics.failures.labels("unknown_exit").inc()
        if slug_or_name == config.slug:
            raise RefusedError(EXIT_IS_HERE, exit=slug_or_name)
        raise RefusedError(UNKNOWN_EXIT, exit=slug_or_name, exits=", ".join(sorted(self._exits)) or "none")

    async def start(self, client: Client, exit_: Exit) -> Session:
        """Have a client leave by an exit; return once its traffic flows.

        Raises:
            RefusedError: it cannot be, and nothing was changed.
            AwayError: the exit does not answer. The client stays blocked, and gets through when the exit answers.
        """
        before = self.by_client.get(client.address4)
        if before and before.row.exit == exit_.server.slug:
            if before.state is not State.ACTIVE:
                await self._reach(before, exit_)
            return before
        session = Session(self._row(client, exit_.server.slug), State.HELD, time.monotonic())
        self.by_client[client.address4] = session
        # Held before it is on disk: see Holds.hold_again.
        await self._hold(session, before)
        session.row = replace(session.row, since=time.time())
        try:
            await self._shared.disk.put_session(session.row)
            self._holds.end(client.address4)
            if before:
                before.advance(Event.REPLACED)
                self._shared.background.start(self.tell_end([before]))
            await asyncio.gather(self._reach(session, exit_), self._shared.kernel.forget([client.address4]))
        except DiskError as error:
            await self._undo(session, before)
            raise RefusedError(DISK) from error
        except (TablesError, OSError):
            session.advance(Event.FAILED)  # and its renewal takes it from here
            self.wakeups[exit_.server.slug].set()
            raise
        self._shared.metrics.starts.labels(exit_.server.slug).inc()
        return session

    def _row(self, client: Client, slug: str) -> SessionRow:
        return SessionRow(client.address4, client.address6, slug, *self.pool.draw(), time.time())

    async def _hold(self, session: Session, before: Session | None) -> None:
        """Hold a client; if that fails, all is as it was before."""
        try:
            await self._shared.kernel.apply(self._elements(session))
        except TablesError:
            self._take_back(session, before)
            raise

    def _take_back(self, session: Session, before: Session | None) -> None:
        session.advance(Event.UNDONE)
        self.pool.release(session.pair)
        if before:
            self.by_client[session.row.client4] = before
        else:
            del self.by_client[session.row.client4]

    async def _undo(self, session: Session, before: Session | None) -> None:
        """Let a held client go the way it went before."""
        self._take_back(session, before)
        await self._shared.kernel.apply(self._elements(before) if before else self._elements_without(session))

    async def _reach(self, session: Session, exit_: Exit) -> None:
        """Ask the exit for a session, and let the client through or tell it that there is no way."""
        try:
            session.addresses = await exit_.start(session.pair)
        except ExitError as error:
            self._shared.metrics.failures.labels(error.reason).inc()
            await self._block_and_raise(session, exit_, str(error), error)
        if not exit_.link_up:
            await self._liveness.refresh()
        if not exit_.link_up:
            self._shared.metrics.failures.labels("link").inc()
            await self._block_and_raise(session, exit_, f"the link to {exit_.server.slug} is down")
        await self.advance(session, Event.REACHED)

    async def _block_and_raise(
        self, session: Session, exit_: Exit, why: str, error: Exception | None = None
    ) -> NoReturn:
        await self.advance(session, Event.AWAY)
        self.wakeups[exit_.server.slug].set()
        raise AwayError(AWAY, why=why) from error

    # --- end

    async def end(self, sessions: Sequence[Session], reason: str) -> None:
        """End sessions; return once their clients leave from this server again. Their exits are not told yet.

        Args:
            sessions: which.
            reason: a word for the metrics.

        Raises:
            RefusedError: the disk takes nothing; they go on.
        """
        shared = self._shared
        clients4 = [session.row.client4 for session in sessions]
        held: dict[Key, Value | None] = {}
        over: dict[Key, Value | None] = {}
        for session in sessions:
            session.advance(Event.ENDING)
            held |= self._elements(session)
            over |= self._elements_without(session)
        try:
            await shared.kernel.apply(held)
            await shared.disk.run(shared.disk.store.drop_sessions, clients4)
        except (DiskError, TablesError, OSError) as error:
            await self._go_on(sessions, apply=isinstance(error, DiskError))
            if isinstance(error, DiskError):
                raise RefusedError(DISK) from error
            raise
        await shared.kernel.forget(clients4)
        for session in sessions:  # before the elements, or whoever puts those right would add them again
            session.advance(Event.ENDED)
            self.by_client.pop(session.row.client4, None)
        await shared.kernel.apply(over)
        shared.metrics.ends.labels(reason).inc(len(sessions))

    async def _go_on(self, sessions: Sequence[Session], apply: bool) -> None:
        """Block sessions that could not be ended; their renewal lets them go on."""
        for session in sessions:
            session.advance(Event.FAILED)
            self.wakeups[session.row.exit].set()
        for session in sessions if apply else ():
            await self._shared.kernel.apply(self._elements(session))

    def discard(self, client4: str) -> list[Session]:
        """Know nothing of a client's session any more; that session, if it had one."""
        session = self.by_client.pop(client4, None)
        if session is None:
            return []
        session.advance(Event.REMOVED)
        return [session]

    def move(self, client: Client) -> None:
        """Have the session of a client, if it has one, be of its other IPv6 address."""
        session = self.by_client.get(client.address4)
        if session:
            session.row = replace(session.row, client6=client.address6)

    async def tell_end(self, sessions: Sequence[Session]) -> bool:
        """Tell exits that sessions are over, and have their addresses back. Whether all of them know."""
        all_know = True
        current = self._addresses()
        for slug in {session.row.exit for session in sessions}:
            pairs = [s.pair for s in sessions if s.row.exit == slug and not current.intersection(s.pair)]
            try:
                if slug in self._exits:
                    await asyncio.wait_for(self._exits[slug].stop(pairs), STOP_SECONDS)
            except (TimeoutError, ExitError):
                all_know = False
        self.pool.release({address for session in sessions for address in session.pair} - self._addresses())
        return all_know

    def _addresses(self) -> set[str]:
        return {address for session in self.by_client.values() for address in session.pair}
