# Copyright (c) 2026 the warren.vpn authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Collects items that come in while work is under way, and does them together next.

One alone waits for nobody, and a crowd costs little more than one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Batches(Generic[T, R]):
    """Makes a function of one item out of a function of many."""

    def __init__(self, work: Callable[[list[T]], Awaitable[R]], most: int = 500) -> None:
        """``work`` gets at most ``most`` items, in the order they came. All of them get what it returns or raises."""
        self._work, self._most = work, most
        self._waiting: list[tuple[T, asyncio.Future[R]]] = []
        self._running: asyncio.Task[None] | None = None

    async def __call__(self, item: T) -> R:
        """Put an item into the next batch; return what its batch gives."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        self._waiting.append((item, future))
        if self._running is None:
            self._running = loop.create_task(self._run())
        return await future

    async def _run(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
                futures = [future for _item, future in batch if not future.done()]
                try:
                    result = await self._work([item for item, _future in batch])
                except asyncio.CancelledError:
                    for future in futures + [future for _item, future in self._waiting]:
                        future.cancel()
                    self._waiting = []
                    raise
                except Exception as error:  # noqa: BLE001 - it is theirs who asked
                    for future in futures:
                        if not future.done():
                            future.set_exception(error)
                else:
                    for future in futures:
                        if not future.done():
                            future.set_result(result)
        finally:
            self._running = None
