"""Servers without kernel, disk and network: whole agents whose effects happen one by one, in an order that is picked.

Everything that an agent does to the world outside of its process is an effect: a transaction, a write, a call. Between
any two of them a process can be killed, a server rebooted, a link cut. The clock stands still until nothing is left to
do. After every effect each client sends packets, old flows and new, and somebody looks where they come out.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import itertools
import json
import random
import selectors
import urllib.parse
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self
from unittest import mock

import aiohttp
from fleets import other
from warrend import agent as agent_module
from warrend import clients as clients_module
from warrend import entry as entry_module
from warrend import exits as exits_module
from warrend import leases as leases_module
from warrend import liveness as liveness_module
from warrend import pool as pool_module
from warrend import renewals as renewals_module
from warrend import sessions as sessions_module
from warrend.agent import Agent
from warrend.answers import plain_errors
from warrend.backend import Backend
from warrend.clients import Clients, ClientsError
from warrend.config import Config
from warrend.conntrack import EXIT_KIND, HANDLES, OWN_KIND, SESSION_KIND, handle
from warrend.refusals import AwayError, RefusedError
from warrend.store import Store
from warrend.tables import Key, TablesGoneError, Value

EPOCH = 1_700_000_000.0
INSTANT = 1e-6
"""Sleeping so long lets everything go on that does not wait for an effect or for time."""


class Clock:
    """The time of the whole world; the part of the module ``time`` that the agent uses."""

    now = 0.0
    off = 0.0
    """So much the wall clock is set wrong."""

    def time(self) -> float:
        """Unix time."""
        return EPOCH + self.now + self.off

    def monotonic(self) -> float:
        """Since the world began, and a while before."""
        return 1000 + self.now


class Jump(selectors.DefaultSelector):
    """Instead of waiting, jumps to the next timer."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "everybody waits for something that will not come"
        self._clock.now += max(0, timeout)
        return super().select(0)


class Loop(asyncio.SelectorEventLoop):
    """An event loop in the world's time, whose threads are effects."""

    def __init__(self, world: World) -> None:
        super().__init__(Jump(world.clock))
        self._world = world

    def time(self) -> float:
        return self._world.clock.now

    def run_in_executor(self, executor: Any, function: Callable[..., Any], *arguments: Any) -> Any:
        return self._world.effect(("disk", id(executor)), lambda: function(*arguments))


@dataclass(eq=False)
class Process:
    """A running agent."""

    host: Host
    alive: bool = True
    tasks: list[asyncio.Task[Any]] = field(default_factory=list)


PROCESS: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)


@dataclass
class Effect:
    """Something that is about to happen outside."""

    process: Process | None
    function: Callable[[], Any]
    future: asyncio.Future[Any]


class Disk(Store):
    """A database that outlives the process that closes it."""

    def __init__(self) -> None:
        super().__init__(Path(":memory:"))

    def close(self) -> None:
        """Nothing."""


Flow = tuple[int, str | None, str | None]
"""Kind, exit (slug or own address), session address."""


class Host:
    """A server: what stays when its agent dies, and its agent."""

    def __init__(self, world: World, config: Config) -> None:
        self.world = world
        self.handles: dict[str, int] = {}
        self.tell(config)
        self.disk = Disk()
        self.live: dict[Key, Value] = {}
        self.shaken: dict[str, float] = {}
        self.clients_error = ""
        self.gone = self.link_away = False
        self.chain_away = False
        self.can_put_back = True
        self.root_answers = True
        self.flows: defaultdict[str, set[Flow]] = defaultdict(set)
        self.fail: list[Exception] = []
        self.log: list[tuple[str, Any]] = []
        self.touched: Callable[[], None] = lambda: None
        self.damaged: Callable[[], None] = lambda: None
        self.process = Process(self, alive=False)
        self.agent: Agent | None = None
        self.exit_of_mark = {server.mark: slug for slug, server in config.servers.items()}

    def tell(self, config: Config) -> None:
        """What its next agent is told."""
        self.config = config
        clients = config.clients.values()
        self.handles |= {address: handle(c.address4) for c in clients for address in (c.address4, c.address6)}

    @property
    def up(self) -> Agent:
        """The agent, which runs."""
        assert self.agent is not None
        return self.agent

    @property
    def leased(self) -> dict[Key, Value]:
        """The elements of other servers' sessions."""
        return {key: value for key, value in self.live.items() if key[0].startswith("session_")}

    def act(self, what: str, detail: Any, function: Callable[[], Any]) -> Any:
        """What the kernel does, or refuses."""
        if self.fail:
            raise self.fail.pop(0)
        if self.gone and what in ("elements", "apply", "restore"):
            raise TablesGoneError("no such table")
        self.log.append((what, detail))
        return function()

    def apply(self, wanted: Mapping[Key, Value | None]) -> None:
        """One transaction."""
        for key, value in wanted.items():
            if value is None:
                self.live.pop(key, None)
            else:
                self.live[key] = value

    def restore(self, wanted: Mapping[Key, Value]) -> dict[Key, Value | None]:
        """The elements as wanted."""
        changes = {key: self.live.get(key) for key in {**wanted, **self.live} if wanted.get(key) != self.live.get(key)}
        self.live = dict(wanted)
        return changes

    def lose_table(self) -> None:
        """Somebody takes the table away, and all elements with it."""
        self.gone, self.live = True, {}
        self.touched()
        self.damaged()

    def put_back(self) -> None:
        """Root puts back what is away, if it can."""
        self.log.append(("put_back", None))
        if self.can_put_back and self.root_answers:
            self.gone = self.link_away = self.chain_away = False

    def forget(self, addresses: Iterable[str]) -> None:
        """No flow of these any more, of either family."""
        forgotten = {handle(address) for address in addresses}
        for address in [address for address in self.flows if self.handles[address] in forgotten]:
            del self.flows[address]

    def sweep(self, wrong: Callable[[int], bool], delete: bool) -> int:
        """Flows that are wrong."""
        listed = [(address, flow) for address, flows in self.flows.items() for flow in flows]
        found = [(address, flow) for address, flow in listed if wrong(flow[0] << 28 | self.handles[address])]
        for address, flow in found if delete else ():
            self.flows[address].discard(flow)
        return len(found)

    def way(self, address: str) -> Flow | None:
        """How a new flow of a client leaves; None if it does not."""
        family = "6" if ":" in address else "4"
        mark = int(self.live.get((f"client_mark{family}", address), 0))
        if mark >> 28 == OWN_KIND:
            return (OWN_KIND, str(self.live.get((f"client_choice{family}", address), "default")), None)
        session = self.live.get((f"client_session{family}", address))
        slug, flow = self.exit_of_mark.get(mark), self.live.get((f"client_flow{family}", address))
        assert flow in (None, EXIT_KIND << 28 | self.handles[address]), "nobody could end that flow"
        return (EXIT_KIND, slug, str(session)) if slug and session and flow else None

    def send(self, address: str) -> set[Flow]:
        """A client begins a flow and goes on with all it has; where they come out, by the flow as its entry has it."""
        way, family = self.way(address), "6" if ":" in address else "4"
        mark = int(self.live.get((f"client_mark{family}", address), 0))
        if way:
            self.flows[address].add(way)
        out: set[Flow] = set()
        for kind, leaving, session in self.flows[address]:
            if kind == OWN_KIND and mark >> 28 == OWN_KIND:
                out.add((OWN_KIND, leaving, None))
            elif kind == EXIT_KIND and mark >> 28 == EXIT_KIND:
                slug = self.exit_of_mark.get(mark)
                if slug and self.world.hosts[slug].pass_on(str(session)):
                    out.add((EXIT_KIND, slug, session))
        return out

    def pass_on(self, session: str) -> bool:
        """A packet comes in by a link; whether it leaves from here. A flow once begun needs no element to go on."""
        family = "6" if ":" in session else "4"
        exit_ = self.live.get((f"session_exit{family}", session))
        flow = int(self.live.get((f"session_flow{family}", session), 0))
        if exit_ and flow:
            self.handles[session] = flow % HANDLES
            self.flows[session].add((SESSION_KIND, str(exit_), session))
        return bool(self.flows.get(session))


class FakeKernel:
    """For ``warrend.kernel.Kernel``: changes go one after the other."""

    def __init__(self, config: Config) -> None:
        self._world = WORLD.get()
        self._host = self._world.hosts[config.slug]

    async def _run(self, what: str, detail: Any, function: Callable[[], Any]) -> Any:
        return await self._world.effect((self._host, "kernel"), lambda: self._host.act(what, detail, function))

    async def elements(self) -> dict[Key, Value]:
        found: dict[Key, Value] = await self._run("elements", None, lambda: dict(self._host.live))
        return found

    async def apply(self, wanted: Mapping[Key, Value | None]) -> None:
        await self._run("apply", wanted, lambda: self._host.apply(wanted))

    async def restore(self, wanted: Mapping[Key, Value]) -> dict[Key, Value | None]:
        found: dict[Key, Value | None] = await self._run("restore", wanted, lambda: self._host.restore(wanted))
        return found

    async def forget(self, addresses: Iterable[str]) -> None:
        given = list(addresses)
        await self._run("forget", given, lambda: self._host.forget(given))

    async def forget_forwards(self, ports: Iterable[int]) -> None:
        given = list(ports)
        await self._run("forget_forwards", given, lambda: None)

    async def exit_seed(self) -> int:
        if self._host.chain_away:
            raise TablesGoneError("chain client_as_exit does not say how exit addresses follow")
        return 77

    async def sweep(self, wrong: Callable[[int], bool], delete: bool = True) -> int:
        return int(await self._run("sweep", None, lambda: self._host.sweep(wrong, delete)))

    async def watch(self, changed: Callable[[], None], damaged: Callable[[], None]) -> None:
        self._host.touched, self._host.damaged = changed, damaged
        await asyncio.get_running_loop().create_future()

    def links_missing(self) -> bool:
        return self._host.link_away

    def close(self) -> None:
        """Nothing."""


async def put_back() -> bool:
    """Have root put back what is away."""
    process = PROCESS.get()
    assert process is not None
    await process.host.world.effect((process.host, "root"), process.host.put_back)
    return process.host.root_answers


class FakeHttp:
    """For what calls the exits: calls go over a mesh that can be cut."""

    def __init__(self, **_settings: Any) -> None:
        self._world = WORLD.get()

    @contextlib.asynccontextmanager
    async def post(self, url: str, data: Any, **options: Any) -> AsyncIterator[Any]:
        status, reply = await asyncio.wait_for(self._world.call(url, data), options["timeout"].total)

        async def iter_any() -> AsyncIterator[bytes]:
            yield json.dumps(reply).encode()

        content = SimpleNamespace(iter_any=iter_any)
        yield SimpleNamespace(status=status, content_type="application/json", headers={}, content=content)

    async def close(self) -> None:
        """Nothing."""


class World:
    """All servers of a fleet."""

    def __init__(self, configs: Iterable[Config], seed: int = 0) -> None:
        self.clock = Clock()
        self.loop = Loop(self)
        self.random = random.Random(seed)  # noqa: S311 - the same order every time
        self.orderly = seed == 0
        self.effects: dict[Any, deque[Effect]] = {}
        self.hosts = {config.slug: Host(self, config) for config in configs}
        self.cut: set[str] = set()
        self.silent: set[tuple[str, str]] = set()
        self.watchers: list[Callable[[], None]] = []
        self.late: Any = None  # a queue that comes after all others
        self.happened = 0
        self._calls = itertools.count()
        self._patches = contextlib.ExitStack()

    # --- beginning and end

    def __enter__(self) -> Self:
        secrets = SimpleNamespace(randbelow=self.random.randrange)
        self.loop.set_task_factory(self._task)
        of_agent = {"Kernel": FakeKernel, "Store": lambda p: self.hosts[p.parent.name].disk, "http_session": FakeHttp}
        for module, changes in (
            (agent_module, {**of_agent, "put_back": put_back}),
            (entry_module, {"time": self.clock}),
            (pool_module, {"secrets": secrets}),
            (renewals_module, {"secrets": secrets}),
            (sessions_module, {"time": self.clock}),
            (liveness_module, {"time": self.clock, "handshakes": self.handshakes}),
            (clients_module, {"load": self.read_clients}),
            (exits_module, {"time": self.clock}),
            (leases_module, {"time": self.clock, "CHOOSE": self.random.choice}),
        ):
            self._patches.enter_context(mock.patch.multiple(module, **changes))
        token = WORLD.set(self)
        self._patches.callback(WORLD.reset, token)
        return self

    def __exit__(self, *_error: object) -> None:
        for host in self.hosts.values():
            self.kill(host.config.slug)
        self.loop.run_until_complete(asyncio.sleep(INSTANT))
        self.loop.close()
        for host in self.hosts.values():
            Store.close(host.disk)
        self._patches.close()

    @staticmethod
    def _task(loop: Any, coroutine: Any, **more: Any) -> asyncio.Task[Any]:
        context = more.get("context")
        process = context[PROCESS] if context is not None and PROCESS in context else PROCESS.get()
        task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, **more)
        if process:
            process.tasks.append(task)
        return task

    # --- effects

    def effect(self, queue: Any, function: Callable[[], Any]) -> asyncio.Future[Any]:
        """Have something happen outside, after what is before it in its queue. The result is what it gives."""
        process, future = PROCESS.get(), self.loop.create_future()
        if process is not None and not process.alive:
            future.cancel()
        else:
            self.effects.setdefault(queue, deque()).append(Effect(process, function, future))
        return future

    def step(self) -> bool:
        """Have the next effect happen. Whether there was one."""
        queues = [queue for queue, waiting in self.effects.items() if waiting]
        queues = [queue for queue in queues if queue != self.late] or queues
        if not queues:
            return False
        queue = queues[0] if self.orderly else self.random.choice(queues)
        effect = self.effects[queue].popleft()
        if not self.effects[queue]:
            del self.effects[queue]
        if effect.future.cancelled() and queue[0] != "net":
            return True
        try:
            result = effect.function()
        except Exception as error:  # noqa: BLE001 - whoever waits for it gets it
            if not effect.future.cancelled():
                effect.future.set_exception(error)
        else:
            if not effect.future.cancelled():
                effect.future.set_result(result)
        self.happened += 1
        for watcher in self.watchers:
            watcher()
        return True

    def go(self, seconds: float = 0, until: Callable[[], bool] = lambda: False, most: int | None = None) -> None:
        """Have everything happen, and so much time pass; or until something is so, or so many effects have happened."""

        async def drive() -> None:
            end, last = self.clock.now + seconds, None if most is None else self.happened + most
            while True:
                await asyncio.sleep(INSTANT)
                if until() or self.happened == last:
                    return
                if not self.step():
                    if self.clock.now >= end:
                        return
                    await asyncio.sleep(min(0.5, end - self.clock.now))

        self.loop.run_until_complete(drive())

    def spawn(self, slug: str, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Begin something in the agent of a server."""
        context = contextvars.copy_context()
        context.run(PROCESS.set, self.hosts[slug].process)
        return self.loop.create_task(coroutine, context=context)

    def do(self, slug: str, coroutine: Coroutine[Any, Any, Any], seconds: float = 60) -> str:
        """Have an agent do something to its end: ``ok``, or why not."""
        task = self.spawn(slug, coroutine)
        self.go(seconds, task.done)
        return outcome(task)

    # --- what happens to servers

    def boot(self, *slugs: str) -> None:
        """Start agents, to their ends."""
        for slug in slugs or self.hosts:
            task = self.begin_boot(slug)
            self.go(until=task.done)
            task.result()

    def begin_boot(self, slug: str) -> asyncio.Task[None]:
        """Start an agent."""
        host = self.hosts[slug]
        assert not host.process.alive, "kill it first"
        host.process = Process(host)

        async def start() -> None:
            agent = Agent(other(host.config), Path(slug))
            await agent.start()
            host.agent = agent

        return self.spawn(slug, start())

    def kill(self, slug: str) -> None:
        """Kill an agent. What it has sent is on its way; of the rest nothing happens any more."""
        host = self.hosts[slug]
        process, host.process.alive, host.agent = host.process, False, None
        for queue, waiting in list(self.effects.items()):
            if queue[0] != "net":
                self.effects[queue] = deque(effect for effect in waiting if effect.process is not process)
        for task in process.tasks:
            task.cancel()
        self.loop.run_until_complete(asyncio.sleep(INSTANT))
        for task in process.tasks:
            if task.done() and not task.cancelled():
                task.exception()

    def reboot(self, slug: str) -> None:
        """Kill a whole server: only its disk remains, and it is not back yet."""
        self.kill(slug)
        host = self.hosts[slug]
        host.live, host.shaken = {}, {}
        host.flows.clear()

    # --- the mesh

    async def call(self, url: str, form: Any) -> tuple[int, Any]:
        """What a server's backend answers."""
        process, queue = PROCESS.get(), ("net", next(self._calls), form[0][1], len(form[2:]))
        assert process is not None
        here = process.host
        there = next(h for h in self.hosts.values() if f"/{h.config.control4}/" in url)
        ends = {here.config.slug, there.config.slug}

        def arrive() -> Any:
            if ends & self.cut:
                return self.loop.create_future()  # nothing will ever come
            if not there.process.alive or there.agent is None:
                raise aiohttp.ClientConnectionError
            return self.spawn(there.config.slug, backend(there.up, here.config.control4, form))

        answering = await self.effect(queue, arrive)
        try:
            answer: tuple[int, Any] = await asyncio.shield(answering)
        except asyncio.CancelledError:
            if answering.cancelled() and process.alive:
                raise aiohttp.ServerDisconnectedError from None
            raise
        lost = await self.effect(queue, lambda: bool(ends & self.cut))
        return await (self.loop.create_future() if lost else _at_once(answer))

    async def handshakes(self) -> dict[tuple[str, str], float]:
        """All links are up but those that are cut, and all clients there but those that are silent: none since then."""
        process = PROCESS.get()
        assert process is not None
        host, now = process.host, self.clock.time()
        config, slug = host.config, host.config.slug
        links = {
            (server.interface, str(server.public_key)): 0.0 if {server.slug, slug} & self.cut else now
            for server in config.servers.values()
        }
        clients = config.clients.values()
        host.shaken |= {c.public_key: now for c in clients if (slug, c.name) not in self.silent}
        (interface,) = config.access_interfaces
        return links | {(interface, c.public_key): host.shaken.get(c.public_key, 0.0) for c in clients}

    @staticmethod
    def read_clients() -> Clients:
        """What the file of a host has: whom its next agent is told."""
        process = PROCESS.get()
        assert process is not None
        if process.host.clients_error:
            raise ClientsError(process.host.clients_error)
        return other(process.host.config).clients


def own_ways(config: Config) -> dict[Key, Value]:
    """The elements of a server all of whose clients leave from it, and from no address of their choice."""
    ends = [(client, family) for client in config.clients.values() for family in ("4", "6")]
    return {
        (f"client_mark{family}", getattr(client, f"address{family}")): OWN_KIND << 28 | handle(client.address4)
        for client, family in ends
    }


WORLD: contextvars.ContextVar[World] = contextvars.ContextVar("world")


async def _at_once(value: Any) -> Any:
    return value


@functools.lru_cache(maxsize=8)
def backend_handler(agent: Agent) -> Any:
    """What answers POST."""
    application = Backend(agent.config, agent.leases, agent.metrics).application()
    return next(route.handler for route in application.router.routes() if route.method == "POST")


async def backend(agent: Agent, remote: str, form: Any) -> tuple[int, Any]:
    """What the backend answers to a form from an address."""
    handler = backend_handler(agent)
    body = urllib.parse.urlencode(form).encode()
    request: Any = SimpleNamespace(
        content_type="application/x-www-form-urlencoded", headers={}, remote=remote, read=lambda: _at_once(body)
    )
    response: Any = await plain_errors(request, handler)
    return response.status, json.loads(response.body)


def outcome(task: asyncio.Task[Any]) -> str:
    """What came of something that an agent did."""
    if not task.done():
        return "pending"
    if task.cancelled():
        return "killed"
    try:
        task.result()
    except RefusedError as error:
        return error.reason
    except AwayError:
        return "away"
    return "ok"
