# Copyright (c) 2026 the warren.vpn authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which clients and links are alive, by the monotonic clock, as far as anybody can say.

A client comes by any of this server's access interfaces, and is alive if any source says so.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from typing import Protocol

from .clients import Client
from .config import Config
from .exits import Exit
from .kernel import handshakes


class Source(Protocol):
    """Somebody who knows which clients are alive."""

    async def refresh(self) -> bool:
        """Find out. Whether that was possible: who cannot be asked says nothing of anybody."""

    def last_seen(self, client: Client) -> float:
        """When a client was last seen to be alive, by the monotonic clock; ``-math.inf`` for never."""


class Handshakes:
    """WireGuard's handshakes, of clients and of links.

    WireGuard says when by the wall clock, which may be set at any time: only that a handshake is another one than
    before says something, and what counts is when that was seen.
    """

    def __init__(self, config: Config) -> None:
        """None is known yet."""
        self._interfaces = config.access_interfaces
        self._latest: dict[tuple[str, str], float] = {}
        self._seen: dict[tuple[str, str], tuple[float, float]] = {}

    async def refresh(self) -> bool:
        """Ask for all."""
        latest = await handshakes()
        if latest is None:
            self._latest = {}
            return False
        self._latest, now = latest, time.monotonic()
        for peer, when in latest.items():
            # A link that was made anew has none, which says nothing of its clients.
            if when and self._seen.get(peer, (0.0, 0.0))[0] != when:
                self._seen[peer] = when, now
        return True

    def last_seen(self, client: Client) -> float:
        """When the last handshake was seen by which a client came in, on whichever interface."""
        peers = ((interface, client.public_key) for interface in self._interfaces)
        return max((self._seen[peer][1] for peer in peers if peer in self._seen), default=-math.inf)

    def of_link(self, interface: str, public_key: str) -> float:
        """When the last handshake of a link with the server at its other end was seen; ``-math.inf`` for none."""
        peer = interface, public_key
        return self._seen[peer][1] if self._latest.get(peer) else -math.inf


class Liveness:
    """Who is alive, as all sources say together."""

    def __init__(self, links: Handshakes, exits: Iterable[Exit], more: Sequence[Source] = ()) -> None:
        """``links`` says which links are up; it and ``more`` which clients are there."""
        self._links, self._exits = links, tuple(exits)
        self._sources: tuple[Source, ...] = (links, *more)

    async def refresh(self) -> bool:
        """Ask all sources. Whether all of them have answered: else a client may be there whom nobody has named."""
        answered = [await source.refresh() for source in self._sources]
        for exit_ in self._exits:
            server = exit_.server
            known = self._links.of_link(server.interface, server.public_key or "")
            exit_.handshake_seen = known if answered[0] else None
        return all(answered)

    def last_seen(self, client: Client) -> float:
        """When any source has last seen a client, by the monotonic clock; ``-math.inf`` for never."""
        return max(source.last_seen(client) for source in self._sources)
