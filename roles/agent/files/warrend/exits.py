# Copyright (c) 2026 the warren.vpn authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""As an entry: the other servers, whether they answer, and what is asked of them (``POST /mh-backend``)."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, NoReturn

import aiohttp
from aiohttp.client_proto import ResponseHandler

from .batches import Batches
from .config import Config, Server
from .metrics import Metrics

TIMEOUT_SECONDS = 3.0
AT_ONCE = 500
"""How many sessions one call is about at most. The backend takes twice as many."""

LARGEST_REPLY = 256 * 1024
"""Bytes. The answer to a call with as many sessions as go in one has at most 110 kB."""

MAX_ANSWERS_PER_CALL = 100
"""Those included that only say to go on (100 Continue)."""

LEASES = range(5, 3601)
"""Seconds that an exit may say it keeps a session: less would be a busy loop, more a session that does not end."""

LONGEST_REASON = 200
"""Characters of an exit's own words that people get to see."""

ALIVE_SECONDS = 180
"""Seconds after the last handshake at which a WireGuard session ends (whitepaper, Reject-After-Time)."""

Pair = tuple[str, str]
"""The IPv4 and the IPv6 session address of one session."""


class ExitError(Exception):
    """An exit did not do as it was asked.

    Attributes:
        reason: a word for metrics.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class LimitedConnection(ResponseHandler):
    """A connection that ends if its exit goes on sending answers to no call.

    One that waits for the next call is read all the same, and aiohttp keeps each answer that comes.
    """

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if len(self._buffer) > MAX_ANSWERS_PER_CALL and self.transport is not None:
            self.transport.abort()


def http_session(**options: Any) -> aiohttp.ClientSession:
    """What calls the exits: it unpacks nothing, and keeps nothing that they send."""
    connector = aiohttp.TCPConnector(**options)
    limited: Any = partial(LimitedConnection, loop=asyncio.get_running_loop())
    connector._factory = limited  # noqa: SLF001 - there is no other way in
    return aiohttp.ClientSession(connector=connector, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar())


class Exit:
    """One exit.

    It may be in somebody else's hands. What it sends is an answer as described, or it "does not answer".

    Attributes:
        server: which.
        answered: when it last answered, by the monotonic clock; the agent's own start counts as an answer.
        silent_since: Unix time since when it has not answered; None while it does.
        round_trip: seconds that its last answer to an empty call took; None before the first.
        lease_seconds: how long it keeps a session without renewal, as it said last.
        handshake_seen: when the link's last handshake was first seen, monotonic; None if nothing is known.
    """

    def __init__(self, server: Server, config: Config, session: aiohttp.ClientSession, metrics: Metrics) -> None:
        self.server, self._config, self._session, self._metrics = server, config, session, metrics
        self.answered = time.monotonic()
        self.silent_since: float | None = time.time()
        self.round_trip: float | None = None
        self.lease_seconds = config.lease_seconds
        self.handshake_seen: float | None = None
        host = f"{server.control4}:{config.backend_port}" if config.backend_port != 80 else server.control4
        self._started = Batches(self._start, AT_ONCE)
        self._url = f"http://{host}/mh-backend"

    @property
    def reachable(self) -> bool:
        """Whether it answered the last call."""
        return self.silent_since is None

    @property
    def link_up(self) -> bool:
        """Whether the multihop link to it has a WireGuard session, for all that is known."""
        return self.handshake_seen is None or time.monotonic() - self.handshake_seen < ALIVE_SECONDS

    @property
    def gone(self) -> bool:
        """Whether it has been silent for so long that it has dropped its sessions by now."""
        return time.monotonic() - self.answered > self.lease_seconds

    async def start(self, pair: Pair) -> dict[str, str]:
        """Start a session there. Returns the exit address by session address."""
        made = await self._started(pair)
        return {address: made[address] for address in pair if address in made}

    async def _start(self, pairs: list[Pair]) -> dict[str, str]:
        return await self._call("start", pairs)

    async def renew(self, pairs: Sequence[Pair], report_all: bool = False) -> dict[str, str]:
        """Renew sessions there. Returns exit address by session address: of those it had not, or of all."""
        made: dict[str, str] = {}
        for start in range(0, len(pairs), AT_ONCE):
            made |= await self._call("tell" if report_all else "renew", pairs[start : start + AT_ONCE])
        return made

    async def stop(self, pairs: Sequence[Pair]) -> None:
        """End sessions there."""
        for start in range(0, len(pairs), AT_ONCE):
            await self._call("stop", pairs[start : start + AT_ONCE])

    async def probe(self) -> None:
        """See whether it answers, and how soon."""
        began = time.monotonic()
        await self._call("renew", [])
        self.round_trip = time.monotonic() - began

    async def _call(self, op: str, pairs: Iterable[Pair]) -> dict[str, str]:
        """Ask, and return exit address by session address, of those asked about."""
        form = [("op", op), ("a_slug", self._config.slug)]
        asked: set[str] = set()
        for session4, session6 in pairs:
            form += [("session_ip", session4), ("session_ip6", session6)]
            asked |= {session4, session6}
        began = time.monotonic()
        try:
            status, reply = await self._post(form)
            if status == 200:
                lease_seconds, exits = _lease(reply, self.lease_seconds), _exits(reply, asked, self.server)
            else:
                reason = _printable(reply["error"])
        except Exception as error:  # nothing that an exit sends may end the agent
            self._silent()
            raise ExitError("unreachable", f"{self.server.slug} does not answer") from error
        self._metrics.latency.labels(self.server.slug, op).observe(time.monotonic() - began)
        if status != 200:
            self._silent()
            raise ExitError("refused", f"{self.server.slug} refuses: {reason}")
        self.answered, self.silent_since, self.lease_seconds = time.monotonic(), None, lease_seconds
        return exits

    def _silent(self) -> None:
        self.silent_since = self.silent_since or time.time()

    async def _post(self, form: list[tuple[str, str]]) -> tuple[int, dict[str, Any]]:
        """The status and the JSON object of an answer; any exception if it is not that, or too large, or late."""
        options: dict[str, Any] = {
            "timeout": aiohttp.ClientTimeout(total=TIMEOUT_SECONDS),
            "allow_redirects": False,  # the session would go along, to wherever it says
            "headers": {"Accept-Encoding": "identity"},
        }
        async with self._session.post(self._url, data=form, **options) as response:
            if response.content_type != "application/json" or "Content-Encoding" in response.headers:
                raise ValueError("this is no backend")
            body = bytearray()
            async for piece in response.content.iter_any():
                body += piece
                if len(body) > LARGEST_REPLY:
                    raise ValueError("no backend says so much")
        reply = json.loads(body.decode("utf-8"), parse_constant=_no_number)
        if not isinstance(reply, dict):
            raise ValueError("this is no backend")
        return response.status, reply


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not in JSON (RFC 8259, section 6)")


def _lease(reply: dict[str, Any], before: int) -> int:
    seconds = reply.get("lease_seconds", before)
    # True is an int to Python, and 8.0 is in the range: neither is what a backend says.
    if not isinstance(seconds, int) or isinstance(seconds, bool) or seconds not in LEASES:
        raise ValueError("a lease that cannot be")
    return seconds


def _exits(reply: dict[str, Any], asked: set[str], server: Server) -> dict[str, str]:
    """What an exit says and may say. While a run changes its addresses, its new ones are not known here yet."""
    exits = reply["exits"]
    if not isinstance(exits, dict):
        raise TypeError("exits by session address, please")
    own = {session: server.exit6 if ":" in session else server.exit4 for session in asked}
    return {session: address for session, address in exits.items() if session in own and address in own[session]}


def _printable(said: object) -> str:
    """What an exit says, for people to read: short, and nothing that a terminal obeys."""
    if not isinstance(said, str):
        raise TypeError("a text, please")
    return "".join(character if character.isprintable() else "?" for character in said[:LONGEST_REASON])
