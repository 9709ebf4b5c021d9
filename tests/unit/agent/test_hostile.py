"""A server of the fleet in somebody else's hands, as an exit and as an entry: the others go on as if it were away."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import re
import socket
import tempfile
import time
import tracemalloc
import urllib.parse
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from agents import AMS, FRA, NYC, PlainKernel
from fleets import config, fleet
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from servers import FORM, Caller, LoopThread, listening, loop_thread, served
from warrend import agent as agent_module
from warrend import exits as exits_module
from warrend import liveness as liveness_module
from warrend import visitors as visitors_module
from warrend.agent import Agent
from warrend.backend import OPS, Backend
from warrend.clients import Client
from warrend.config import Config
from warrend.conntrack import EXIT_KIND, OWN_KIND, SESSION_KIND, handle
from warrend.control import Control
from warrend.exits import LEASES, LONGEST_REASON, ExitError
from warrend.leases import Lease
from warrend.refusals import AwayError, NoSessionError
from warrend.session_states import Session, State
from warrend.tables import Key, Value
from warrend.views import client_view, exit_view, way_view
from warrend.visitors import BACKEND

PLACES = {"ams": AMS, "nyc": NYC, "fra": FRA}
ELSEWHERE = "127.77.0.9"
READ = fleet(clients=4)
OWN = {slug: config(slug, READ) for slug in PLACES}
ADDRESSES = re.compile(r"10\.1[023]\d\.|127\.77\.|203\.0\.113\.|fd57:|2001:db8")
"""Of clients, sessions, servers and exits: none of them is for a log."""

SILENCE = 0.4
"""Seconds; what an exit that says nothing costs each test."""

PROMPT = 5.0
"""Seconds in which whoever is honest has been answered, on a computer that is busy too."""

MUCH, MOST = 50_000_000, 25_000_000
"""Bytes that are sent to somebody, and that they may have in memory meanwhile."""

RUN = settings(stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck))


class Log(logging.Handler):
    """What is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.errors: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        line = record.getMessage() + (logging.Formatter().formatException(record.exc_info) if record.exc_info else "")
        self.lines.append(line)
        if record.levelno >= logging.ERROR:
            self.errors.append(line)


class Agents:
    """Agents that run with a real HTTP between them, as in ``agents.Pair``; what they log, and what they forget."""

    def __init__(self, *sockets: socket.socket) -> None:
        """Takes the sockets of backends, which have the same port."""
        self.port, self.log = sockets[0].getsockname()[1], Log()
        self.stack = ExitStack()
        with ExitStack() as stack:
            for sock in sockets:
                stack.enter_context(sock)
            for module, name, instead in (
                (agent_module, "Kernel", PlainKernel),
                (agent_module, "put_back", self._nobody),
                (liveness_module, "handshakes", self._nobody),
            ):
                stack.enter_context(mock.patch.object(module, name, instead))
            stack.enter_context(self._logged())
            self.directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            self.thread = stack.enter_context(loop_thread())
            self.thread.loop.set_exception_handler(lambda _loop, context: self.log.errors.append(str(context)))
            self.stack = stack.pop_all()

    @staticmethod
    async def _nobody() -> None:
        return None

    @contextmanager
    def _logged(self) -> Iterator[None]:
        """As ``warrend.__main__.main`` has it."""
        root, loud = logging.getLogger(), logging.getLogger("aiohttp")
        before = root.level, loud.level
        root.setLevel(logging.INFO)
        loud.setLevel(logging.CRITICAL)
        root.addHandler(self.log)
        try:
            yield
        finally:
            root.removeHandler(self.log)
            root.setLevel(before[0])
            loud.setLevel(before[1])

    def told(self, slug: str) -> Config:
        servers = {name: replace(each, control4=PLACES[name]) for name, each in OWN[slug].servers.items()}
        return replace(OWN[slug], servers=servers, backend_port=self.port)

    def begin(self, slug: str, prepare: Callable[[Agent], None] = lambda _agent: None) -> Agent:
        """An agent that has started."""
        (self.directory / slug).mkdir()

        async def start() -> Agent:
            agent = Agent(self.told(slug), self.directory / slug)
            prepare(agent)
            await agent.start()
            return agent

        agent: Agent = self.thread.run(start())
        self.stack.callback(lambda: self.thread.run(agent.close()))
        return agent

    def serve(self, agent: Agent, sock: socket.socket, **limits: Any) -> None:
        """Its backend."""
        make = Backend(agent.config, agent.leases, agent.metrics).application
        self.stack.enter_context(served(self.thread, make, sock, **limits))

    @staticmethod
    def live(agent: Agent, maps: str = "") -> dict[Key, Value]:
        """What its kernel has, in the maps whose names begin so."""
        kernel: Any = agent.kernel
        return {key: value for key, value in kernel.live.items() if key[0].startswith(maps)}

    @staticmethod
    def until(so: Callable[[], bool], seconds: float = PROMPT) -> None:
        end = time.monotonic() + seconds
        while not so():
            assert time.monotonic() < end
            time.sleep(0.01)

    def assert_runs(self, agent: Agent) -> None:
        """Only the sweep ends by itself; and nobody's exception came out, or says an address."""
        over = [task for task in agent._tasks if task.done()]  # noqa: SLF001 - they are nobody's business otherwise
        assert [task for task in over if task.cancelled() or task.exception()] == []
        assert len(over) <= 1
        assert self.log.errors == []
        assert [line for line in self.log.lines if ADDRESSES.search(line) or not line.isprintable()] == []


def same_port(*addresses: str) -> list[socket.socket]:
    """Sockets with a port that is free at each of these addresses."""
    while True:
        first = listening(addresses[0])
        made = [first]
        try:
            for address in addresses[1:]:
                made.append(socket.socket())
                made[-1].bind((address, first.getsockname()[1]))
        except OSError:
            for sock in made:
                sock.close()
        else:
            return made


def client_elements(client: Client, session: Session | None, told: Config) -> dict[Key, Value]:
    """What the kernel of an entry should have of a client."""
    families = ("4", client.address4, 0), ("6", client.address6, 1)
    if session is None:
        mark = OWN_KIND << 28 | handle(client.address4)
    elif session.state is State.ACTIVE:
        mark = told.servers[session.row.exit].mark or 0
    else:
        mark = told.block_mark
    wanted: dict[Key, Value] = {(f"client_mark{n}", address): mark for n, address, _place in families}
    if session is not None and session.state is State.ACTIVE:
        flow = EXIT_KIND << 28 | handle(client.address4)
        wanted |= {(f"client_flow{n}", address): flow for n, address, _place in families}
        wanted |= {(f"client_session{n}", address): session.pair[place] for n, address, place in families}
    return wanted


def session_elements(session: Session) -> dict[Key, Value]:
    """What the kernel of an exit should have of a session, by what its entry was told."""
    wanted: dict[Key, Value] = {}
    for n, address in zip("46", session.pair, strict=True):
        wanted |= {(f"session_flow{n}", address): SESSION_KIND << 28 | handle(session.pair[0])}
        wanted |= {(f"session_exit{n}", address): session.addresses[address]}
    return wanted


# --- a hostile exit


JSON_TYPE = b"Content-Type: application/json"
Asked = tuple[list[str], list[str]]


@dataclass(frozen=True)
class Answer:
    """How the hostile exit answers one request.

    Attributes:
        before, after: bytes around the answer itself.
        line, headers: its head, without what `framing` adds.
        said: its body; "4" and "6" in ``exits`` stand for the session addresses that it was asked about.
        framing: how its end is said.
        cut, then: after which part of all that (of 1), what: "on" to the next request, "close", "reset" or "wait".
        slowly: whether byte by byte.
        flood: instead of all that, see FLOODS.
    """

    before: bytes = b""
    line: bytes = b"HTTP/1.1 200 OK"
    headers: tuple[bytes, ...] = (JSON_TYPE,)
    said: Any = None
    framing: str = "length"
    after: bytes = b""
    cut: float = 1.0
    then: str = "on"
    slowly: bool = False
    flood: str = ""

    def data(self, asked: Asked) -> bytes:
        """All of it, or how a flood begins."""
        if self.flood:
            return FLOODS[self.flood][0]
        body = self.said if isinstance(self.said, bytes) else json.dumps(_filled(self.said, asked)).encode()
        framed = FRAMINGS[self.framing](body)
        data = self.before + b"\r\n".join((self.line, *self.headers)) + b"\r\n" + framed + self.after
        return data[: int(len(data) * self.cut)]


def _filled(said: Any, asked: Asked) -> Any:
    if not isinstance(said, dict) or not isinstance(said.get("exits"), dict):
        return said
    exits = dict(said["exits"])
    for name, addresses in zip("46", asked, strict=True):
        if name in exits:
            exits |= dict.fromkeys(addresses, exits.pop(name))
    return {**said, "exits": exits}


def _sized(size: bytes) -> Callable[[bytes], bytes]:
    return lambda body: b"Content-Length: " + size + b"\r\n\r\n" + body


def _chunked(body: bytes, end: bytes = b"0\r\n\r\n", size: bytes = b"") -> bytes:
    return b"Transfer-Encoding: chunked\r\n\r\n" + (size or b"%x" % len(body)) + b"\r\n" + body + b"\r\n" + end


FRAMINGS: dict[str, Callable[[bytes], bytes]] = {
    "length": lambda body: b"Content-Length: %d\r\n\r\n" % len(body) + body,
    "less": lambda body: b"Content-Length: %d\r\n\r\n" % (len(body) // 2) + body,
    "more": lambda body: b"Content-Length: %d\r\n\r\n" % (len(body) + 9) + body,
    "two lengths": lambda body: b"Content-Length: 2\r\nContent-Length: %d\r\n\r\n" % len(body) + body,
    "length and chunks": lambda body: b"Content-Length: %d\r\n" % len(body) + _chunked(body),
    "no length": lambda body: b"\r\n" + body,
    "no head": lambda body: body,
    "negative": _sized(b"-1"),
    "hexadecimal": _sized(b"0x2"),
    "huge": _sized(b"9" * 30),
    "nothing": _sized(b""),
    "chunks": _chunked,
    "no last chunk": lambda body: _chunked(body, b""),
    "no chunks": lambda body: _chunked(body, size=b"zz"),
    "huge chunk": lambda body: _chunked(body, size=b"f" * 16),
    "huger chunk": lambda body: _chunked(body, size=b"f" * 200),
    "negative chunk": lambda body: _chunked(body, size=b"-2"),
    "trailers": lambda body: _chunked(body, b"0\r\n" + b"X: %b\r\n" % (b"x" * 2000) * 50 + b"\r\n"),
}


def each_of(*values: Any) -> st.SearchStrategy[Any]:
    """As ``sampled_from``, for values that are too large to be shown."""
    return st.integers(0, len(values) - 1).map(lambda number: values[number])


WORD = st.text(max_size=5) | each_of("\x1b[2J", "\x1b]0;x\x07", "\u202e\0", "x" * 5000, "\ud800")
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORD,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORD, inner, max_size=3),
    max_leaves=6,
)
GOOD_EXITS = {"4": OWN["nyc"].exit4[0], "6": OWN["nyc"].exit6[0]}
OTHERS = (*OWN["fra"].exit4, *OWN["ams"].exit4, *OWN["ams"].exit6, "198.51.100.66", "2001:db8::66", "10.100.0.1")
EXIT = st.sampled_from((*OTHERS, *OWN["nyc"].exit4, *OWN["nyc"].exit6)) | WORD | ANY_JSON
ASKED = st.sampled_from(("4", "6", "4", "6", "10.129.128.5", "fd57:6172:7265:8003::5", "10.100.0.1", "203.0.113.21"))
LEASE = st.sampled_from((5, 8, 60, 3600)) | st.sampled_from((0, 4, 3601, -1, 10**400, True, 8.0, 0.5, "8", None))
EXITS = st.dictionaries(ASKED | WORD, EXIT, max_size=4)
SAID = st.fixed_dictionaries({"exits": EXITS | ANY_JSON, "lease_seconds": LEASE | ANY_JSON})
BODY = each_of(
    b"", b"{}", b"[]", b"null", b"[" * 100_000, b'{"exits":' * 25_000, b'{"exits": {}, "lease_seconds": NaN}',
    b'{"exits": {}, "lease_seconds": -Infinity}', b'{"exits": {}, "lease_seconds": %b}' % (b"9" * 9000),
    b'{"exits": {}, "lease_seconds": 1e999}', b'{"exits": {}, "exits": 7}', b'\xef\xbb\xbf{"exits": {}}',
    b'{"exits": {"\xff": 1}}', b'{"exits": {"\\ud800": 1}}', json.dumps({"exits": {}}).encode("utf-16"),
    b'{"exits": {%b}}' % b",".join(b'"%d": "203.0.113.21"' % n for n in range(9000)),
    gzip.compress(b'{"exits": {}}', mtime=0), b" " * 200_000 + b'{"exits": {}}',
)  # fmt: skip
HEADER = each_of(
    b"Content-Encoding: gzip", b"Content-Encoding: br", b"Content-Encoding: deflate, gzip", b"Connection: close",
    b"Content-Type: application/json; charset=zlib_codec", b"Content-Type: application/json; charset=\xff",
    b"Content-Type: text/html", b"Content-Type", b"Content-Type: ;;;=", b"Transfer-Encoding: gzip, chunked",
    b"Set-Cookie: a=b; Domain=.; Path=/; Max-Age=9999999999999999999", b"Connection: upgrade\r\nUpgrade: websocket",
    b"Keep-Alive: timeout=-1", b"Trailer: Content-Length", b"X: " + b"x" * 7000, b"X: " + b"x" * 70_000,
    b"X: \x1b[2J\0", b" folded", b": nothing", b"Link: <\x1b>; rel=\xff", b"Expires: \0",
)  # fmt: skip
HEADS = st.lists(HEADER | st.binary(max_size=12), min_size=1, max_size=3).map(lambda more: (JSON_TYPE, *more))
LINE = st.binary(max_size=20) | each_of(
    b"HTTP/1.0 200 OK", b"HTTP/1.1 204 No", b"HTTP/1.1 304 No", b"HTTP/1.1 101 Switching Protocols",
    b"HTTP/1.1 103 Early", b"HTTP/1.1 99 No", b"HTTP/1.1 200", b"HTTP/1.1 999 \xff\x1b[2J", b"HTTP/9.9 200 OK",
    b"HTTP/1.1 99999999999 OK", b"HTTP/1.1 -200 OK", b"POST / HTTP/1.1", b"ICY 200 OK", b"HTTP/1.1 401 No",
    b"HTTP/1.1 407 No", b"HTTP/1.1 200 " + b"x" * 70_000,
)  # fmt: skip
STATUS = st.sampled_from([b"HTTP/1.1 %d No" % status for status in (201, 400, 403, 413, 418, 429, 500, 503)])
ERROR = st.fixed_dictionaries({"error": WORD | ANY_JSON, "reason": WORD})
LONG = each_of(*({"error": word * 500} for word in ("x", "\x1b[2J", "\0", "\n", "\ud800")))
NOT_ASKED = dict.fromkeys(("10.129.128.5", "10.100.0.1"), OWN["nyc"].exit4[0])
LIES = each_of(
    *(
        {"exits": {**GOOD_EXITS, **lie}}
        for lie in (NOT_ASKED, {"4": OTHERS[0]}, {"6": OTHERS[5]}, {"4": GOOD_EXITS["6"]})
    )
)
LEASES_TOLD = each_of(*({"exits": GOOD_EXITS, "lease_seconds": each} for each in (8.0, 8.0, 4, 3601, 10**400, -8)))
GOOD = Answer(said={"exits": GOOD_EXITS, "lease_seconds": 60})
MORE = GOOD.data(([], []))
HOPS = [b"HTTP/1.1 %d Elsewhere" % status for status in (301, 302, 303, 307, 308, 300, 305)]
WAYS = (b"http://%b:%d/mh-backend", b"//%b:%d/", b"http://nyc@%b:%d/", b"ws://%b:%d/")


def but(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Answer]:
    """A good answer, but for something."""
    return st.builds(Answer, **{"said": st.just(GOOD.said), **fields})


NOTHING = (
    Answer(cut=0.0, then="close"),
    Answer(said=b"{", then="reset"),
    Answer(line=b"HTTP/1.1 503 No", said={"error": "no"}),
    Answer(line=HOPS[3], headers=(JSON_TYPE, b"Location: " + WAYS[0]), said={}),
)
ANSWER = st.one_of(
    st.just(GOOD),
    but(said=SAID),
    but(said=LIES),
    but(said=LEASES_TOLD),
    but(said=LEASES_TOLD),
    but(line=STATUS, said=LONG),
    but(said=EXITS.map(lambda exits: {"exits": exits, "lease_seconds": 60})),
    but(said=BODY | st.binary(max_size=30) | ANY_JSON),
    but(line=STATUS, said=ERROR | ANY_JSON | BODY),
    but(line=LINE),
    but(line=st.sampled_from(HOPS), headers=st.sampled_from(WAYS).map(lambda way: (JSON_TYPE, b"Location: " + way))),
    but(headers=HEADS),
    but(headers=st.just((JSON_TYPE, b"Content-Encoding: gzip")), said=each_of(gzip.compress(MORE, mtime=0))),
    but(framing=st.sampled_from(list(FRAMINGS)), then=st.sampled_from(("on", "close"))),
    but(before=st.sampled_from((b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 E\r\nX: y\r\n\r\n", b"\r\n"))
        .flatmap(lambda one: st.integers(1, 2000).map(lambda times: one * times))),
    but(after=each_of(b"\r\n", MORE, MORE * 200, b"HTTP/1.1 ") | st.binary(max_size=30)),
    but(cut=st.floats(0, 1), then=st.sampled_from(("close", "reset", "wait")), slowly=st.booleans()),
    but(line=LINE, headers=HEADS, said=SAID | BODY, framing=st.sampled_from(list(FRAMINGS)), cut=st.floats(0, 1),
        then=st.sampled_from(("close", "reset"))),
)  # fmt: skip

BIG = b"x" * 50_000
HEAD = MORE[: MORE.index(b"Content-Length")]
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
PACKED = gzip.compress(bytes(MUCH), 1, mtime=0)
FLOODS: dict[str, tuple[bytes, bytes]] = {
    "a length": (HEAD + b"Content-Length: %d\r\n\r\n" % MUCH, BIG),
    "no length": (HEAD + b"\r\n", BIG),
    "white space": (HEAD + b"\r\n", b" " * 50_000),
    "chunks": (CHUNKED, b"c350\r\n%b\r\n" % BIG),
    "small chunks": (CHUNKED, b"1\r\n \r\n" * 8000),
    "a chunk's name": (CHUNKED + b"1;x=", BIG),
    "trailers": (CHUNKED + b"2\r\n{}\r\n0\r\n", b"X: %b\r\n" % BIG[:5000] * 10),
    "headers": (HEAD, b"X: %b\r\n" % BIG[:5000] * 10),
    "cookies": (HEAD, b"Set-Cookie: x=%b\r\n" % BIG[:5000] * 10),
    "a header": (HEAD + b"X: ", BIG),
    "a status": (b"HTTP/1.1 200 ", BIG),
    "continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 2000),
    "another protocol": (b"HTTP/1.1 101 No\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", BIG),
    "something packed": (HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(PACKED) + PACKED, b""),
    "more answers": (b"", MORE * 500),
    "answers to nothing": (MORE, MORE * 500),
    "bytes after the answer": (MORE, BIG),
}
"""How each begins, and how it goes on."""


class HostileServer:
    """Answers as it is told, over and over; in a thread of its own."""

    def __init__(self, thread: LoopThread, sock: socket.socket, elsewhere: int) -> None:
        self.plan, self.flooding = [GOOD], False
        self.open: set[asyncio.StreamWriter] = set()
        self._thread, self._elsewhere, self._next = thread, elsewhere, 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server = thread.run(asyncio.start_server(self._connected, sock=sock))

    def close(self) -> None:
        self._thread.run(self._close())

    async def _close(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open.add(writer)
        try:
            while await self._answer(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open.discard(writer)
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer a request. Whether there may be another."""
        head = await reader.readuntil(b"\r\n\r\n")
        size = re.search(rb"(?i)content-length: (\d+)", head)
        form = urllib.parse.parse_qs((await reader.readexactly(int(size[1]) if size else 0)).decode())
        answer = self.plan[self._next % len(self.plan)]
        self._next += 1
        data = answer.data((form.get("session_ip", []), form.get("session_ip6", [])))
        if b"Location" in data:
            data = data.replace(b"%b:%d", b"%b:%d" % (ELSEWHERE.encode(), self._elsewhere))
        for piece in [data[n : n + 1] for n in range(len(data))] if answer.slowly else [data]:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.001 * answer.slowly)
        if answer.flood:
            await self._flood(writer, FLOODS[answer.flood][1])
        if answer.then == "wait":
            await reader.read()
        if answer.then == "close":
            writer.write_eof()
            await reader.read()
        return answer.then == "on"

    async def _flood(self, writer: asyncio.StreamWriter, filler: bytes) -> None:
        self.flooding = True
        try:
            await asyncio.sleep(0.1)
            for _time in range(MUCH // len(filler) if filler else 0):
                writer.write(filler)
                await writer.drain()
        finally:
            self.flooding = False


class Turns(asyncio.Event):
    """The news of an exit, for which ``Entry.keep`` waits after each turn."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.resting = 0, False

    async def wait(self) -> Any:
        self.begun, self.resting = self.begun + 1, True
        try:
            return await super().wait()
        finally:
            self.resting = False


class HostileExit(RuleBasedStateMachine):
    """Clients of ams leave by nyc, which is hostile, or by fra, which is not; c4 by fra all the time."""

    @initialize()
    def begin(self) -> None:
        nyc, fra = same_port(NYC, FRA)
        self.agents = Agents(nyc, fra)
        self.stack = self.agents.stack
        self.third = self.stack.enter_context(socket.create_server((ELSEWHERE, 0)))
        self.third.setblocking(False)
        hostile = self.stack.enter_context(loop_thread())
        self.hostile = HostileServer(hostile, nyc, self.third.getsockname()[1])
        self.stack.callback(self.hostile.close)
        self.fra = self.agents.begin("fra")
        self.agents.serve(self.fra, fra)
        self.turns = Turns()
        self.ams = self.agents.begin("ams", self.watch)
        self.entry, self.told = self.ams.entry, self.ams.config
        self.exit = self.entry.exits["nyc"]
        self.ways: dict[str, str | None] = dict.fromkeys(("c1", "c2", "c3", "c4"))
        self.stack.enter_context(mock.patch.object(exits_module, "TIMEOUT_SECONDS", SILENCE))
        self.go("c4", "fra")

    def watch(self, agent: Agent) -> None:
        agent.entry.sessions.wakeups["nyc"] = self.turns

    def do(self, work: Coroutine[Any, Any, Any], *may: type[Exception]) -> Any:
        """Do something within time, and what follows from it. What is raised, if it may be."""
        began = time.monotonic()
        try:
            result = self.agents.thread.run(work)
        except may as error:
            result = error
        assert time.monotonic() - began < PROMPT
        said = str(result) if isinstance(result, Exception) else ""
        assert said.isprintable()
        assert len(said) < LONGEST_REASON + 150
        self.agents.thread.run(self.settle())
        return result

    async def settle(self) -> None:
        """Until nothing is under way."""
        until = time.monotonic() + PROMPT
        while not self.turns.resting or self.turns.is_set() or self.entry._background._tasks:  # noqa: SLF001 - as above
            assert time.monotonic() < until, "something does not end"
            await asyncio.sleep(0.005)

    def go(self, name: str, slug: str) -> None:
        client, patience = self.entry.client(name), 3.0 if slug == "fra" else SILENCE
        with mock.patch.object(exits_module, "TIMEOUT_SECONDS", patience):
            before = self.ways[name]
            self.ways[name] = slug
            said = self.do(self.entry.start(client, slug), *(() if slug == "fra" else (AwayError,)))
        if before != slug and not isinstance(said, AwayError):
            assert said is self.entry.sessions[client.address4]

    @rule(name=st.sampled_from(("c1", "c2", "c3")), plan=st.lists(ANSWER, min_size=1, max_size=3))
    def start(self, name: str, plan: list[Answer]) -> None:
        self.hostile.plan = plan
        self.go(name, "nyc")

    @rule(name=st.sampled_from(("c1", "c2", "c3")), answer=each_of(*NOTHING))
    def start_in_vain(self, name: str, answer: Answer) -> None:
        """Who is not there already goes nowhere."""
        self.hostile.plan = [answer]
        before = self.sessions("nyc").get(name)
        was = before.state if before else None
        self.go(name, "nyc")
        assert was is State.ACTIVE or self.sessions("nyc")[name].state is State.BLOCKED

    @rule(name=st.sampled_from(("c1", "c2", "c3")), plan=st.lists(ANSWER, min_size=1, max_size=3))
    def leave_by_fra(self, name: str, plan: list[Answer]) -> None:
        self.hostile.plan = plan
        self.go(name, "fra")

    @rule(name=st.sampled_from(("c1", "c2", "c3")), plan=st.lists(ANSWER, min_size=1, max_size=3))
    def stop(self, name: str, plan: list[Answer]) -> None:
        self.hostile.plan = plan
        said = self.do(self.entry.stop(self.entry.client(name)), NoSessionError)
        assert isinstance(said, NoSessionError) is (self.ways[name] is None)
        self.ways[name] = None

    @rule(plan=st.lists(ANSWER, min_size=1, max_size=3))
    def probe(self, plan: list[Answer]) -> None:
        self.hostile.plan = plan
        said = self.do(self.exit.probe(), ExitError)
        assert not isinstance(said, ExitError) or said.reason in ("refused", "unreachable")

    @rule(plan=but(said=LIES).map(lambda lie: [lie]) | st.lists(ANSWER, min_size=1, max_size=3), tell=st.booleans())
    def renew(self, plan: list[Answer], tell: bool) -> None:
        self.hostile.plan = plan
        pairs = [("10.128.128.9", "fd57:6172:7265:8001::9")]
        pairs += [session.pair for session in self.sessions("nyc").values()]
        said = self.do(self.exit.renew(pairs, tell), ExitError)
        if not isinstance(said, ExitError):
            self.assert_own(said, {address for pair in pairs for address in pair})

    @rule(plan=st.lists(ANSWER, min_size=1, max_size=3), silent=st.booleans())
    def keep(self, plan: list[Answer], silent: bool) -> None:
        """A turn of its own; ``silent``: after so long that the exit has dropped all."""
        self.hostile.plan = plan
        if silent:
            self.exit.answered -= 2 * LEASES.stop
        begun = self.turns.begun
        self.do(self.turn())
        assert self.turns.begun > begun
        if silent and not self.exit.reachable and self.exit.gone:
            assert {session.state for session in self.sessions("nyc").values()} <= {State.BLOCKED}

    async def turn(self) -> None:
        self.turns.set()

    def sessions(self, slug: str) -> dict[str, Session]:
        clients = {name: self.entry.client(name).address4 for name, way in self.ways.items() if way == slug}
        return {name: self.entry.sessions[address] for name, address in clients.items()}

    def assert_own(self, said: Mapping[str, str], asked: set[str]) -> None:
        """Only of nyc, and only what it was asked about."""
        assert said.keys() <= asked
        for session, address in said.items():
            assert address in (self.exit.server.exit6 if ":" in session else self.exit.server.exit4)

    @invariant()
    def all_is_well(self) -> None:
        self.agents.assert_runs(self.ams)
        self.agents.assert_runs(self.fra)
        with pytest.raises(BlockingIOError):
            self.third.accept()
        assert len(self.entry.sessions) == sum(way is not None for way in self.ways.values())
        wanted: dict[Key, Value] = {}
        for client in self.told.clients.values():
            session = self.entry.sessions.get(client.address4)
            wanted |= client_elements(client, session, self.told)
            assert (session.row.exit if session else None) == self.ways[client.name]
        assert self.agents.live(self.ams) == wanted
        fras = self.sessions("fra").values()
        assert {session.state for session in fras} == {State.ACTIVE}
        elements = [session_elements(session) for session in fras]
        assert self.agents.live(self.fra, "session_") == {
            key: value for each in elements for key, value in each.items()
        }
        for session in self.sessions("nyc").values():
            assert session.state is not State.HELD
            self.assert_own(session.addresses, set(session.pair))

    @invariant()
    def little_is_kept_and_shown(self) -> None:
        assert isinstance(self.exit.lease_seconds, int)
        assert not isinstance(self.exit.lease_seconds, bool)
        assert self.exit.lease_seconds in LEASES
        assert not self.ams.http.cookie_jar
        assert len(self.hostile.open) <= 8
        views: list[Any] = [exit_view(exit_) for exit_ in self.entry.exits.values()]
        for client in self.told.clients.values():
            views += [client_view(self.told, self.entry, client), way_view(self.told, self.entry, client)]
        shown = json.dumps(views, ensure_ascii=False, allow_nan=False)
        assert shown.isprintable()
        assert len(shown) < 5000

    def teardown(self) -> None:
        """An exit that comes to its senses has its sessions back."""
        if not hasattr(self, "agents"):
            return
        try:
            if hasattr(self, "ways"):
                self.hostile.plan = [GOOD]
                with mock.patch.object(exits_module, "TIMEOUT_SECONDS", 3.0):
                    for _turn in range(2):
                        self.do(self.turn())
                assert self.exit.reachable
                assert {session.state for session in self.sessions("nyc").values()} <= {State.ACTIVE}
                self.all_is_well()
        finally:
            self.stack.close()


TestHostileExit = HostileExit.TestCase
TestHostileExit.settings = settings(RUN, max_examples=45)


@pytest.mark.parametrize("kind", FLOODS)
def test_what_an_exit_pours_out_is_not_kept(kind: str) -> None:
    nyc = listening(NYC)
    agents = Agents(nyc)
    with agents.stack as stack:
        hostile = HostileServer(stack.enter_context(loop_thread()), nyc, 0)
        stack.callback(hostile.close)
        exit_ = agents.begin("ams").entry.exits["nyc"]
        agents.until(lambda: exit_.reachable)
        stack.enter_context(mock.patch.object(exits_module, "TIMEOUT_SECONDS", 1.0))
        hostile.plan = [Answer(flood=kind)]
        began = time.monotonic()
        tracemalloc.start()
        try:
            with suppress(ExitError):
                agents.thread.run(exit_.probe())
            while hostile.flooding and tracemalloc.get_traced_memory()[1] < MOST and time.monotonic() - began < PROMPT:
                time.sleep(0.01)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < MOST
        assert exit_.lease_seconds == 60


# --- a hostile entry


FRAS4, FRAS6 = OWN["nyc"].servers["fra"].session4, OWN["nyc"].servers["fra"].session6
NUMBERS = st.lists(st.integers(1, 9), max_size=4, unique=True)
HONEST = "HONEST"
"""Stands for an address of a session of the honest entry."""
Addresses = tuple[list[str], list[str]]


def fours(numbers: Iterable[int]) -> list[str]:
    """Session addresses of fra."""
    return [str(FRAS4[number]) for number in numbers]


def sixes(numbers: Iterable[int]) -> list[str]:
    """The same for IPv6."""
    return [str(FRAS6[number]) for number in numbers]


LIKELY = NUMBERS.flatmap(
    lambda numbers: st.tuples(
        st.just(fours(numbers)),
        st.permutations(numbers).map(sixes) | st.sampled_from((numbers, numbers, [])).map(sixes),
    )
)
CROWDS = st.tuples(st.sampled_from((60, 64, 65, 130, 999, 1000, 1001, 3000)), st.integers(0, 64), st.booleans()).map(
    lambda drawn: (
        fours(range(drawn[1] + 1, drawn[1] + drawn[0] + 1)),
        sixes(range(1, drawn[0] + 1)) if drawn[2] else [],
    )
)
OF_OTHERS = st.tuples(
    NUMBERS,
    st.sampled_from((HONEST, HONEST, "10.128.128.5", "10.130.0.5", "10.100.0.1", "203.0.113.21", "127.0.0.1")),
    st.sampled_from((HONEST, HONEST, "fd57:6172:7265:8001::5", "::ffff:10.129.128.5", "fd57:6172:7265:2::c1")),
    st.sampled_from(("4", "46", "6", "4 without 6")),
).map(
    lambda drawn: (
        [*fours(drawn[0]), drawn[1] if "4" in drawn[3] else str(FRAS4[91])],
        [] if "without" in drawn[3] else [*sixes(drawn[0]), drawn[2] if "6" in drawn[3] else str(FRAS6[91])],
    )
)
"""With an address of others at the end."""
ODD = WORD | st.sampled_from(
    ("10.129.128.05", "10.129.128.5/32", "10.129.33029", "fd57:6172:7265:8003::5%1", "1" * 5000)
)
SPARES: tuple[Addresses, ...] = (
    ([str(FRAS4[91])] * 2, [str(FRAS6[91]), str(FRAS6[92])]),
    ([str(FRAS4[91]), str(FRAS4[92])], [str(FRAS6[91])] * 2),
    ([str(FRAS4[91])] * 2, []),
    ([], [str(FRAS6[91])]),
)
WRONG = st.tuples(
    NUMBERS, st.sampled_from(SPARES) | st.lists(ODD, min_size=1, max_size=2).map(lambda odd: (odd, odd[1:]))
).map(lambda drawn: (fours(drawn[0]) + drawn[1][0], sixes(drawn[0]) + drawn[1][1]))
"""No addresses, or one twice, or not as many of one family as of the other."""
NO_OP = st.tuples(WORD, st.just("fra"), LIKELY)
NO_SLUG = st.tuples(st.sampled_from(OPS), WORD | st.sampled_from(("ams", "nyc", "")), LIKELY)

START = b"POST /mh-backend HTTP/1.1\r\nHost: nyc\r\nContent-Type: application/x-www-form-urlencoded\r\n"
SPARE = "10.129.200.7"
"""The session address in requests of which nobody knows when they are answered."""
CALL = f"op=start&a_slug=fra&session_ip={SPARE}".encode()
HALVES = (b"", b"P", START, START + b"X: ", START + b"Content-Length: 99\r\n\r\n" + CALL, b"\r\n",
          START + b"Transfer-Encoding: chunked\r\n\r\n2b\r\n" + CALL)  # fmt: skip
RAW = st.binary(max_size=40) | st.lists(
    each_of(
        START, CALL, BIG * 8, PACKED, b"\r\n", b"\r\n", b"2b\r\n", b"0\r\n", b"zz\r\n", b"X: " + BIG + b"\r\n",
        b"Content-Length: 43\r\n", b"Content-Length: 43\r\n", b"Content-Length: 0\r\n", b"Content-Length: -1\r\n",
        b"Content-Length: 99999999999999999999\r\n", b"Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n", b"Content-Encoding: gzip\r\n", b"Expect: 100-continue\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: x\r\n", b"OPTIONS * HTTP/1.0\r\n", b"CONNECT 127.77.0.9:80 HTTP/1.1\r\n",
        b"GET http://127.77.0.9/mh-backend HTTP/1.1\r\n", b"Upgrade: websocket\r\nConnection: upgrade\r\n",
        b"X-Forwarded-For: 127.0.0.1\r\nForwarded: for=127.0.0.1\r\n",
    ),
    max_size=7,
).map(lambda parts: b"".join((START, *parts)))  # fmt: skip
MANY = {
    "descriptions": b"GET /openapi.json HTTP/1.1\r\nHost: nyc\r\n\r\n",
    "metrics": b"GET /metrics HTTP/1.1\r\nHost: nyc\r\n\r\n",
    "sessions": START + b"Content-Length: %d\r\n\r\n" % len(CALL) + CALL,
    "lines": b"\r\n" * 50,
    "nothing": b"GET / HTTP/1.1\r\n\r\n",
}


class HostileEntry(RuleBasedStateMachine):
    """Clients of ams leave by nyc, of which fra asks whatever it likes."""

    @initialize()
    def begin(self) -> None:
        sock = listening(NYC)
        self.agents = Agents(sock)
        self.stack = self.agents.stack
        self.stack.enter_context(mock.patch.object(visitors_module, "PATIENCE_SECONDS", 2.0))
        self.held: list[socket.socket] = []
        self.nyc = self.agents.begin("nyc")
        self.agents.serve(self.nyc, sock, limits=BACKEND)
        self.control = self.agents.directory / "control"
        control = socket.socket(socket.AF_UNIX)
        control.bind(str(self.control))
        self.stack.enter_context(served(self.agents.thread, lambda: Control(self.nyc).application(), control))
        self.ams = self.agents.begin("ams")
        self.entry, self.exit = self.ams.entry, self.ams.entry.exits["nyc"]
        self.fra, self.hostile = self.nyc.config.servers["fra"], Caller(self.agents.port, FRA, NYC)
        self.stack.callback(self.let_go)
        self.start("c4")

    def do(self, work: Coroutine[Any, Any, Any], *may: type[Exception]) -> Any:
        """What the honest entry does is done within time."""
        began = time.monotonic()
        try:
            return self.agents.thread.run(work)
        except may as error:
            return error
        finally:
            assert time.monotonic() - began < PROMPT

    # what is honest

    @rule(name=st.sampled_from(("c1", "c2", "c3")))
    def start(self, name: str) -> None:
        session = self.do(self.entry.start(self.entry.client(name), "nyc"))
        assert session.state is State.ACTIVE

    @rule(name=st.sampled_from(("c1", "c2", "c3")))
    def stop(self, name: str) -> None:
        self.do(self.entry.stop(self.entry.client(name)), NoSessionError)

    @rule(tell=st.booleans())
    def renew(self, tell: bool) -> None:
        """Nothing of it had to be made anew."""
        told: dict[str, str] = {}
        for session in self.entry.sessions.values():
            told |= session.addresses
        pairs = [session.pair for session in self.entry.sessions.values()]
        assert self.do(self.exit.renew(pairs, tell)) == (told if tell else {})

    # what is not

    @contextmanager
    def nothing_of_others(self) -> Iterator[None]:
        """Nothing of this changes what is not of fra."""
        before, live = self.leases(), self.there()
        yield
        after = self.leases()
        assert before.keys() == after.keys()
        assert [s for s in before if replace(after[s], until=0) != replace(before[s], until=0)] == []
        assert [s for s in before if after[s].until < before[s].until] == []
        changed = live.items() ^ self.there().items()
        assert [address for (_name, address), _value in changed if not self.fra.speaks_for(address)] == []

    def there(self) -> dict[Key, Value]:
        """What nyc has of sessions, but for the spare one."""
        live = self.agents.live(self.nyc, "session_")
        return {key: value for key, value in live.items() if key[1] != SPARE}

    def leases(self) -> dict[str, Lease]:
        """Those of ams."""

        async def copied() -> dict[str, Lease]:
            found = self.nyc.leases._leases  # noqa: SLF001 - elements do not say how long they stay
            return {session4: replace(lease) for session4, lease in found.items() if lease.entry == "ams"}

        leases: dict[str, Lease] = self.agents.thread.run(copied())
        return leases

    def agreed(self) -> tuple[dict[Key, Value], dict[str, int]]:
        """What nyc's kernel has of sessions, which is what its agent thinks; and how many of whom."""

        async def compared() -> tuple[dict[Key, Value], dict[str, int]]:
            leases: Any = self.nyc.leases
            # Nothing else says what is there while requests are under way.
            async with leases._lock:  # noqa: SLF001
                live = self.agents.live(self.nyc, "session_")
                assert live == leases.elements()
                known = leases._leases  # noqa: SLF001
                six = [(lease.session6, session4) for session4, lease in known.items() if lease.session6]
                assert sorted(leases._session4.items()) == sorted(six)  # noqa: SLF001
                assert leases.handles == {handle(session4) for session4 in known}
                return live, self.nyc.leases.count()

        found: tuple[dict[Key, Value], dict[str, int]] = self.agents.thread.run(compared())
        return found

    @rule(op=st.sampled_from(OPS), pairs=LIKELY)
    def ask_as_described(self, op: str, pairs: Addresses) -> None:
        self.ask(op, "fra", pairs)

    @rule(op=st.sampled_from(("start", "renew", "tell")), pairs=CROWDS)
    def ask_for_many(self, op: str, pairs: Addresses) -> None:
        self.ask(op, "fra", pairs)

    @rule(op=st.sampled_from(OPS), pairs=OF_OTHERS)
    def ask_for_others(self, op: str, pairs: Addresses) -> None:
        assert self.ask(op, "fra", pairs) in (400, 403)

    @rule(op=st.sampled_from(OPS), pairs=st.sampled_from((([HONEST], [HONEST]), ([HONEST], []))))
    def ask_as_another(self, op: str, pairs: Addresses) -> None:
        assert self.ask(op, "ams", pairs) == 403

    @rule(call=NO_OP | NO_SLUG)
    def ask_for_what_is_not(self, call: tuple[str, str, Addresses]) -> None:
        self.ask(*call)

    @rule(op=st.sampled_from(OPS), pairs=WRONG)
    def ask_wrongly(self, op: str, pairs: Addresses) -> None:
        self.ask(op, "fra", pairs)

    def ask(self, op: str, slug: str, pairs: Addresses) -> int:
        """The status of the answer; and all is as it says."""
        if len(self.held) >= BACKEND.connections:
            self.begin_anew()
        honest = self.entry.sessions[self.entry.client("c4").address4].pair
        form: list[tuple[str, str]] = [("op", op), ("a_slug", slug)]
        for name, theirs, addresses in zip(("session_ip", "session_ip6"), honest, pairs, strict=True):
            form += [(name, theirs if address == HONEST else address) for address in addresses]
        before = self.there()
        with self.nothing_of_others():
            status = self.post(form)
        after = self.there()
        assert status is not None
        if status != 200:
            assert 400 <= status < 500
            assert before == after
            return status
        assert (op in OPS, slug) == (True, "fra")
        there = {address for name, address in after if name == "session_exit4"}
        assert there.isdisjoint(pairs[0]) if op == "stop" else there.issuperset(filter(None, pairs[0]))
        return status

    def post(self, form: list[tuple[str, str]]) -> int | None:
        """The status; None if the connection was not taken."""
        body = urllib.parse.urlencode(form, errors="replace").encode()
        try:
            status, _said = self.hostile.send("POST", "/mh-backend", body, Content_Type=FORM)
        except (ConnectionError, TimeoutError):
            return None
        return status

    @rule(data=RAW)
    def say(self, data: bytes) -> None:
        with self.nothing_of_others(), suppress(ConnectionError):
            assert self.hostile.raw(data, patience=0.05) < 500

    @rule(half=st.sampled_from(HALVES), number=st.sampled_from((1, 5, 10, 40, 100)))
    def hold(self, half: bytes, number: int) -> None:
        with self.nothing_of_others():
            for _number in range(number):
                self.connect(half)
            self.agents.until(lambda: self.alive() <= BACKEND.connections, 1.0)

    @rule(kind=st.sampled_from(list(MANY)), number=st.sampled_from((1, 8)))
    def ask_much_at_once(self, kind: str, number: int) -> None:
        """Without taking an answer."""
        with self.nothing_of_others():
            for _number in range(number):
                self.connect(MANY[kind] * 50)

    def connect(self, data: bytes) -> None:
        sock = socket.socket()
        self.held.append(sock)
        sock.bind((FRA, 0))
        with suppress(ConnectionError):
            sock.connect((NYC, self.agents.port))
            sock.sendall(data)
        sock.setblocking(False)

    def alive(self) -> int:
        """How many connections are still there; takes the answers."""
        number = 0
        for sock in self.held:
            try:
                while sock.recv(1 << 20):
                    pass
            except BlockingIOError:
                number += 1
            except OSError:
                pass
        return number

    @rule()
    def begin_anew(self) -> None:
        self.let_go()
        self.agents.until(lambda: self.post([("op", "renew"), ("a_slug", "fra")]) == 200)

    def let_go(self) -> None:
        for sock in self.held:
            sock.close()
        self.held.clear()

    @invariant()
    def all_is_well(self) -> None:
        self.do(self.exit.probe())
        self.agents.assert_runs(self.ams)
        self.agents.assert_runs(self.nyc)
        theirs, count = self.agreed()
        wanted: dict[Key, Value] = {}
        for session in self.entry.sessions.values():
            assert session.state is State.ACTIVE
            wanted |= session_elements(session)
        assert {key: value for key, value in theirs.items() if not self.fra.speaks_for(key[1])} == wanted
        own = (*self.nyc.config.exit4, *self.nyc.config.exit6)
        assert [value for (name, _address), value in theirs.items() if "exit" in name and value not in own] == []
        fras = sum(name == "session_exit4" and self.fra.speaks_for(address) for name, address in theirs)
        assert count == {"ams": len(self.entry.sessions), "fra": fras}
        assert fras <= self.nyc.config.clients.most_sessions

    @invariant()
    def warrenctl_is_answered(self) -> None:
        began = time.monotonic()
        said = self.check()
        assert time.monotonic() - began < PROMPT
        if said["missing_elements"] or said["surplus_elements"]:  # something was under way
            self.agents.until(lambda: not (self.check()["missing_elements"] or self.check()["surplus_elements"]))

    def check(self) -> dict[str, int]:
        """``warrenctl check``."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(PROMPT)
            sock.connect(str(self.control))
            sock.sendall(b"GET /check HTTP/1.0\r\n\r\n")
            with sock.makefile("rb") as file:
                return dict(json.loads(file.read().partition(b"\r\n\r\n")[2]))

    def teardown(self) -> None:
        if hasattr(self, "agents"):
            self.stack.close()


TestHostileEntry = HostileEntry.TestCase
TestHostileEntry.settings = settings(RUN, max_examples=60)


def test_what_an_entry_begins_and_does_not_go_on_with_ends() -> None:
    """And then it is heard again."""
    entry = HostileEntry()
    try:
        entry.begin()
        for half in HALVES * 6:
            entry.connect(half)
        assert entry.alive() > 0
        entry.agents.until(lambda: entry.alive() == 0)
        assert entry.post([("op", "renew"), ("a_slug", "fra")]) == 200
        entry.all_is_well()
    finally:
        entry.teardown()
