# Copyright (c) 2026 the warren.vpn authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the owners of sessions, choices and holds work with: the disk, the kernel, locks, and work in the background."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from .batches import Batches
from .config import Config
from .kernel import Kernel
from .metrics import Metrics
from .store import DiskError, SessionRow, Store

T = TypeVar("T")


class Background:
    """Work that nobody waits for."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self.closing = False

    def start(self, work: Coroutine[Any, Any, object]) -> None:
        """Begin something."""

        async def run() -> None:
            await work

        task = asyncio.get_running_loop().create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def finish(self, seconds: float) -> None:
        """Wait for what is under way, so long at most."""
        self.closing = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)


class Disk:
    """The store, in a thread of its own; what ended is scrubbed soon after."""

    def __init__(self, store: Store, background: Background) -> None:
        self.store, self._background = store, background
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="disk")
        self._put = Batches(self._put_sessions)
        self._scrubbed = Batches(self._scrub)

    async def run(self, function: Callable[..., T], *arguments: object) -> T:
        """Run a method of the store.

        Raises:
            DiskError: the disk takes nothing.
        """
        result = await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)
        if self.store.dirty and not self._background.closing:
            self._background.start(self._scrubbed(None))
        return result

    async def put_session(self, row: SessionRow) -> None:
        """Write a session, together with others that are being started.

        Raises:
            DiskError: the disk takes nothing.
        """
        await self._put(row)

    async def _put_sessions(self, rows: list[SessionRow]) -> None:
        await self.run(self.store.put_sessions, rows)

    async def _scrub(self, _asked: list[None]) -> None:
        with contextlib.suppress(DiskError):  # a disk that takes nothing; the next scrub is for this one too
            await asyncio.get_running_loop().run_in_executor(self._thread, self.store.scrub)

    def close(self) -> None:
        """Finish what is being written."""
        self._thread.shutdown()
        self.store.close()


@dataclass(frozen=True)
class Shared:
    """What the owners of sessions, choices and holds have in common.

    Attributes:
        locks: by a client's IPv4 tunnel address. Who changes how the client leaves has its lock; who takes several,
            takes them in the order of the addresses.
    """

    config: Config
    kernel: Kernel
    disk: Disk
    metrics: Metrics
    background: Background
    locks: defaultdict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))

    @contextlib.asynccontextmanager
    async def locked(self, clients4: Iterable[str]) -> AsyncIterator[None]:
        """Have the locks of several clients."""
        async with contextlib.AsyncExitStack() as stack:
            for client4 in sorted(clients4):
                await stack.enter_async_context(self.locks[client4])
            yield
