# Copyright (c) 2026 the warren.vpn authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""As an exit: which sessions of other servers' clients leave from here, for as long as their entries renew them."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from .config import Config, Server
from .conntrack import SESSION_KIND, flow_mark, handle
from .kernel import Kernel
from .refusals import TOO_MANY_SESSIONS, RefusedError
from .tables import Key, Value

LOG = logging.getLogger(__name__)

# An exit address must not follow from anything that another server or a website could know.
CHOOSE = random.SystemRandom().choice

EXPIRE_SECONDS = 1.0
AT_ONCE = 500
"""How many sessions end in one transaction, so that other changes come in between."""


@dataclass
class Lease:
    """One session.

    Attributes:
        entry: slug of the server it belongs to.
        session6: its IPv6 session address, if it has one.
        exit4, exit6: the exit addresses it leaves from; none for a family that it or this server lacks.
        until: when it ends unless it is renewed, by the monotonic clock.
    """

    entry: str
    session6: str | None
    exit4: str
    exit6: str | None
    until: float


SessionPair = tuple[str, str | None]
"""The IPv4 session address, by which a session is known here, and the IPv6 one."""


class Leases:
    """All sessions that leave from here, by IPv4 session address."""

    def __init__(self, config: Config, kernel: Kernel) -> None:
        """Start with none; :meth:`adopt` takes over what is there."""
        self._config, self._kernel = config, kernel
        self._leases: dict[str, Lease] = {}
        self._session4: dict[str, str] = {}
        self._numbers: Counter[str] = Counter()
        self._lock = asyncio.Lock()
        self.handles: set[int] = set()

    def elements(self) -> dict[Key, Value]:
        """The elements that the leases need."""
        wanted: dict[Key, Value] = {}
        for session4, lease in self._leases.items():
            wanted |= _elements(session4, lease)
        return wanted

    def count(self) -> dict[str, int]:
        """How many sessions each entry has here."""
        return {slug: self._numbers[slug] for slug in self._config.servers}

    def adopt(self, live: Mapping[Key, Value]) -> None:
        """Take over the elements that an earlier run of the agent left: their entries will renew them, or they end."""
        session6_of = {mark: address for (name, address), mark in live.items() if name == "session_flow6"}
        for (name, session4), exit4 in live.items():
            entry = self.entry_of(session4) if name == "session_exit4" else None
            if entry is None or exit4 not in self._config.exit4:
                continue
            session6 = session6_of.get(flow_mark(SESSION_KIND, session4))
            exit6 = live.get(("session_exit6", session6)) if session6 else None
            if session6 and (exit6 not in self._config.exit6 or not entry.speaks_for(session6)):
                session6 = exit6 = None
            lease = Lease(entry.slug, session6, str(exit4), str(exit6) if exit6 else None, self._deadline())
            self._note(session4, lease)

    def entry_of(self, address: str) -> Server | None:
        """The server whose session address this is."""
        servers = self._config.servers.values()
        return next((server for server in servers if server.speaks_for(address)), None)

    def session4_of(self, session6: str) -> str:
        """The IPv4 session address of the session that has an IPv6 one; empty if there is none."""
        return self._session4.get(session6, "")

    async def start(self, entry: Server, pairs: Sequence[SessionPair]) -> dict[str, str]:
        """Let sessions leave from here, from exit addresses picked at random.

        One that was there under one of these addresses ends: it may have been somebody else's.

        Returns:
            Exit address by session address; a family that this server lacks is left out.

        Raises:
            RefusedError: the entry has too many sessions here. Nothing was changed.
        """
        async with self._lock:
            return await self._add(entry, pairs)

    async def renew(self, entry: Server, pairs: Iterable[SessionPair], report_all: bool = False) -> dict[str, str]:
        """Keep sessions; those that are not there, for this server was restarted or did not hear of them, are made.

        Returns:
            Exit address by session address, of those that were made; with ``report_all``, of all.

        Raises:
            RefusedError: the entry has too many sessions here. Those that were there are kept.
        """
        async with self._lock:
            deadline, missing = self._deadline(), []
            reported: dict[str, str] = {}
            for session4, session6 in pairs:
                lease = self._leases.get(session4)
                if lease and not lease.session6 and session6 not in self._session4 and not self._config.exit6:
                    # The kernel has nothing of IPv6 here, from which an agent that starts could know it.
                    self._set_session6(session4, lease, session6)
                if lease is None or lease.session6 != session6:
                    missing.append((session4, session6))
                else:
                    lease.until = deadline
                    if report_all:
                        reported |= _answer(session4, lease)
            return reported | await self._add(entry, missing)

    async def stop(self, pairs: Iterable[SessionPair]) -> int:
        """End sessions. Returns how many there were."""
        async with self._lock:
            known = [session4 for session4, _session6 in pairs if session4 in self._leases]
            await self._end(known)
            return len(known)

    async def expire(self) -> None:
        """End sessions that nobody renews. Runs until it is cancelled."""
        while True:
            await asyncio.sleep(EXPIRE_SECONDS)
            now = time.monotonic()
            over = [session4 for session4, lease in self._leases.items() if lease.until < now]
            for start in range(0, len(over), AT_ONCE):
                async with self._lock:
                    now = time.monotonic()  # some may have been renewed since
                    batch = [session4 for session4 in over[start : start + AT_ONCE] if session4 in self._leases]
                    await self._end([session4 for session4 in batch if self._leases[session4].until < now])
            if over:
                LOG.info("%d sessions were not renewed in time and ended", len(over))

    async def _add(self, entry: Server, pairs: Sequence[SessionPair]) -> dict[str, str]:
        if not pairs:
            return {}
        known = {self._session4.get(session6 or "", session4) for session4, session6 in pairs}
        before = {session4 for session4 in known | {pair[0] for pair in pairs} if session4 in self._leases}
        if self._numbers[entry.slug] - len(before) + len(pairs) > self._config.clients.most_sessions:
            raise RefusedError(TOO_MANY_SESSIONS, slug=entry.slug, most=self._config.clients.most_sessions)
        await self._end(before)
        # Noted first, so that whoever puts elements right meanwhile does not take them for surplus.
        deadline = self._deadline()
        wanted: dict[Key, Value] = {}
        made: dict[str, str] = {}
        for session4, session6 in pairs:
            exit6 = CHOOSE(self._config.exit6) if session6 and self._config.exit6 else None
            lease = Lease(entry.slug, session6, CHOOSE(self._config.exit4), exit6, deadline)
            self._note(session4, lease)
            wanted |= _elements(session4, lease)
            made |= _answer(session4, lease)
        await self._kernel.apply(wanted)
        return made

    async def _end(self, sessions: Collection[str]) -> None:
        if not sessions:
            return
        surplus: dict[Key, Value | None] = {}
        for session4 in sessions:
            lease = self._leases.pop(session4)
            surplus |= dict.fromkeys(_elements(session4, lease))
            self._session4.pop(lease.session6 or "", None)
            self._numbers[lease.entry] -= 1
            self.handles.discard(handle(session4))
        # The element first: what comes then finds no exit address and is dropped.
        await self._kernel.apply(surplus)
        await self._kernel.forget(sessions)

    def _note(self, session4: str, lease: Lease) -> None:
        self._leases[session4] = lease
        self._numbers[lease.entry] += 1
        self.handles.add(handle(session4))
        self._set_session6(session4, lease, lease.session6)

    def _set_session6(self, session4: str, lease: Lease, session6: str | None) -> None:
        lease.session6 = session6
        if session6:
            self._session4[session6] = session4

    def _deadline(self) -> float:
        return time.monotonic() + self._config.lease_seconds


def _elements(session4: str, lease: Lease) -> dict[Key, Value]:
    mark = flow_mark(SESSION_KIND, session4)
    wanted: dict[Key, Value] = {("session_flow4", session4): mark, ("session_exit4", session4): lease.exit4}
    if lease.session6 and lease.exit6:
        wanted |= {
            ("session_flow6", lease.session6): mark,
            ("session_exit6", lease.session6): lease.exit6,
        }
    return wanted


def _answer(session4: str, lease: Lease) -> dict[str, str]:
    return {session4: lease.exit4} | ({lease.session6: lease.exit6} if lease.session6 and lease.exit6 else {})
