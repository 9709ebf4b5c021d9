# Copyright (c) 2026 the warren.vpn authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ports of this server's entry address that its clients have forwarded to themselves, TCP and UDP alike.

They are of the first hop: a session with another server does not touch them. They arrive at the client on the port of
the same number, and the client sees who really connects.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import secrets
import socket
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace

from .clients import Client
from .config import Config
from .conntrack import forward_mark
from .kernel import Kernel
from .refusals import (
    CLIENT_IS_GONE,
    DISK,
    NO_FORWARD,
    NO_PORT_IS_FREE,
    PORT_IS_TAKEN,
    PORT_OUT_OF_RANGE,
    TOO_MANY_FORWARDS,
    RefusedError,
)
from .store import DiskError, ForwardRow, Store
from .tables import Key, TablesError, Value

LOG = logging.getLogger(__name__)

MAX_PORTS_PER_CLIENT = 100

ATTEMPTS = 64

Write = Callable[..., Awaitable[object]]
"""Runs a method of the store in its thread."""


class Forwards:
    """The forwarded ports of this server's clients."""

    def __init__(self, config: Config, store: Store, write: Write, kernel: Kernel) -> None:
        """Start with none; :meth:`load` reads those on disk."""
        self._config, self._store, self._write, self._kernel = config, store, write, kernel
        self._rows: dict[int, ForwardRow] = {}
        self._ports: defaultdict[str, set[int]] = defaultdict(set)
        self._ending: set[int] = set()
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self.marks: set[int] = set()

    async def load(self, rows: Iterable[ForwardRow]) -> None:
        """Take what is on disk. It is not in the kernel yet: see :meth:`elements`."""
        gone = []
        for row in rows:
            client = self._config.clients.get(row.client4)
            if client is None or not self._may_be(row.port):
                gone.append(row.port)
            else:
                self._note(ForwardRow(row.port, client.address4, client.address6, row.since))
        if gone:
            await self._write(self._store.drop_forwards, gone)

    def elements(self) -> dict[Key, Value]:
        """The elements that the forwarded ports need."""
        wanted: dict[Key, Value] = {}
        for row in self._rows.values():
            if row.port not in self._ending:
                wanted |= _elements(row)
        return wanted

    def of(self, client4: str) -> list[ForwardRow]:
        """The forwarded ports of a client, in their order."""
        return [self._rows[port] for port in sorted(self._ports.get(client4, ()))]

    def clients(self) -> list[str]:
        """The clients that have a forwarded port, by IPv4 tunnel address."""
        return [client for client, ports in self._ports.items() if ports]

    def __len__(self) -> int:
        return len(self._rows)

    async def add(self, client: Client, port: int | None = None) -> ForwardRow:
        """Forward a port, or a free one, to a client; one that it has already stays.

        Raises:
            RefusedError: it cannot be, and nothing was changed.
        """
        async with self._locks[client.address4]:
            if self._config.clients.get(client.address4) != client:  # a reload has taken it away
                raise RefusedError(CLIENT_IS_GONE, client=client.name, server=self._config.slug)
            if port is not None and port in self._ports.get(client.address4, ()):
                return self._rows[port]
            if len(self._ports[client.address4]) >= MAX_PORTS_PER_CLIENT:
                raise RefusedError(TOO_MANY_FORWARDS, most=MAX_PORTS_PER_CLIENT)
            row = ForwardRow(self._free(port), client.address4, client.address6, time.time())
            self._note(row)
            try:
                await self._write(self._store.put_forward, row)
                await self._kernel.apply(_elements(row))
            except DiskError as error:
                self._forget(row)
                raise RefusedError(DISK) from error
            except (TablesError, OSError):
                self._forget(row)
                await self._write(self._store.drop_forwards, [row.port])
                raise
            return row

    async def remove(self, client: Client, port: int) -> None:
        """Forward a port no more, and end what came in by it.

        Raises:
            RefusedError: it is none of this client's.
        """
        async with self._locks[client.address4]:
            if port not in self._ports.get(client.address4, ()):
                raise RefusedError(NO_FORWARD, port=port)
            await self._remove([self._rows[port]])

    async def drop(self, client4: str, surely: bool = False) -> None:
        """Forward nothing to a client any more.

        Args:
            client4: its IPv4 tunnel address.
            surely: even if the disk takes nothing; the agent's next start drops them from there.
        """
        async with self._locks[client4]:
            rows = self.of(client4)
            if rows:
                await self._remove(rows, surely)

    async def move(self, client: Client) -> None:
        """Have the ports of a client be of its other IPv6 address."""
        async with self._locks[client.address4]:
            rows = [replace(row, client6=client.address6) for row in self.of(client.address4)]
            for row in rows:
                self._rows[row.port] = row
            await self._kernel.apply({key: value for row in rows for key, value in _elements(row).items()})

    async def _remove(self, rows: list[ForwardRow], surely: bool = False) -> None:
        """Nobody else gets the ports before their flows are gone; if that fails, they stay whose they were."""
        ports = [row.port for row in rows]
        self._ending.update(ports)
        try:
            await self._kernel.apply({key: None for row in rows for key in _elements(row)})
            await self._kernel.forget_forwards(ports)
            await self._write(self._store.drop_forwards, ports)
        except DiskError as error:
            if not surely:
                self._ending.difference_update(ports)
                await self._kernel.apply({key: value for row in rows for key, value in _elements(row).items()})
                raise RefusedError(DISK) from error
            LOG.warning("the disk takes nothing: forwarded ports that ended are on it until warrend starts anew")
        finally:
            self._ending.difference_update(ports)
        for row in rows:
            self._forget(row)

    def _free(self, port: int | None) -> int:
        """The port if nobody has it, or any that nobody has."""
        low, high = self._config.forward_ports
        if port is not None:
            if not low <= port <= high:
                raise RefusedError(PORT_OUT_OF_RANGE, port=port, low=low, high=high)
            if port in self._rows or not self._may_be(port) or self._served(port):
                raise RefusedError(PORT_IS_TAKEN, port=port)
            return port
        taken = self._rows.keys() | self._config.reserved_ports
        free = [each for each in range(low, high + 1) if each not in taken]
        for _attempt in range(ATTEMPTS):
            found = secrets.choice(free) if free else 0
            if found and not self._served(found):
                return found
        raise RefusedError(NO_PORT_IS_FREE, low=low, high=high)

    def _may_be(self, port: int) -> bool:
        low, high = self._config.forward_ports
        return low <= port <= high and port not in self._config.reserved_ports

    def _served(self, port: int) -> bool:
        """Whether a program of this server has the port: its users are not a client's."""
        for address in filter(None, (self._config.entry4, self._config.entry6)):
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind) as sock:
                    try:
                        sock.bind((address, port))
                    except OSError as error:
                        if error.errno == errno.EADDRINUSE:
                            return True
        return False

    def _note(self, row: ForwardRow) -> None:
        self._rows[row.port] = row
        self._ports[row.client4].add(row.port)
        self.marks.add(forward_mark(row.port))

    def _forget(self, row: ForwardRow) -> None:
        del self._rows[row.port]
        self._ports[row.client4].discard(row.port)
        self.marks.discard(forward_mark(row.port))


def _elements(row: ForwardRow) -> dict[Key, Value]:
    port = str(row.port)
    return {
        ("forward4", port): row.client4,
        ("forward6", port): row.client6,
        ("forward_flow", port): forward_mark(row.port),
    }
