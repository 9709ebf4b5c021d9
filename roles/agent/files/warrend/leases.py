# Copyright (c) 2026 the warren.vpn authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""As an exit: which sessions of other servers' clients leave from here, for as long as their entries renew them."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .config import Config, Server
from .kernel import Kernel
from .tables import Key, Value

LOG = logging.getLogger(__name__)

# An exit address must not follow from anything that another server or a website could know.
CHOOSE = random.SystemRandom().choice

EXPIRE_SECONDS = 1.0
AT_ONCE = 500
"""So many sessions end in one transaction, so that others find a gap."""


@dataclass
class Lease:
    """One session address.

    Attributes:
        entry: slug of the server it belongs to.
        exit: the exit address it leaves from.
        until: when it ends unless it is renewed, by the monotonic clock.
    """

    entry: str
    exit: str
    until: float


class Leases:
    """All session addresses that leave from here; those of IPv4 and IPv6 are alike."""

    def __init__(self, config: Config, kernel: Kernel) -> None:
        """Start with none; :meth:`adopt` takes over what is there."""
        self._config, self._kernel = config, kernel
        self._leases: dict[str, Lease] = {}
        self._lock = asyncio.Lock()

    def elements(self) -> dict[Key, Value]:
        """The elements that the leases need."""
        return {_key(address): lease.exit for address, lease in self._leases.items()}

    def count(self) -> dict[str, int]:
        """How many sessions each entry has here."""
        numbers = dict.fromkeys(self._config.servers, 0)
        for address, lease in self._leases.items():
            if ":" not in address:
                numbers[lease.entry] = numbers.get(lease.entry, 0) + 1
        return numbers

    def adopt(self, live: Mapping[Key, Value]) -> None:
        """Take over the elements that an earlier run of the agent left: their entries will renew them, or they end."""
        for (name, address), value in live.items():
            entry = self.entry_of(address) if name.startswith("session_exit") else None
            if entry is not None and value in self._exits(address):
                self._leases[address] = Lease(entry.slug, str(value), self._deadline())

    def __contains__(self, address: str) -> bool:
        """Whether a session address leaves from here."""
        return address in self._leases

    def entry_of(self, address: str) -> Server | None:
        """The server whose session address this is."""
        servers = self._config.servers.values()
        return next((server for server in servers if server.speaks_for(address)), None)

    async def start(self, entry: Server, addresses: Iterable[str]) -> dict[str, str]:
        """Let a session leave from here, from exit addresses picked at random.

        One that was there under these addresses ends: it may have been somebody else's.

        Returns:
            Exit address by session address; a family that this server lacks is left out.
        """
        async with self._lock:
            await self._end([address for address in addresses if address in self._leases])
            return await self._add(entry, addresses)

    async def renew(self, entry: Server, addresses: Iterable[str], tell: bool = False) -> dict[str, str]:
        """Keep sessions; those that are not there, for this server was restarted or did not hear of them, are made.

        Returns:
            Exit address by session address, of those that were made; with ``tell``, of all.
        """
        async with self._lock:
            deadline, missing = self._deadline(), []
            told: dict[str, str] = {}
            for address in addresses:
                lease = self._leases.get(address)
                if lease is None:
                    missing.append(address)
                else:
                    lease.until = deadline
                    if tell:
                        told[address] = lease.exit
            return told | await self._add(entry, missing)

    async def stop(self, addresses: Iterable[str]) -> int:
        """End sessions. Returns how many addresses there were."""
        async with self._lock:
            known = [address for address in addresses if address in self._leases]
            await self._end(known)
            return len(known)

    async def expire(self) -> None:
        """End sessions that nobody renews. Runs until it is cancelled."""
        while True:
            await asyncio.sleep(EXPIRE_SECONDS)
            now = time.monotonic()
            over = [address for address, lease in self._leases.items() if lease.until < now]
            for start in range(0, len(over), AT_ONCE):
                async with self._lock:
                    now = time.monotonic()  # some may have been renewed since
                    batch = [a for a in over[start : start + AT_ONCE] if a in self._leases]
                    await self._end([address for address in batch if self._leases[address].until < now])
            if over:
                LOG.info("%d session addresses were not renewed in time and ended", len(over))

    async def _add(self, entry: Server, addresses: Iterable[str]) -> dict[str, str]:
        made = {address: CHOOSE(exits) for address in addresses if (exits := self._exits(address))}
        if made:
            # Noted first, so that whoever puts elements right meanwhile does not take them for surplus.
            deadline = self._deadline()
            self._leases |= {address: Lease(entry.slug, leaving, deadline) for address, leaving in made.items()}
            await self._kernel.apply({_key(address): leaving for address, leaving in made.items()})
        return made

    async def _end(self, addresses: list[str]) -> None:
        if not addresses:
            return
        for address in addresses:
            del self._leases[address]
        # The element first: what comes then finds no exit address and is dropped.
        await self._kernel.apply({_key(address): None for address in addresses})
        await self._kernel.forget(addresses)

    def _exits(self, address: str) -> tuple[str, ...]:
        return self._config.exit6 if ":" in address else self._config.exit4

    def _deadline(self) -> float:
        return time.monotonic() + self._config.lease_seconds


def _key(address: str) -> Key:
    return ("session_exit6" if ":" in address else "session_exit4", address)
