# Copyright (c) 2026 the warren.vpn authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""As an entry: the other servers, whether they answer, and what is asked of them (``POST /mh-backend``)."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

import aiohttp

from .batches import Batches
from .config import Config, Server
from .metrics import Metrics

TIMEOUT_SECONDS = 3.0
AT_ONCE = 500
"""So many sessions go in one call. The backend takes twice as many."""

ALIVE_SECONDS = 180
"""A WireGuard session ends so long after its last handshake (whitepaper, Reject-After-Time)."""

Pair = tuple[str, str]
"""The IPv4 and the IPv6 session address of one session."""


class ExitError(Exception):
    """An exit did not do as it was asked.

    Attributes:
        reason: a word for metrics.
    """

    def __init__(self, reason: str, message: str) -> None:
        """Keep both."""
        super().__init__(message)
        self.reason = reason


class Exit:
    """One exit.

    Attributes:
        server: which.
        answered: when it last answered, by the monotonic clock; the agent's own start counts as an answer.
        silent_since: Unix time since when it has not answered; None while it does.
        round_trip: seconds that its last answer to an empty call took; None before the first.
        lease_seconds: how long it keeps a session without renewal, as it said last.
        handshake: Unix time of the link's last handshake, 0 for never, None if that is not known.
    """

    def __init__(self, server: Server, config: Config, session: aiohttp.ClientSession, metrics: Metrics) -> None:
        """Nothing is known yet."""
        self.server, self._config, self._session, self._metrics = server, config, session, metrics
        self.answered = time.monotonic()
        self.silent_since: float | None = time.time()
        self.round_trip: float | None = None
        self.lease_seconds = config.lease_seconds
        self.handshake: float | None = None
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
        return self.handshake is None or time.time() - self.handshake < ALIVE_SECONDS

    @property
    def gone(self) -> bool:
        """Whether it has been silent for so long that it has dropped its sessions by now."""
        return time.monotonic() - self.answered > self.lease_seconds

    async def start(self, pair: Pair) -> dict[str, str]:
        """Start a session there. Returns the exit address by session address."""
        made = await self._started(pair)
        return {address: made[address] for address in pair if address in made}

    async def _start(self, pairs: list[Pair]) -> dict[str, str]:
        reply = await self._call("start", pairs)
        return {str(key): str(value) for key, value in reply["exits"].items()}

    async def renew(self, pairs: Sequence[Pair], tell: bool = False) -> dict[str, str]:
        """Renew sessions there. Returns exit address by session address: of those it had not; with ``tell``, of all."""
        made: dict[str, str] = {}
        for start in range(0, len(pairs), AT_ONCE):
            reply = await self._call("tell" if tell else "renew", pairs[start : start + AT_ONCE])
            made |= {str(key): str(value) for key, value in reply["exits"].items()}
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

    async def _call(self, op: str, pairs: Iterable[Pair]) -> dict[str, Any]:
        form = [("op", op), ("a_slug", self._config.slug)]
        for session4, session6 in pairs:
            form += [("session_ip", session4), ("session_ip6", session6)]
        began = time.monotonic()
        try:
            timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
            async with self._session.post(self._url, data=form, timeout=timeout) as response:
                reply = await response.json()
                key, kind = ("exits", dict) if response.status == 200 else ("error", str)
                if not isinstance(reply, dict) or not isinstance(reply.get(key), kind):
                    raise ValueError("this is no backend")
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            if self.silent_since is None:
                self.silent_since = time.time()
            raise ExitError("unreachable", f"{self.server.slug} does not answer") from error
        self._metrics.latency.labels(self.server.slug, op).observe(time.monotonic() - began)
        if response.status != 200:
            self.silent_since = self.silent_since or time.time()
            raise ExitError("refused", f"{self.server.slug} refuses: {reply['error']}")
        self.answered, self.silent_since = time.monotonic(), None
        self.lease_seconds = int(reply.get("lease_seconds") or self.lease_seconds)
        return dict(reply)
