# Copyright (c) 2026 the warren.vpn authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""As an entry: which clients leave by another server, or from which of this server's own exit addresses.

A client with a session leaves from its exit or not at all. So a session is on disk, and the client's packets are held,
before the exit is asked; they go to the exit once it has agreed, and to nowhere if it does not. Only the end of the
session brings the client back to this server's own exit addresses.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import secrets
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, NoReturn, TypeVar

from .batches import Batches
from .clients import Client, Clients
from .config import Config, Network
from .conntrack import EXIT_KIND, OWN_KIND, flow_mark
from .errors import DISK, AwayError, NoSessionError, RefusedError
from .exits import Exit, ExitError, Pair
from .forwards import Forwards
from .kernel import Kernel
from .liveness import Handshakes, Liveness
from .metrics import Metrics
from .store import ChoiceRow, DiskError, SessionRow, Store
from .tables import Key, TablesError, Value

LOG = logging.getLogger(__name__)

HOLD_AGAIN_SECONDS = 3.0
"""An agent that was killed is back within one, and warrenctl asks it again ten times a second."""

LOOK_SECONDS = 30.0
IDLE_AT_ONCE = 200
RETRY_SECONDS = 2.0
STOP_SECONDS = 2.0
"""The end of a session waits so long for the exit to agree; the lease ends it there anyway."""

ATTEMPTS = 8192
"""Of a pool of 254 with one address left, 8,192 draws miss it once in 10^14 times."""

T = TypeVar("T")


class State(Enum):
    """How far a session is.

    HELD: about to reach its exit; the client's packets are dropped. ACTIVE: they go to the exit. BLOCKED: the exit is
    away; the client is told that nothing can be reached.
    """

    HELD = "held"
    ACTIVE = "active"
    BLOCKED = "blocked"


@dataclass
class Session:
    """One client's redirection.

    Attributes:
        row: what is on disk.
        state: see there.
        began: when it began, or the agent did, by the monotonic clock.
        addresses: the exit addresses that the internet sees, by session address, as far as they are known.
    """

    row: SessionRow
    state: State
    began: float
    addresses: dict[str, str] = field(default_factory=dict)

    @property
    def pair(self) -> Pair:
        """The session addresses."""
        return self.row.session4, self.row.session6


class Entry:
    """The sessions and choices of this server's clients."""

    def __init__(
        self, config: Config, store: Store, kernel: Kernel, exits: Mapping[str, Exit], metrics: Metrics
    ) -> None:
        """Start with none; :meth:`load` reads those on disk."""
        self._config, self._store, self._kernel, self._metrics = config, store, kernel, metrics
        self.exits = exits
        self.sessions: dict[str, Session] = {}
        self.choices: dict[str, ChoiceRow] = {}
        self.exit_seed: int | None = None
        self._taken: set[str] = set()
        self._holding: dict[str, dict[Key, Value]] = {}
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="disk")
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._news: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._tasks: set[asyncio.Task[None]] = set()
        self._began = time.monotonic()
        self._liveness = Liveness(Handshakes(config), exits.values())
        self.forwards = Forwards(config, store, self._write, kernel)
        self._put = Batches(self._put_rows)
        self._scrubbed = Batches(self._scrub)
        self._closing = False

    async def _write(self, function: Callable[..., T], *arguments: object) -> T:
        result = await asyncio.get_running_loop().run_in_executor(self._disk, function, *arguments)
        if self._store.dirty and not self._closing:
            self._background(self._scrubbed(None))
        return result

    async def _scrub(self, _asked: list[None]) -> None:
        with contextlib.suppress(DiskError):  # a disk that takes nothing; the next scrub is for this one too
            await asyncio.get_running_loop().run_in_executor(self._disk, self._store.scrub)

    async def _put_rows(self, rows: list[SessionRow]) -> None:
        await self._write(self._store.put_sessions, rows)

    # --- what is there

    async def load(self) -> None:
        """Read the sessions and choices on disk. They are not in the kernel yet: see :meth:`elements`."""
        known = self._config.clients
        for row in await self._write(self._store.sessions):
            state = State.ACTIVE if row.exit in self.exits else State.BLOCKED
            self.sessions[row.client4] = Session(row, state, self._began)
            self._taken |= {row.session4, row.session6}
        for choice in await self._write(self._store.choices):
            self.choices[choice.client4] = choice
        await self.forwards.load(await self._write(self._store.forwards))
        gone = [client for client in self.sessions if client not in known]
        if gone:
            LOG.info("%d sessions end: their clients are not in the inventory any more", len(gone))
            await self._write(self._store.drop_sessions, gone)
            for client in gone:
                self._background(self._tell_stop([self.sessions.pop(client)]))
        for client, session in self.sessions.items():
            row = replace(session.row, client6=known[client].address6)  # or it would leave from here by its new one
            if not self._is_session_of_ours(row):  # the pool is another one now, and the exit would refuse
                row = replace(self._row(known[client], row.exit), since=row.since)
            if row != session.row:
                session.row = row
                await self._write(self._store.put_sessions, [row])
        for client, choice in list(self.choices.items()):
            if client not in known or not self._is_ours(choice):
                del self.choices[client]
                await self._write(self._store.drop_choices, [client])

    def _is_session_of_ours(self, row: SessionRow) -> bool:
        networks = (row.session4, self._config.session4), (row.session6, self._config.session6)
        return all(ipaddress.ip_address(address) in network for address, network in networks)

    def hold_again(self, live: Mapping[Key, Value]) -> None:
        """Go on holding the clients that were being held when the agent died before their session was on disk.

        Whoever asked for it asks again; until then the client must not leave from here.
        """
        for client in self._config.clients.values():
            held = live.get(("client_mark4", client.address4)) == self._config.hold_mark
            if held and client.address4 not in self.sessions:
                keys = ("client_mark4", client.address4), ("client_mark6", client.address6)
                self._holding[client.address4] = dict.fromkeys(keys, self._config.hold_mark)
                self._background(self._let_go(client.address4))

    async def _let_go(self, client4: str) -> None:
        await asyncio.sleep(HOLD_AGAIN_SECONDS)
        async with self._locks[client4]:
            client = self._config.clients.get(client4)
            if client and client4 in self._holding and client4 not in self.sessions:
                await self._kernel.forget([client4])
                del self._holding[client4]
                await self._kernel.apply(_own_way(client4, client.address6))

    def _is_ours(self, choice: ChoiceRow) -> bool:
        return choice.exit4 in (None, *self._config.exit4) and choice.exit6 in (None, *self._config.exit6)

    def elements(self) -> dict[Key, Value]:
        """The elements that all clients need; one that is not in the inventory has none, and leaves nowhere."""
        wanted: dict[Key, Value] = {}
        for client in self._config.clients.values():
            wanted |= _own_way(client.address4, client.address6)
        for held in self._holding.values():
            wanted |= held
        wanted |= self.forwards.elements()
        for session in self.sessions.values():
            wanted |= {key: value for key, value in self._elements(session).items() if value is not None}
        for choice in self.choices.values():
            wanted |= {key: value for key, value in _choice_elements(choice).items() if value is not None}
        return wanted

    def _elements(self, session: Session) -> dict[Key, Value | None]:
        row, active = session.row, session.state is State.ACTIVE
        exit_ = self.exits.get(row.exit)
        marks = {State.HELD: self._config.hold_mark, State.BLOCKED: self._config.block_mark}
        mark = marks.get(session.state) or (exit_.server.mark if exit_ else None) or self._config.block_mark
        flow = flow_mark(EXIT_KIND, row.client4)
        return {
            **_marks(row.client4, row.client6, mark),
            ("client_flow4", row.client4): flow if active else None,
            ("client_flow6", row.client6): flow if active else None,
            ("client_session4", row.client4): row.session4 if active else None,
            ("client_session6", row.client6): row.session6 if active else None,
        }

    def _elements_without(self, session: Session) -> dict[Key, Value | None]:
        """What its client needs when a session is no more."""
        return {**dict.fromkeys(self._elements(session)), **_own_way(session.row.client4, session.row.client6)}

    async def _set(self, session: Session, state: State) -> None:
        session.state = state
        await self._kernel.apply(self._elements(session))

    def client(self, word: str) -> Client:
        """The client of this name or tunnel address.

        Raises:
            RefusedError: there is none.
        """
        found = self._config.clients.find(word)
        if found is None:
            raise RefusedError("unknown_client", f"{word} is no client of {self._config.slug}")
        return found

    def _refuse_if_gone(self, client: Client) -> None:
        """Refuse what a client asked for before a reload took it away."""
        if self._config.clients.get(client.address4) != client:
            raise RefusedError("unknown_client", f"{client.name} is no client of {self._config.slug} any more")

    # --- a reload

    async def replace_clients(self, new: Clients) -> None:
        """Let other clients connect. Those that stay keep all they have, and nothing of theirs is touched.

        A client that is gone leaves nowhere from the one transaction on in which a new one begins to pass; then what it
        had ends. A disk that takes nothing keeps its rows until the agent starts anew, which drops them.
        """
        known = self._config.clients
        before = dict(known)
        known.replace(new)
        added = [client for address4, client in known.items() if address4 not in before]
        other = [old for old in before.values() if self._is_other(old)]
        other.sort(key=_by_address)
        async with contextlib.AsyncExitStack() as stack:
            for old in other:
                await stack.enter_async_context(self._locks[old.address4])
            surplus: dict[Key, Value | None] = {key: None for old in other for key in self._elements_of(old)}
            moved = [known[old.address4] for old in other if self._stays(old)]
            gone = [old for old in other if not self._stays(old)]
            ended = [session for old in gone for session in self._discard(old.address4)]
            for client in moved:
                self._move(client)
            now = [known[old.address4] for old in other if old.address4 in known]
            wanted = {key: value for client in [*added, *now] for key, value in self._elements_of(client).items()}
            await self._kernel.apply({**surplus, **wanted})
            if other:
                await self._kernel.forget([old.address4 for old in other])
                await self._write_replaced([old.address4 for old in gone], [client.address4 for client in moved])
        for client in moved:
            await self.forwards.move(client)
        for old in gone:
            await self.forwards.drop(old.address4, surely=True)
        if ended:
            self._metrics.ends.labels("removed").inc(len(ended))
            self._background(self._tell_stop(ended))
        LOG.info("reloaded: %d clients, %d of them new; %d are gone", len(known), len(added), len(gone))

    def _is_other(self, old: Client) -> bool:
        """Whether a client that there was is gone, or has another IPv6 address."""
        return not self._stays(old) or self._config.clients[old.address4].address6 != old.address6

    def _stays(self, old: Client) -> bool:
        now = self._config.clients.get(old.address4)
        return now is not None and now.is_same_device(old)

    def _elements_of(self, client: Client) -> dict[Key, Value]:
        """The elements of one client, those of its forwarded ports excepted."""
        wanted = {**_own_way(client.address4, client.address6), **self._holding.get(client.address4, {})}
        session, choice = self.sessions.get(client.address4), self.choices.get(client.address4)
        more = {**(self._elements(session) if session else {}), **(_choice_elements(choice) if choice else {})}
        return {**wanted, **{key: value for key, value in more.items() if value is not None}}

    def _discard(self, client4: str) -> list[Session]:
        """Know nothing of a client any more; its session, if it had one."""
        self._holding.pop(client4, None)
        self.choices.pop(client4, None)
        session = self.sessions.pop(client4, None)
        return [session] if session else []

    def _move(self, client: Client) -> None:
        """Have what a client has be of its other IPv6 address."""
        session, choice = self.sessions.get(client.address4), self.choices.get(client.address4)
        if session:
            session.row = replace(session.row, client6=client.address6)
        if choice:
            self.choices[client.address4] = replace(choice, client6=client.address6)
        if client.address4 in self._holding:
            self._holding[client.address4] = _marks(client.address4, client.address6, self._config.hold_mark)

    async def _write_replaced(self, gone: list[str], moved: list[str]) -> None:
        try:
            await self._write(self._store.drop_sessions, gone)
            await self._write(self._store.drop_choices, gone)
            await self._write(self._store.put_sessions, [self.sessions[c].row for c in moved if c in self.sessions])
            for choice in [self.choices[client4] for client4 in moved if client4 in self.choices]:
                await self._write(self._store.put_choice, choice)
        except DiskError:
            LOG.warning("the disk takes nothing: what clients had that are gone is on it until warrend starts anew")

    # --- sessions

    async def start(self, client: Client, word: str) -> Session:
        """Have a client leave by another server; return once its traffic flows.

        Raises:
            RefusedError: it cannot be, and nothing was changed.
            AwayError: the exit does not answer. The client stays blocked, and gets through when the exit answers.
        """
        exit_ = self._exit(word)
        async with self._locks[client.address4]:
            self._refuse_if_gone(client)
            if client.address4 in self.choices:
                self._metrics.failures.labels("choice").inc()
                raise RefusedError(
                    "choice",
                    f"{client.name} has chosen an exit address of {self._config.slug}. "
                    "Go back to the default first: the two together are not possible.",
                )
            before = self.sessions.get(client.address4)
            if before and before.row.exit == exit_.server.slug:
                if before.state is not State.ACTIVE:
                    await self._reach(before, exit_)
                return before
            session = Session(self._row(client, exit_.server.slug), State.HELD, time.monotonic())
            self.sessions[client.address4] = session
            # Held before it is on disk: see hold_again.
            await self._hold(session, before)
            session.row = replace(session.row, since=time.time())
            try:
                await self._put(session.row)
                self._holding.pop(client.address4, None)
                if before:
                    self._background(self._tell_stop([before]))
                await asyncio.gather(self._reach(session, exit_), self._forget(session))
            except DiskError as error:
                await self._undo(session, before)
                raise RefusedError("disk", DISK) from error
            except (TablesError, OSError):
                session.state = State.BLOCKED  # and keep() takes it from here
                self._news[exit_.server.slug].set()
                raise
            self._metrics.starts.labels(exit_.server.slug).inc()
            return session

    async def _hold(self, session: Session, before: Session | None) -> None:
        """Hold a client; if that fails, all is as it was before."""
        try:
            await self._kernel.apply(self._elements(session))
        except TablesError:
            self._take_back(session, before)
            raise

    def _take_back(self, session: Session, before: Session | None) -> None:
        self._taken -= set(session.pair)
        if before:
            self.sessions[session.row.client4] = before
        else:
            del self.sessions[session.row.client4]

    async def _undo(self, session: Session, before: Session | None) -> None:
        """Let a held client go the way it went before."""
        self._take_back(session, before)
        await self._kernel.apply(self._elements(before) if before else self._elements_without(session))

    def _exit(self, word: str) -> Exit:
        server = self._config.exit(word)
        if server is None:
            if word == self._config.slug:
                message = f"{word} is this server: a client leaves from it without a session"
            else:
                message = f"{word} is no exit. There are: {', '.join(sorted(self.exits)) or 'none'}"
            self._metrics.failures.labels("unknown_exit").inc()
            raise RefusedError("unknown_exit", message)
        return self.exits[server.slug]

    def _row(self, client: Client, slug: str) -> SessionRow:
        pair = self._address(self._config.session4), self._address(self._config.session6)
        self._taken |= set(pair)
        return SessionRow(client.address4, client.address6, slug, *pair, time.time())

    def _address(self, network: Network) -> str:
        """A session address that nobody has: random, so that it says nothing of the client or of the order."""
        hosts = network.num_addresses - 2
        for _attempt in range(ATTEMPTS):
            address = str(network.network_address + 1 + secrets.randbelow(hosts))
            if address not in self._taken:
                return address
        self._metrics.failures.labels("pool_full").inc()
        raise RefusedError("pool_full", f"no session address is free: {self._config.slug} has {hosts} of them")

    async def _reach(self, session: Session, exit_: Exit) -> None:
        """Ask the exit for a session, and let the client through or tell it that there is no way."""
        try:
            session.addresses = await exit_.start(session.pair)
        except ExitError as error:
            self._metrics.failures.labels(error.reason).inc()
            await self._wait_for(session, exit_, str(error), error)
        if not exit_.link_up:
            await self.see_handshakes()
        if not exit_.link_up:
            self._metrics.failures.labels("link").inc()
            await self._wait_for(session, exit_, f"the link to {exit_.server.slug} is down")
        await self._set(session, State.ACTIVE)

    async def _wait_for(self, session: Session, exit_: Exit, why: str, error: Exception | None = None) -> NoReturn:
        await self._set(session, State.BLOCKED)
        self._news[exit_.server.slug].set()
        message = f"{why}. The client's traffic is blocked until that is over, or until the session is stopped"
        raise AwayError(message) from error

    async def _forget(self, session: Session) -> None:
        await self._kernel.forget([session.row.client4])

    async def stop(self, client: Client, reason: str = "client") -> bool:
        """End the session of a client; return once it leaves from this server again.

        Returns:
            Whether the exit has agreed. If not, the session ends there when its lease does.

        Raises:
            RefusedError: it has none.
        """
        async with self._locks[client.address4]:
            session = self.sessions.get(client.address4)
            if session is None:
                raise NoSessionError("no_session", f"{client.name} has no session")
            await self._end([session], reason)
        return await self._tell_stop([session])

    async def _end(self, sessions: list[Session], reason: str) -> None:
        held: dict[Key, Value | None] = {}
        over: dict[Key, Value | None] = {}
        for session in sessions:
            session.state = State.HELD
            held |= self._elements(session)
            over |= self._elements_without(session)
        try:
            await self._kernel.apply(held)
            await self._write(self._store.drop_sessions, [session.row.client4 for session in sessions])
        except (DiskError, TablesError, OSError) as error:
            for session in sessions:
                session.state = State.BLOCKED  # and keep() lets it go on
                self._news[session.row.exit].set()
            if not isinstance(error, DiskError):
                raise
            for session in sessions:
                await self._set(session, State.BLOCKED)
            raise RefusedError("disk", DISK) from error
        await self._kernel.forget([session.row.client4 for session in sessions])
        for session in sessions:  # before the elements, or whoever puts those right would add them again
            self.sessions.pop(session.row.client4, None)
        await self._kernel.apply(over)
        self._metrics.ends.labels(reason).inc(len(sessions))

    async def _tell_stop(self, sessions: list[Session]) -> bool:
        """Tell exits that sessions are over, and have their addresses back. Whether all of them know."""
        told = True
        current = {address for session in self.sessions.values() for address in session.pair}
        for slug in {session.row.exit for session in sessions}:
            pairs = [s.pair for s in sessions if s.row.exit == slug and not current.intersection(s.pair)]
            try:
                if slug in self.exits:
                    await asyncio.wait_for(self.exits[slug].stop(pairs), STOP_SECONDS)
            except (TimeoutError, ExitError):
                told = False
        current = {address for session in self.sessions.values() for address in session.pair}
        self._taken -= {address for session in sessions for address in session.pair} - current
        return told

    async def disconnected(self, client: Client) -> None:
        """A client is gone: it has no session, no choice and no forwarded port any more, if it had one."""
        async with self._locks[client.address4]:
            session = self.sessions.get(client.address4)
            if session is not None:
                await self._end([session], "disconnected")
        await self.forwards.drop(client.address4)
        if session is not None:
            await self._tell_stop([session])
        if client.address4 in self.choices:
            with contextlib.suppress(RefusedError):  # it has a session by now
                await self.choose(client, None, None)

    # --- choices

    async def choose(self, client: Client, exit4: str | None, exit6: str | None) -> ChoiceRow | None:
        """Have a client leave from one of this server's own exit addresses; None for the default of that family.

        Raises:
            RefusedError: it cannot be, and nothing was changed.
        """
        row = ChoiceRow(client.address4, client.address6, exit4, exit6)
        if not self._is_ours(row):
            ours = ", ".join(self._config.exit4 + self._config.exit6)
            raise RefusedError("unknown_address", f"this is no exit address of {self._config.slug}. There are: {ours}")
        async with self._locks[client.address4]:
            self._refuse_if_gone(client)
            if client.address4 in self.sessions:
                raise RefusedError(
                    "session",
                    f"{client.name} leaves by {self.sessions[client.address4].row.exit}. "
                    "Stop that session first: the two together are not possible.",
                )
            default = exit4 is None and exit6 is None
            try:
                if default:
                    await self._write(self._store.drop_choices, [client.address4])
                    self.choices.pop(client.address4, None)
                else:
                    await self._write(self._store.put_choice, row)
                    self.choices[client.address4] = row
            except DiskError as error:
                raise RefusedError("disk", DISK) from error
            hold = _marks(client.address4, client.address6, self._config.hold_mark)
            self._holding[client.address4] = hold
            try:
                await self._kernel.apply({**_choice_elements(row), **hold})
                await self._kernel.forget([client.address4])
            finally:  # a table that is away is put back without anybody held
                del self._holding[client.address4]
            await self._kernel.apply(_own_way(client.address4, client.address6))
            return None if default else row

    # --- what goes on by itself

    async def keep(self, exit_: Exit) -> None:
        """See that an exit answers and keeps its sessions. Runs until it is cancelled."""
        slug = exit_.server.slug
        while True:
            mine = [session for session in self.sessions.values() if session.row.exit == slug]
            try:
                await exit_.probe()
                settled = [session for session in mine if session.state is not State.HELD]
                made = await exit_.renew([session.pair for session in settled if session.addresses])
                made |= await exit_.renew([session.pair for session in settled if not session.addresses], tell=True)
                await self._renewed(exit_, settled, made)
                wait = exit_.lease_seconds / 4
            except ExitError:
                # One that is being deployed, or restarted, is there soon.
                wait = RETRY_SECONDS if mine or not exit_.gone else exit_.lease_seconds / 4
                if exit_.gone:
                    await self._block(mine)
            # Not all exits at the same moment, and at once when a start has failed.
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._news[slug].wait(), wait * (0.9 + secrets.randbelow(200) / 1000))
            self._news[slug].clear()

    async def _renewed(self, exit_: Exit, sessions: Iterable[Session], made: dict[str, str]) -> None:
        ended = [session for session in sessions if self.sessions.get(session.row.client4) is not session]
        if ended:  # while they were being renewed: the exit may have made them anew
            self._background(self._tell_stop(ended))
        for session in sessions:
            if self.sessions.get(session.row.client4) is not session:
                continue
            session.addresses |= {address: made[address] for address in session.pair if address in made}
            if session.state is State.BLOCKED and exit_.link_up:
                async with self._locks[session.row.client4]:
                    if self.sessions.get(session.row.client4) is session and session.state is State.BLOCKED:
                        await self._set(session, State.ACTIVE)

    async def _block(self, sessions: Iterable[Session]) -> None:
        for session in sessions:
            async with self._locks[session.row.client4]:
                if session.state is State.ACTIVE and self.sessions.get(session.row.client4) is session:
                    await self._set(session, State.BLOCKED)

    async def look(self) -> None:
        """See which clients and links are alive, and end the sessions of clients that are gone, until cancelled."""
        while True:
            if await self.see_handshakes():
                await self._end_idle()
            await asyncio.sleep(LOOK_SECONDS)

    async def see_handshakes(self) -> bool:
        """See which clients and links are alive. Whether that could be seen."""
        return await self._liveness.refresh()

    async def _end_idle(self) -> None:
        limit = time.monotonic() - self._config.idle_seconds
        idle = []
        for client4 in {*self.sessions, *self.choices, *self.forwards.clients()}:
            client = self._config.clients.get(client4)
            session = self.sessions.get(client4)
            if client is None:
                continue
            seen = self._liveness.last_seen(client)
            if max(seen, self._began, session.began if session else self._began) < limit:
                idle.append(client)
        idle.sort(key=_by_address)  # whoever takes several locks takes them in this order
        for start in range(0, len(idle), IDLE_AT_ONCE):
            batch = idle[start : start + IDLE_AT_ONCE]
            async with contextlib.AsyncExitStack() as stack:
                for client in batch:
                    await stack.enter_async_context(self._locks[client.address4])
                over = [self.sessions[client.address4] for client in batch if client.address4 in self.sessions]
                with contextlib.suppress(RefusedError):  # a disk that takes nothing; the next look sees to it
                    if over:
                        await self._end(over, "idle")
                        self._background(self._tell_stop(over))
            for client in batch:
                with contextlib.suppress(RefusedError):
                    await self.forwards.drop(client.address4)
                if client.address4 in self.choices:
                    with contextlib.suppress(RefusedError):  # it has a session by now
                        await self.choose(client, None, None)
        if idle:
            LOG.info("%d clients were idle; their sessions, choices and forwarded ports are over", len(idle))

    def _background(self, coroutine: Coroutine[Any, Any, object]) -> None:
        async def run() -> None:
            await coroutine

        task = asyncio.get_running_loop().create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Finish what is under way."""
        self._closing = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=STOP_SECONDS)
        self._disk.shutdown()
        self._store.close()


def _by_address(client: Client) -> str:
    return client.address4


def _marks(client4: str, client6: str, mark: int) -> dict[Key, Value]:
    return {("client_mark4", client4): mark, ("client_mark6", client6): mark}


def _own_way(client4: str, client6: str) -> dict[Key, Value]:
    """What has a client leave from this server."""
    return _marks(client4, client6, flow_mark(OWN_KIND, client4))


def _choice_elements(row: ChoiceRow) -> dict[Key, Value | None]:
    return {("client_choice4", row.client4): row.exit4, ("client_choice6", row.client6): row.exit6}
