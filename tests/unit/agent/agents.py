"""Real agents with real disks and a real HTTP between them on loopback; only their kernels are not."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

from fleets import config, fleet, other
from servers import Caller, LoopThread, listening, loop_thread, served
from warrend import agent as agent_module
from warrend import ctl
from warrend import liveness as liveness_module
from warrend.agent import Agent
from warrend.backend import Backend
from warrend.config import Config
from warrend.control import Control
from warrend.tables import Key, Value

# What the kernel gives as the source towards any loopback address is what the entry has on the mesh.
AMS, NYC, FRA = "127.0.0.1", "127.77.0.2", "127.77.0.3"


class PlainKernel:
    """For ``warrend.kernel.Kernel``: elements in a dictionary, without flows."""

    def __init__(self, _config: Config) -> None:
        self.live: dict[Key, Value] = {}
        self.fail: list[Exception] = []

    async def _turn(self) -> None:
        await asyncio.sleep(0)
        if self.fail:
            raise self.fail[0]

    async def elements(self) -> dict[Key, Value]:
        await self._turn()
        return dict(self.live)

    async def apply(self, wanted: Mapping[Key, Value | None]) -> None:
        await self._turn()
        self.live = {key: value for key, value in {**self.live, **wanted}.items() if value is not None}

    async def restore(self, wanted: Mapping[Key, Value]) -> dict[Key, Value | None]:
        await self._turn()
        changed = {key: self.live.get(key) for key in {**wanted, **self.live} if wanted.get(key) != self.live.get(key)}
        self.live = dict(wanted)
        return changed

    async def forget(self, _addresses: Iterable[str]) -> None:
        await self._turn()

    async def forget_forwards(self, _ports: Iterable[int]) -> None:
        await self._turn()

    async def exit_seed(self) -> int:
        await self._turn()
        return 77

    async def sweep(self, wrong: Callable[[int], bool], _delete: bool = True) -> int:
        self.wrong = wrong
        await self._turn()
        return 0

    async def watch(self, _changed: Callable[[], None], _damaged: Callable[[], None]) -> None:
        await asyncio.get_running_loop().create_future()

    @staticmethod
    def links_missing() -> bool:
        return False

    def close(self) -> None:
        """Nothing."""


class Pair:
    """The entry ams and the exit nyc, which run; the exit fra does not."""

    def __init__(self, thread: LoopThread, directory: Path, **changes: Any) -> None:
        self.thread, self.directory = thread, directory
        self.socket = directory / "warrend.sock"
        sock = listening(NYC)
        port = sock.getsockname()[1]
        read = fleet()
        told = {slug: other(config(slug, read), backend_port=port) for slug in ("ams", "nyc")}
        self.told = {slug: other(self._here(each), **changes) for slug, each in told.items()}
        self._stack = ExitStack()
        self.nyc = self.make("nyc")
        self._stack.enter_context(self._backend(self.nyc, sock))
        self.ams = self.make("ams")
        self.mesh = Caller(port, AMS, NYC)

    @staticmethod
    def _here(told: Config) -> Config:
        addresses = {"ams": AMS, "nyc": NYC, "fra": FRA}
        servers = {slug: replace(each, control4=addresses[slug]) for slug, each in told.servers.items()}
        return replace(told, servers=servers)

    def make(self, slug: str) -> Agent:
        """An agent that has started, on the disk of the one before it."""
        (self.directory / slug).mkdir(exist_ok=True)

        async def start() -> Agent:
            agent = Agent(self.told[slug], self.directory / slug)
            await agent.start()
            if slug == "ams":
                await agent.entry.exits["nyc"].probe()
            return agent

        made: Agent = self.thread.run(start())
        return made

    def _backend(self, agent: Agent, sock: socket.socket) -> Any:
        return served(self.thread, lambda: Backend(agent.config, agent.leases, agent.metrics).application(), sock)

    @contextmanager
    def control(self) -> Iterator[None]:
        """The control socket of ams."""
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(self.socket))
        try:
            with served(self.thread, lambda: Control(self.ams).application(), sock):
                yield
        finally:
            self.socket.unlink(missing_ok=True)

    def close(self) -> None:
        """End them."""
        self._stack.close()
        for agent in (self.ams, self.nyc):
            self.thread.run(agent.close())


@contextmanager
def pair(directory: Path, **changes: Any) -> Iterator[Pair]:
    """Two running agents, and ``warrenctl`` that asks the one on ams; ``changes`` are of their configuration."""

    async def nobody() -> None:
        return None

    async def nothing_is_away() -> bool:
        return True

    with (
        mock.patch.object(agent_module, "Kernel", PlainKernel),
        mock.patch.object(agent_module, "put_back", nothing_is_away),
        mock.patch.object(liveness_module, "handshakes", nobody),
        mock.patch.object(ctl, "SOCKET", str(directory / "warrend.sock")),
        mock.patch.object(ctl, "PATIENCE_SECONDS", 0.3),
        loop_thread() as thread,
    ):
        running = Pair(thread, directory, **changes)
        try:
            yield running
        finally:
            running.close()
