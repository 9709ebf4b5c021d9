# Copyright (c) 2026 the warren.vpn authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which clients have chosen one of this server's own exit addresses. Whoever calls has the client's lock."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from .clients import Client
from .holds import Holds, own_way_elements
from .refusals import DISK, UNKNOWN_ADDRESS, RefusedError
from .shared import Shared
from .store import ChoiceRow, DiskError
from .tables import Key, Value


class Choices(Mapping[str, ChoiceRow]):
    """The choices, by IPv4 tunnel address."""

    def __init__(self, shared: Shared, holds: Holds) -> None:
        """There are none; :meth:`load` takes those on disk."""
        self._shared, self._holds = shared, holds
        self._rows: dict[str, ChoiceRow] = {}

    def __getitem__(self, client4: str) -> ChoiceRow:
        return self._rows[client4]

    def __iter__(self) -> Iterator[str]:
        """Who has chosen."""
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    async def load(self, rows: Iterable[ChoiceRow]) -> None:
        """Take what is on disk, but for clients and addresses that are not there any more."""
        rows = list(rows)
        kept = [row for row in rows if row.client4 in self._shared.config.clients and self._is_ours(row)]
        self._rows = {row.client4: row for row in kept}
        gone = [row.client4 for row in rows if row.client4 not in self._rows]
        if gone:
            await self._shared.disk.run(self._shared.disk.store.drop_choices, gone)

    def elements(self) -> dict[Key, Value]:
        """The elements that all of them need."""
        return {key: value for client4 in self._rows for key, value in self.of(client4).items()}

    def of(self, client4: str) -> dict[Key, Value]:
        """The elements that the choice of one client needs; none if it has none."""
        row = self._rows.get(client4)
        return {key: value for key, value in _elements(row).items() if value is not None} if row else {}

    def row(self, client: Client, exit4: str | None, exit6: str | None) -> ChoiceRow:
        """What a client wants.

        Raises:
            RefusedError: one of these is no exit address of this server.
        """
        row = ChoiceRow(client.address4, client.address6, exit4, exit6)
        if not self._is_ours(row):
            config = self._shared.config
            raise RefusedError(UNKNOWN_ADDRESS, server=config.slug, addresses=", ".join(config.exit4 + config.exit6))
        return row

    async def put(self, client: Client, row: ChoiceRow) -> ChoiceRow | None:
        """Have a client leave from what it has chosen; from the default if that is no address.

        Raises:
            RefusedError: the disk takes nothing, and nothing was changed.
        """
        disk, kernel = self._shared.disk, self._shared.kernel
        is_default = row.exit4 is None and row.exit6 is None
        try:
            if is_default:
                await disk.run(disk.store.drop_choices, [client.address4])
                self.discard(client.address4)
            else:
                await disk.run(disk.store.put_choice, row)
                self._rows[client.address4] = row
        except DiskError as error:
            raise RefusedError(DISK) from error
        try:
            await kernel.apply({**_elements(row), **self._holds.begin(client)})
            await kernel.forget([client.address4])
        finally:  # a table that is away is put back without anybody held
            self._holds.end(client.address4)
        await kernel.apply(own_way_elements(client.address4, client.address6))
        return None if is_default else row

    def discard(self, client4: str) -> None:
        """Know nothing of a client's choice any more."""
        self._rows.pop(client4, None)

    def move(self, client: Client) -> None:
        """Have the choice of a client, if it has one, be of its other IPv6 address."""
        if client.address4 in self._rows:
            self._rows[client.address4] = replace(self._rows[client.address4], client6=client.address6)

    def _is_ours(self, row: ChoiceRow) -> bool:
        config = self._shared.config
        return row.exit4 in (None, *config.exit4) and row.exit6 in (None, *config.exit6)


def _elements(row: ChoiceRow) -> dict[Key, Value | None]:
    return {("client_choice4", row.client4): row.exit4, ("client_choice6", row.client6): row.exit6}
