# Copyright (c) 2026 the warren.vpn authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps whoever talks to the portal from holding it up: so many connections, so many bytes, so long, so often."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter
from typing import Any, cast

from aiohttp import web

MOST_CONNECTIONS = 16
"""Of one client address. A browser opens six."""

MOST_BYTES = 32 * 1024
"""Of one request, headers and body."""

PATIENCE_SECONDS = 10.0
"""So long may a request take to arrive, and its answer to be taken."""

IDLE_SECONDS = 15.0
"""So long may a connection be there after an answer, for the next request."""


class Limited(asyncio.Protocol):
    """A connection that ends if its peer sends too much or too slowly; otherwise, aiohttp's."""

    def __init__(self, inner: asyncio.Protocol, open_connections: Counter[str]) -> None:
        """Nobody is there yet."""
        self._inner, self._open = inner, open_connections
        self._transport: asyncio.Transport | None = None
        self._peer, self._bytes = "", 0
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take it, unless this peer has enough."""
        transport = cast("asyncio.Transport", transport)
        self._peer = str(transport.get_extra_info("peername")[0])
        if self._open[self._peer] >= MOST_CONNECTIONS:
            transport.abort()
            return
        self._open[self._peer] += 1
        self._transport = transport
        sock = transport.get_extra_info("socket")
        # Nor may an answer wait for ever to be taken (tcp(7)).
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(PATIENCE_SECONDS * 1000))
        self._wait(transport)
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Hand on what comes, within bounds."""
        if self._transport is None:
            return
        self._bytes += len(data)
        if self._bytes > MOST_BYTES:
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
        """As the inner one says."""
        return self._inner.eof_received() if self._transport else None

    def connection_lost(self, exc: Exception | None) -> None:
        """Let the next one in."""
        if self._transport is None:
            return
        self.arrived()
        self._open[self._peer] -= 1
        if not self._open[self._peer]:
            del self._open[self._peer]
        self._transport = None
        self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        """Hand on."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Hand on."""
        self._inner.resume_writing()


class LimitedSite(web.BaseSite):
    """Where aiohttp listens, with limits."""

    def __init__(self, runner: web.BaseRunner, sock: socket.socket) -> None:
        """Nothing listens yet."""
        super().__init__(runner)
        self._socket = sock
        self._open: Counter[str] = Counter()

    @property
    def name(self) -> str:
        """What aiohttp shows."""
        return "portal"

    async def start(self) -> None:
        """Listen."""
        await super().start()
        make: Any = self._runner.server
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Limited(make(), self._open), sock=self._socket, backlog=4096)


class Rate:
    """How often something may happen for each of many: so often at once, and then so often a second."""

    def __init__(self, at_once: float, a_second: float) -> None:
        """Everybody starts with all of it."""
        self._at_once, self._a_second = at_once, a_second
        self._left: dict[str, tuple[float, float]] = {}

    def wait(self, who: str) -> float:
        """Count one. 0 if that may be, else how many seconds it is too early."""
        now = time.monotonic()
        left, since = self._left.get(who, (self._at_once, now))
        left = min(self._at_once, left + (now - since) * self._a_second)
        if left < 1:
            self._left[who] = left, now
            return (1 - left) / self._a_second
        self._left[who] = left - 1, now
        return 0.0
