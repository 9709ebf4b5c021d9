"""What an entry asks of an exit over HTTP, and what it makes of the answers of whatever is there."""

from __future__ import annotations

import asyncio
import gzip
import json
import math
import resource
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web
from fleets import config, other
from servers import LoopThread, listening, loop_thread, served
from test_leases import Recorder
from warrend import exits as exits_module
from warrend.backend import Backend
from warrend.exits import AT_ONCE, Exit, ExitError
from warrend.leases import Leases
from warrend.metrics import Metrics

PAIR = ("10.128.128.5", "fd57:6172:7265:8001::5")
THERE = "127.77.0.2"


def ask(port: int, work: Callable[[Exit], Awaitable[Any]], metrics: Metrics | None = None) -> Any:
    """Ask the exit nyc, which is on this port, for something."""
    told = replace(config("ams"), backend_port=port)
    nyc = replace(told.servers["nyc"], control4=THERE)

    async def run() -> Any:
        async with exits_module.http_session(local_addr=("127.77.0.1", 0)) as session:
            return await work(Exit(nyc, told, session, metrics or Metrics()))

    return asyncio.run(run())


@pytest.fixture(scope="module")
def thread() -> Iterator[LoopThread]:
    with loop_thread() as running:
        yield running


@contextmanager
def backend(thread: LoopThread, most_sessions: int = 64) -> Iterator[tuple[int, Leases]]:
    """A real backend of nyc: its port, and its leases."""
    told = config("nyc")
    told = replace(told, lease_seconds=17, servers={"ams": replace(told.servers["ams"], control4="127.77.0.1")})
    told = other(told, most_sessions=most_sessions)
    kernel: Any = Recorder()
    leases, sock = Leases(told, kernel), listening(THERE)
    with served(thread, lambda: Backend(told, leases, Metrics()).application(), sock):
        yield sock.getsockname()[1], leases


def test_an_exit_starts_renews_and_stops(thread: LoopThread) -> None:
    async def work(exit_: Exit) -> None:
        assert not exit_.reachable
        made = await exit_.start(PAIR)
        assert exit_.reachable
        assert exit_.lease_seconds == 17
        assert {address for _name, address in leases.elements()} == set(made) == set(PAIR)
        assert len(leases.elements()) == 4
        assert await exit_.renew([PAIR]) == {}
        assert await exit_.renew([PAIR], report_all=True) == made
        await exit_.stop([PAIR])
        assert leases.elements() == {}
        assert sorted(await exit_.renew([PAIR])) == sorted(PAIR)
        assert exit_.round_trip is None
        await exit_.probe()
        assert exit_.round_trip is not None
        assert 0 < exit_.round_trip < exits_module.TIMEOUT_SECONDS

    with backend(thread) as (port, leases):
        metrics = Metrics()
        ask(port, work, metrics)
        count = metrics.registry.get_sample_value
        assert count("warren_backend_call_seconds_count", {"exit": "nyc", "op": "renew"}) == 3


def test_many_sessions_go_in_several_calls(thread: LoopThread) -> None:
    pairs = [(f"10.128.{128 + n // 250}.{n % 250}", f"fd57:6172:7265:8001::{n:x}") for n in range(1, 2 * AT_ONCE + 2)]

    async def work(exit_: Exit) -> None:
        assert len(await exit_.renew(pairs)) == 2 * len(pairs)
        assert leases.count() == {"ams": len(pairs)}
        await exit_.stop(pairs)
        assert leases.elements() == {}

    with backend(thread, most_sessions=len(pairs)) as (port, leases):
        ask(port, work)


def test_more_sessions_than_an_exit_takes_are_refused(thread: LoopThread) -> None:
    async def work(exit_: Exit) -> None:
        await exit_.start(PAIR)
        with pytest.raises(ExitError, match=r"^nyc refuses: ams has 1 sessions here, and no client of it") as caught:
            await exit_.start(("10.128.128.6", "fd57:6172:7265:8001::6"))
        assert caught.value.reason == "refused"
        assert {address for _name, address in leases.elements()} == set(PAIR)

    with backend(thread, most_sessions=1) as (port, leases):
        ask(port, work)


def test_a_refusal_is_told_and_is_no_good_answer(thread: LoopThread) -> None:
    async def work(exit_: Exit) -> None:
        with pytest.raises(
            ExitError, match=r"^nyc refuses: ams may only speak for 10\.128\.128\.0/17 and fd57"
        ) as caught:
            await exit_.start(("10.129.0.5", PAIR[1]))
        assert caught.value.reason == "refused"
        assert not exit_.reachable

    with backend(thread) as (port, _leases):
        ask(port, work)


PACKED = gzip.compress(b" " * (32 << 20))
ANSWERS: dict[str, tuple[int, str, str]] = {
    "a web page": (200, "text/html", "<h1>It works!</h1>"),
    "an error page": (502, "text/html", "<h1>Bad gateway</h1>"),
    "nothing": (200, "application/json", ""),
    "no JSON": (200, "application/json", "{"),
    "a list": (200, "application/json", "[]"),
    "a number": (500, "application/json", "7"),
    "an empty object": (200, "application/json", "{}"),
    "a list of exits": (200, "application/json", '{"exits": [], "lease_seconds": 5}'),
    "an error that is an object": (500, "application/json", '{"error": {}}'),
    "nesting": (200, "application/json", "[" * 100_000),
    "a nesting object": (200, "application/json", '{"exits":' * 50_000),
    "bytes that are no text": (200, "application/json", "\udcff"),
    "a long number": (200, "application/json", '{"exits": {}, "lease_seconds": ' + "9" * 100_000 + "}"),
    "more than a backend says": (
        200,
        "application/json",
        '{"exits": {}, "lease_seconds": 8, "more": "' + "x" * (300 << 10),
    ),
    **{
        f"a lease of {lease}": (200, "application/json", f'{{"exits": {{}}, "lease_seconds": {lease}}}')
        for lease in (
            '"abc"',
            "[1]",
            "Infinity",
            "-Infinity",
            "NaN",
            "-1",
            "0",
            "0.5",
            "4",
            "3601",
            "1e3",
            "true",
            "null",
        )
    },
}
RAW: dict[str, bytes] = {
    "a charset that unpacks": (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=zlib_codec\r\nContent-Length: 2\r\n\r\n{}"
    ),
    "something packed": (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(PACKED), PACKED)
    ),
    "a redirect": b"HTTP/1.1 307 Temporary Redirect\r\nLocation: http://127.77.0.3:%d/\r\nContent-Length: 0\r\n\r\n",
    "a permanent one": b"HTTP/1.1 308 Permanent\r\nLocation: http://127.77.0.3:%d/\r\nContent-Length: 0\r\n\r\n",
    "a body without end": b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n" + b"x" * (64 << 20),
    "a bad chunk": (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n"
    ),
    "a thousand cookies": (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
        + b"".join(b"Set-Cookie: c%d=%b\r\n" % (n, b"x" * 4000) for n in range(1000))
        + b"Content-Length: 2\r\n\r\n{}"
    ),
    "100 Continue for ever": b"HTTP/1.1 100 Continue\r\n\r\n" * 5000,
    "a head that does not end": b"HTTP/1.1 200 OK\r\nX: " + b"x" * (1 << 20),
    "no HTTP": b"\0" * 4096,
    "nothing": b"",
}


@contextmanager
def answering(thread: LoopThread, answer: tuple[int, str, str]) -> Iterator[int]:
    """Something that is no backend."""

    async def handle(_request: web.Request) -> web.Response:
        body = answer[2].encode("utf-8", "surrogateescape")
        return web.Response(status=answer[0], content_type=answer[1], body=body)

    def make() -> web.Application:
        application = web.Application()
        application.router.add_post("/mh-backend", handle)
        return application

    sock = listening(THERE)
    with served(thread, make, sock):
        yield sock.getsockname()[1]


@pytest.mark.parametrize("answer", ANSWERS)
def test_what_is_no_backend_does_not_answer(thread: LoopThread, answer: str) -> None:
    async def work(exit_: Exit) -> None:
        for call in (exit_.start(PAIR), exit_.renew([PAIR]), exit_.stop([PAIR]), exit_.probe()):
            with pytest.raises(ExitError, match=r"^nyc does not answer$") as caught:
                await call
            assert caught.value.reason == "unreachable"
        assert not exit_.reachable

    with answering(thread, ANSWERS[answer]) as port:
        ask(port, work)


@pytest.mark.parametrize("raw", RAW)
def test_what_is_no_http_does_not_answer_either_and_goes_nowhere(raw: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a server of our own hand. Nobody is told of the session, whatever it says; and no memory goes for it."""
    monkeypatch.setattr(exits_module, "TIMEOUT_SECONDS", 2.0)

    async def work(exit_: Exit) -> None:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for call in (exit_.start(PAIR), exit_.renew([PAIR]), exit_.probe()):
            with pytest.raises(ExitError, match=r"^nyc does not answer$"):
                await call
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 << 10
        assert not exit_._session.cookie_jar  # noqa: SLF001 - nothing else shows what is kept

    with socket.create_server(("127.77.0.3", 0)) as third, socket.create_server((THERE, 0)) as sock:
        text = RAW[raw] % third.getsockname()[1] if b"Location" in RAW[raw] else RAW[raw]
        stop = threading.Event()

        def answer() -> None:
            sock.settimeout(0.1)
            while not stop.is_set():
                with suppress(OSError):
                    connection, _peer = sock.accept()
                    with connection:
                        connection.settimeout(3)
                        connection.recv(65536)
                        connection.sendall(text)

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            ask(sock.getsockname()[1], work)
        finally:
            stop.set()
            thread.join()
        third.settimeout(0)
        with pytest.raises(BlockingIOError):
            third.accept()


@pytest.mark.parametrize(
    ("session", "said"),
    [
        (PAIR[0], {}), (PAIR[0], [1]), (PAIR[0], "198.51.100.1"), (PAIR[0], "2001:db8:e::21"),
        (PAIR[1], "203.0.113.21"), ("10.128.128.9", "203.0.113.21"), ("x" * 9000, "203.0.113.21"),
    ],
)  # fmt: skip
def test_what_an_exit_may_not_say_is_not_heard(thread: LoopThread, session: str, said: object) -> None:
    """Addresses that are not its own, and sessions that nobody asked about; the rest of its answer holds."""

    async def work(exit_: Exit) -> None:
        own = exit_.server.exit4[0]
        assert await exit_.renew([PAIR], report_all=True) == ({} if session == PAIR[0] else {PAIR[0]: own})
        assert exit_.reachable

    own = config("ams").servers["nyc"].exit4[0]
    answer = json.dumps({"exits": {PAIR[0]: own, session: said}, "lease_seconds": 8})
    with answering(thread, (200, "application/json", answer)) as port:
        ask(port, work)


def test_what_a_refusal_says_is_short_and_moves_no_cursor(thread: LoopThread) -> None:
    async def work(exit_: Exit) -> None:
        with pytest.raises(ExitError) as caught:
            await exit_.start(PAIR)
        assert str(caught.value) == "nyc refuses: " + "?[31m?]0;x?" + "y" * 189

    said = "\x1b[31m\x1b]0;x\x07" + "y" * 1000
    with answering(thread, (400, "application/json", json.dumps({"error": said}))) as port:
        ask(port, work)


def test_an_answer_without_a_lease_keeps_the_last(thread: LoopThread) -> None:
    async def work(exit_: Exit) -> None:
        await exit_.probe()
        assert exit_.lease_seconds == 60

    with answering(thread, (200, "application/json", json.dumps({"exits": {}}))) as port:
        ask(port, work)


def test_a_port_where_nobody_listens() -> None:
    async def work(exit_: Exit) -> None:
        with pytest.raises(ExitError, match=r"^nyc does not answer$"):
            await exit_.probe()
        first = exit_.silent_since
        with pytest.raises(ExitError):
            await exit_.probe()
        assert first is not None
        assert exit_.silent_since == first
        assert not exit_.gone
        exit_.answered -= exit_.lease_seconds
        assert exit_.gone

    with socket.create_server((THERE, 0)) as sock:
        port = sock.getsockname()[1]
    ask(port, work)


def test_silence_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(exit_: Exit) -> None:
        with pytest.raises(ExitError, match=r"^nyc does not answer$"):
            await exit_.probe()

    monkeypatch.setattr(exits_module, "TIMEOUT_SECONDS", 0.05)
    with socket.create_server((THERE, 0)) as sock:
        ask(sock.getsockname()[1], work)


@pytest.mark.parametrize(("age", "up"), [(None, True), (0.0, True), (170.0, True), (190.0, False), (math.inf, False)])
@pytest.mark.parametrize("wall", [0.0, 3600.0, -3600.0])
def test_a_link_is_up_for_as_long_as_a_handshake_is_good(
    monkeypatch: pytest.MonkeyPatch, age: float | None, up: bool, wall: float
) -> None:
    """By the clock that nobody sets; math.inf: the link is away."""

    async def work(exit_: Exit) -> None:
        exit_.handshake_seen = None if age is None else exits_module.time.monotonic() - age
        clock = SimpleNamespace(monotonic=time.monotonic, time=lambda: time.time() + wall)
        monkeypatch.setattr(exits_module, "time", clock)
        assert exit_.link_up is up

    ask(1, work)


def test_no_word_of_an_error_has_an_address(thread: LoopThread) -> None:
    async def work(exit_: Exit) -> None:
        with pytest.raises(ExitError) as caught:
            await exit_.start(PAIR)
        assert "10." not in str(caught.value)

    with answering(thread, ANSWERS["no JSON"]) as port:
        ask(port, work)
