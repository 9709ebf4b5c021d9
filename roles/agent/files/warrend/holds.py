# Copyright (c) 2026 the warren.vpn authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Clients that are held although they have no session, and the elements that every client has."""

from __future__ import annotations

import asyncio
from collections.abc import Container, Mapping

from .clients import Client
from .conntrack import OWN_KIND, flow_mark
from .shared import Shared
from .tables import Key, Value

HOLD_AGAIN_SECONDS = 3.0
"""An agent that was killed is back within one, and warrenctl asks it again ten times a second."""


def mark_elements(client4: str, client6: str, mark: int) -> dict[Key, Value]:
    """What gives a client's packets a mark, of both families."""
    return {("client_mark4", client4): mark, ("client_mark6", client6): mark}


def own_way_elements(client4: str, client6: str) -> dict[Key, Value]:
    """What has a client leave from this server."""
    return mark_elements(client4, client6, flow_mark(OWN_KIND, client4))


class Holds:
    """Clients without a session whose packets are dropped for a moment: while a choice changes, or after a crash."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._elements: dict[str, dict[Key, Value]] = {}

    def elements(self) -> dict[Key, Value]:
        """The elements that they need."""
        return {key: value for held in self._elements.values() for key, value in held.items()}

    def of(self, client4: str) -> dict[Key, Value]:
        """The elements that one client needs for its hold; none if it is not held."""
        return self._elements.get(client4, {})

    def begin(self, client: Client) -> dict[Key, Value]:
        """Note that a client is held from now on; returns its elements."""
        held = mark_elements(client.address4, client.address6, self._shared.config.hold_mark)
        self._elements[client.address4] = held
        return held

    def end(self, client4: str) -> None:
        """Note that a client is not held any more, if it was."""
        self._elements.pop(client4, None)

    def move(self, client: Client) -> None:
        """Have the hold of a client, if it is held, be of its other IPv6 address."""
        if client.address4 in self._elements:
            self.begin(client)

    def hold_again(self, live: Mapping[Key, Value], sessions: Container[str]) -> None:
        """Go on holding the clients that were being held when the agent died before their session was on disk.

        Whoever asked for it asks again; until then the client must not leave from here.
        """
        for client in self._shared.config.clients.values():
            held = live.get(("client_mark4", client.address4)) == self._shared.config.hold_mark
            if held and client.address4 not in sessions:
                self.begin(client)
                self._shared.background.start(self._release_later(client.address4, sessions))

    async def _release_later(self, client4: str, sessions: Container[str]) -> None:
        await asyncio.sleep(HOLD_AGAIN_SECONDS)
        async with self._shared.locks[client4]:
            client = self._shared.config.clients.get(client4)
            if client and client4 in self._elements and client4 not in sessions:
                await self._shared.kernel.forget([client4])
                self.end(client4)
                await self._shared.kernel.apply(own_way_elements(client4, client.address6))
