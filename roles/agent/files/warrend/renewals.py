# Copyright (c) 2026 the warren.vpn authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sees that exits answer, and renews the sessions of this server's clients there."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Iterable

from .exits import Exit, ExitError
from .session_states import Event, Session, State
from .sessions import Sessions
from .shared import Shared

RETRY_SECONDS = 2.0


class Renewals:
    """Blocks the sessions of exits that are away, and lets them go on when those are back."""

    def __init__(self, shared: Shared, sessions: Sessions) -> None:
        self._shared, self._sessions = shared, sessions

    async def maintain(self, exit_: Exit) -> None:
        """See that an exit answers, and renew its sessions. Runs until it is cancelled."""
        slug = exit_.server.slug
        while True:
            wakeup = self._sessions.wakeups[slug]
            sessions = [session for session in self._sessions.values() if session.row.exit == slug]
            try:
                await exit_.probe()
                settled = [session for session in sessions if session.state is not State.HELD]
                made = await exit_.renew([session.pair for session in settled if session.addresses])
                unknown = [session.pair for session in settled if not session.addresses]
                made |= await exit_.renew(unknown, report_all=True)
                await self._note_renewed(exit_, settled, made)
                wait = exit_.lease_seconds / 4
            except ExitError:
                # One that is being deployed, or restarted, is there soon.
                wait = RETRY_SECONDS if sessions or not exit_.gone else exit_.lease_seconds / 4
                if exit_.gone:
                    await self._block(sessions)
            # Not all exits at the same moment, and at once when a start has failed.
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(wakeup.wait(), wait * (0.9 + secrets.randbelow(200) / 1000))
            wakeup.clear()

    async def _note_renewed(self, exit_: Exit, sessions: Iterable[Session], made: dict[str, str]) -> None:
        ended = [session for session in sessions if not self._is_current(session)]
        if ended:  # while they were being renewed: the exit may have made them anew
            self._shared.background.start(self._sessions.tell_end(ended))
        for session in sessions:
            if not self._is_current(session):
                continue
            session.addresses |= {address: made[address] for address in session.pair if address in made}
            if session.state is State.BLOCKED and exit_.link_up:
                async with self._shared.locks[session.row.client4]:
                    if self._is_current(session) and session.state is State.BLOCKED:
                        await self._sessions.advance(session, Event.REACHED)

    async def _block(self, sessions: Iterable[Session]) -> None:
        for session in sessions:
            async with self._shared.locks[session.row.client4]:
                if self._is_current(session) and session.state is State.ACTIVE:
                    await self._sessions.advance(session, Event.AWAY)

    def _is_current(self, session: Session) -> bool:
        return self._sessions.get(session.row.client4) is session
