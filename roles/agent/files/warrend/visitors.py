# Copyright (c) 2026 the warren.vpn authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps who talks to the agent from holding it up: limits on connections, bytes, seconds and how often."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any, cast

from aiohttp import web

from .answers import Handler


@dataclass(frozen=True)
class Limits:
    """What those who connect may take.

    Attributes:
        connections: of one address.
        together: of all. The sum of all limits leaves descriptors for `warrenctl` (LimitNOFILE of warrend.service).
        request: bytes of one request, headers and body.
    """

    connections: int
    together: int
    request: int


PORTAL = Limits(connections=16, together=12_000, request=32 * 1024)
"""A browser opens six."""

BACKEND = Limits(connections=32, together=3_000, request=320 * 1024)
"""Another server opens eight, and has 1,000 sessions in one call."""

PATIENCE_SECONDS = 10.0
"""How long a request may take to arrive, and its answer to be taken."""

ALL = ""
"""The key under which the connections of all addresses together are counted."""

IDLE_SECONDS = 15.0
"""How long a connection may wait for the next request after an answer."""


class Limited(asyncio.Protocol):
    """A connection that ends if its peer sends too much or too slowly; otherwise, aiohttp's."""

    def __init__(self, inner: asyncio.Protocol, limits: Limits, open_connections: Counter[str]) -> None:
        """Nobody is there yet. All that share limits share the count of their connections, by address."""
        self._inner, self._limits, self._open = inner, limits, open_connections
        self._transport: asyncio.Transport | None = None
        self._peer, self._bytes = "", 0
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Accept the connection unless this peer, or all together, are at the limit."""
        transport = cast("asyncio.Transport", transport)
        name = transport.get_extra_info("peername")
        self._peer = str(name[0]) if name else "unnamed"  # a socket of this host
        if self._open[self._peer] >= self._limits.connections or self._open[ALL] >= self._limits.together:
            transport.abort()
            return
        self._open[self._peer] += 1
        self._open[ALL] += 1
        self._transport = transport
        if name:
            # Nor may an answer wait for ever to be taken (tcp(7)).
            sock = transport.get_extra_info("socket")
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(PATIENCE_SECONDS * 1000))
        self._wait(transport)
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Pass on what comes, up to the limit of bytes for one request."""
        if self._transport is None:
            return
        self._bytes += len(data)
        if self._bytes > self._limits.request:
            self._transport.abort()
            return
        if self._deadline is None:
            self._wait(self._transport)
        try:
            self._inner.data_received(data)
        except Exception:  # noqa: BLE001 - aiohttp's parser has met what it does not know; asyncio would log all of it
            self._transport.abort()

    def arrived(self) -> None:
        """A whole request is there: what comes now belongs to the next."""
        self._bytes = 0
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _wait(self, transport: asyncio.Transport) -> None:
        self._deadline = asyncio.get_running_loop().call_later(PATIENCE_SECONDS, transport.abort)

    def eof_received(self) -> bool | None:
        """Whether aiohttp keeps the connection half open."""
        return self._inner.eof_received() if self._transport else None

    def connection_lost(self, exc: Exception | None) -> None:
        """Count the connection no more."""
        if self._transport is None:
            return
        self.arrived()
        self._open[ALL] -= 1
        self._open[self._peer] -= 1
        if not self._open[self._peer]:
            del self._open[self._peer]
        self._transport = None
        self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        """Pass it on to aiohttp."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Pass it on to aiohttp."""
        self._inner.resume_writing()


class LimitedSite(web.BaseSite):
    """Where aiohttp listens, with limits."""

    def __init__(
        self, runner: web.BaseRunner, sock: socket.socket, limits: Limits, open_connections: Counter[str]
    ) -> None:
        super().__init__(runner)
        self._socket, self._limits, self._open = sock, limits, open_connections

    @property
    def name(self) -> str:
        """The name that aiohttp shows for it."""
        return "limited"

    async def start(self) -> None:
        await super().start()
        make: Any = self._runner.server
        loop = asyncio.get_running_loop()

        def limited() -> Limited:
            return Limited(make(), self._limits, self._open)

        self._server = await loop.create_server(limited, sock=self._socket, backlog=4096)


def arrived(request: web.Request) -> None:
    """Note that a whole request has arrived: the next one has its own time and bytes."""
    protocol = request.transport.get_protocol() if request.transport else None
    if isinstance(protocol, Limited):
        protocol.arrived()


@web.middleware
async def answered(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Have the time for a request end with its answer."""
    try:
        return await handler(request)
    finally:
        arrived(request)


class Rate:
    """A token bucket for each of many: how often something may happen at once, and then each second."""

    def __init__(self, at_once: float, a_second: float) -> None:
        """Everybody starts with a full one."""
        self._at_once, self._a_second = at_once, a_second
        self._left: dict[str, tuple[float, float]] = {}

    def wait(self, who: str) -> float:
        """Take a token. 0 if there was one, else in how many seconds there will be."""
        now = time.monotonic()
        left, since = self._left.get(who, (self._at_once, now))
        left = min(self._at_once, left + (now - since) * self._a_second)
        if left < 1:
            self._left[who] = left, now
            return (1 - left) / self._a_second
        self._left[who] = left - 1, now
        return 0.0
