# Copyright (c) 2026 the warren.vpn authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""As an entry: which clients leave by another server, or from which of this server's own exit addresses.

A session and a choice exclude each other; who has neither leaves from here in the default way. Each has an owner
(``sessions.py``, ``choices.py``, ``holds.py``, ``forwards.py``); what concerns several of them is here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping

from .choices import Choices
from .clients import Client, Clients
from .config import Config
from .exits import Exit
from .forwards import Forwards
from .holds import Holds, own_way_elements
from .kernel import Kernel
from .liveness import Handshakes, Liveness
from .metrics import Metrics
from .refusals import (
    CLIENT_IS_GONE,
    HAS_CHOICE,
    HAS_SESSION,
    NO_SESSION,
    UNKNOWN_CLIENT,
    NoSessionError,
    RefusedError,
)
from .renewals import Renewals
from .session_states import Session
from .sessions import STOP_SECONDS, Sessions
from .shared import Background, Disk, Shared
from .store import ChoiceRow, DiskError, Store
from .tables import Key, Value

LOG = logging.getLogger(__name__)

LIVENESS_SECONDS = 30.0
"""How often sources are asked who is alive."""

IDLE_AT_ONCE = 200


class Entry:
    """What this server's clients have, and the rules between that."""

    def __init__(
        self, config: Config, store: Store, kernel: Kernel, exits: Mapping[str, Exit], metrics: Metrics
    ) -> None:
        """Start with none; :meth:`load` reads what is on disk."""
        self._config, self._kernel, self._metrics = config, kernel, metrics
        self._background = Background()
        self._disk = Disk(store, self._background)
        self._shared = Shared(config, kernel, self._disk, metrics, self._background)
        self._began = time.monotonic()
        self.exits = exits
        self.exit_seed: int | None = None
        self.liveness = Liveness(Handshakes(config), exits.values())
        self.holds = Holds(self._shared)
        self.choices = Choices(self._shared, self.holds)
        self.sessions = Sessions(self._shared, exits, self.holds, self.liveness)
        self.renewals = Renewals(self._shared, self.sessions)
        self.forwards = Forwards(config, store, self._disk.run, kernel)

    async def load(self, live: Mapping[Key, Value]) -> None:
        """Read what is on disk. It is not in the kernel yet: see :meth:`elements`.

        Args:
            live: the elements that an earlier run of the agent left.
        """
        store = self._disk.store
        await self.sessions.load(await self._disk.run(store.sessions))
        await self.choices.load(await self._disk.run(store.choices))
        await self.forwards.load(await self._disk.run(store.forwards))
        self.holds.hold_again(live, self.sessions)

    def elements(self) -> dict[Key, Value]:
        """The elements that all clients need; one that is not in the inventory has none, and leaves nowhere."""
        wanted: dict[Key, Value] = {}
        for client in self._config.clients.values():
            wanted |= own_way_elements(client.address4, client.address6)
        for owner in (self.holds, self.forwards, self.sessions, self.choices):
            wanted |= owner.elements()
        return wanted

    def _elements_of(self, client: Client) -> dict[Key, Value]:
        """The elements of one client, those of its forwarded ports excepted."""
        wanted = own_way_elements(client.address4, client.address6)
        for owner in (self.holds, self.sessions, self.choices):
            wanted |= owner.of(client.address4)
        return wanted

    def client(self, name_or_address: str) -> Client:
        """The client of this name or tunnel address.

        Raises:
            RefusedError: there is none.
        """
        found = self._config.clients.find(name_or_address)
        if found is None:
            raise RefusedError(UNKNOWN_CLIENT, client=name_or_address, server=self._config.slug)
        return found

    def _refuse_if_gone(self, client: Client) -> None:
        """Refuse what a client asked for before a reload took it away."""
        if self._config.clients.get(client.address4) != client:
            raise RefusedError(CLIENT_IS_GONE, client=client.name, server=self._config.slug)

    # --- what is asked for

    async def start(self, client: Client, exit_name: str) -> Session:
        """Have a client leave by another server; return once its traffic flows.

        Raises:
            RefusedError: it cannot be, and nothing was changed.
            AwayError: the exit does not answer. The client stays blocked, and gets through when the exit answers.
        """
        exit_ = self.sessions.exit_of(exit_name)
        async with self._shared.locks[client.address4]:
            self._refuse_if_gone(client)
            if client.address4 in self.choices:
                self._metrics.failures.labels("choice").inc()
                raise RefusedError(HAS_CHOICE, client=client.name, server=self._config.slug)
            return await self.sessions.start(client, exit_)

    async def stop(self, client: Client) -> bool:
        """End the session of a client; return once it leaves from this server again.

        Returns:
            Whether the exit has agreed. If not, the session ends there when its lease does.

        Raises:
            RefusedError: it has none, or the disk takes nothing.
        """
        async with self._shared.locks[client.address4]:
            session = self.sessions.get(client.address4)
            if session is None:
                raise NoSessionError(NO_SESSION, client=client.name)
            await self.sessions.end([session], "client")
        return await self.sessions.tell_end([session])

    async def choose(self, client: Client, exit4: str | None, exit6: str | None) -> ChoiceRow | None:
        """Have a client leave from one of this server's own exit addresses; None for the default of that family.

        Raises:
            RefusedError: it cannot be, and nothing was changed.
        """
        row = self.choices.row(client, exit4, exit6)
        async with self._shared.locks[client.address4]:
            self._refuse_if_gone(client)
            if client.address4 in self.sessions:
                exit_name = self.sessions[client.address4].row.exit
                raise RefusedError(HAS_SESSION, client=client.name, exit=exit_name)
            return await self.choices.put(client, row)

    async def disconnected(self, client: Client) -> None:
        """A client is gone: it has no session, no choice and no forwarded port any more, if it had one."""
        async with self._shared.locks[client.address4]:
            session = self.sessions.get(client.address4)
            if session is not None:
                await self.sessions.end([session], "disconnected")
        await self.forwards.drop(client.address4)
        if session is not None:
            await self.sessions.tell_end([session])
        await self._forget_choice(client)

    async def _forget_choice(self, client: Client) -> None:
        if client.address4 in self.choices:
            with contextlib.suppress(RefusedError):  # it has a session by now
                await self.choose(client, None, None)

    # --- a reload

    async def replace_clients(self, new: Clients) -> None:
        """Let other clients connect. Those that stay keep all they have, and nothing of theirs is touched.

        A client that is gone leaves nowhere from the one transaction on in which a new one begins to pass; then what it
        had ends. A disk that takes nothing keeps its rows until the agent starts anew, which drops them.
        """
        known = self._config.clients
        before = dict(known)
        known.replace(new)
        other = [old for old in before.values() if self._has_changed(old)]
        added = [client for address4, client in known.items() if address4 not in before]
        gone = [old for old in other if not self._stays(old)]
        moved = [known[old.address4] for old in other if self._stays(old)]
        async with self._shared.locked([old.address4 for old in other]):
            surplus: dict[Key, Value | None] = {key: None for old in other for key in self._elements_of(old)}
            ended = [session for old in gone for session in self._discard(old.address4)]
            for client in moved:
                for owner in (self.holds, self.sessions, self.choices):
                    owner.move(client)
            now = [*added, *(known[old.address4] for old in other if old.address4 in known)]
            wanted = {key: value for client in now for key, value in self._elements_of(client).items()}
            await self._kernel.apply({**surplus, **wanted})
            if other:
                await self._kernel.forget([old.address4 for old in other])
                await self._write_replaced([old.address4 for old in gone], [client.address4 for client in moved])
        await self._end_replaced(gone, moved, ended)
        LOG.info("reloaded: %d clients, %d of them new; %d are gone", len(known), len(added), len(gone))

    def _stays(self, old: Client) -> bool:
        now = self._config.clients.get(old.address4)
        return now is not None and now.is_same_device(old)

    def _has_changed(self, old: Client) -> bool:
        """Whether a client that there was is gone, or has another IPv6 address."""
        return not self._stays(old) or self._config.clients[old.address4].address6 != old.address6

    def _discard(self, client4: str) -> list[Session]:
        """Know nothing of a client any more, but for its ports; its session, if it had one."""
        self.holds.end(client4)
        self.choices.discard(client4)
        return self.sessions.discard(client4)

    async def _write_replaced(self, gone: list[str], moved: list[str]) -> None:
        store = self._disk.store
        try:
            await self._disk.run(store.drop_sessions, gone)
            await self._disk.run(store.drop_choices, gone)
            await self._disk.run(store.put_sessions, [self.sessions[c].row for c in moved if c in self.sessions])
            for choice in [self.choices[client4] for client4 in moved if client4 in self.choices]:
                await self._disk.run(store.put_choice, choice)
        except DiskError:
            LOG.warning("the disk takes nothing: what clients had that are gone is on it until warrend starts anew")

    async def _end_replaced(self, gone: list[Client], moved: list[Client], ended: list[Session]) -> None:
        for client in moved:
            await self.forwards.move(client)
        for old in gone:
            await self.forwards.drop(old.address4, surely=True)
        if ended:
            self._metrics.ends.labels("removed").inc(len(ended))
            self._background.start(self.sessions.tell_end(ended))

    # --- what goes on by itself

    async def watch_liveness(self) -> None:
        """See which clients and links are alive, and end what clients have that are gone. Runs until cancelled."""
        while True:
            if await self.liveness.refresh():
                await self._end_idle()
            await asyncio.sleep(LIVENESS_SECONDS)

    def _idle(self) -> list[Client]:
        """The clients that have something, and have been silent for too long."""
        limit = time.monotonic() - self._config.idle_seconds
        found = []
        for client4 in {*self.sessions, *self.choices, *self.forwards.clients()}:
            client, session = self._config.clients.get(client4), self.sessions.get(client4)
            began = session.began if session else self._began
            if client and max(self.liveness.last_seen(client), self._began, began) < limit:
                found.append(client)
        return found

    async def _end_idle(self) -> None:
        idle = self._idle()
        for start in range(0, len(idle), IDLE_AT_ONCE):
            batch = idle[start : start + IDLE_AT_ONCE]
            async with self._shared.locked([client.address4 for client in batch]):
                over = [self.sessions[client.address4] for client in batch if client.address4 in self.sessions]
                with contextlib.suppress(RefusedError):  # a disk that takes nothing; the next time sees to it
                    if over:
                        await self.sessions.end(over, "idle")
                        self._background.start(self.sessions.tell_end(over))
            for client in batch:
                with contextlib.suppress(RefusedError):
                    await self.forwards.drop(client.address4)
                await self._forget_choice(client)
        if idle:
            LOG.info("%d clients were idle; their sessions, choices and forwarded ports are over", len(idle))

    async def close(self) -> None:
        """Finish what is under way."""
        await self._background.finish(STOP_SECONDS)
        self._disk.close()
