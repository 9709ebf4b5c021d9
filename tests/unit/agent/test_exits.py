"""What an entry asks of an exit over HTTP, and what it makes of the answers of whatever is there."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from fleets import config
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
        connector = aiohttp.TCPConnector(local_addr=("127.77.0.1", 0))
        async with aiohttp.ClientSession(connector=connector) as session:
            return await work(Exit(nyc, told, session, metrics or Metrics()))

    return asyncio.run(run())


@pytest.fixture(scope="module")
def thread() -> Iterator[LoopThread]:
    with loop_thread() as running:
        yield running


@contextmanager
def backend(thread: LoopThread) -> Iterator[tuple[int, Leases]]:
    """A real backend of nyc: its port, and its leases."""
    told = config("nyc")
    told = replace(told, lease_seconds=17, servers={"ams": replace(told.servers["ams"], control4="127.77.0.1")})
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
        assert await exit_.renew([PAIR]) == {}
        assert await exit_.renew([PAIR], tell=True) == made
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
    pairs = [(f"10.128.{128 + n // 250}.{n % 250}", f"fd57:6172:7265:8001::{n:x}") for n in range(2 * AT_ONCE + 1)]

    async def work(exit_: Exit) -> None:
        assert len(await exit_.renew(pairs)) == 2 * len(pairs)
        assert len(leases.elements()) == 2 * len(pairs)
        await exit_.stop(pairs)
        assert leases.elements() == {}

    with backend(thread) as (port, leases):
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


ANSWERS: dict[str, tuple[int, str, str]] = {
    "a web page": (200, "text/html", "<h1>It works!</h1>"),
    "an error page": (502, "text/html", "<h1>Bad gateway</h1>"),
    "nothing": (200, "application/json", ""),
    "no JSON": (200, "application/json", "{"),
    "a list": (200, "application/json", "[]"),
    "a number": (500, "application/json", "7"),
    "an empty object": (200, "application/json", "{}"),
    "a list of exits": (200, "application/json", '{"exits": [], "lease_seconds": 5}'),
}


@contextmanager
def answering(thread: LoopThread, answer: tuple[int, str, str]) -> Iterator[int]:
    """Something that is no backend."""

    async def handle(_request: web.Request) -> web.Response:
        return web.Response(status=answer[0], content_type=answer[1], text=answer[2])

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


@pytest.mark.parametrize(("age", "up"), [(None, True), (0.0, True), (170.0, True), (190.0, False)])
def test_a_link_is_up_for_as_long_as_a_handshake_is_good(age: float | None, up: bool) -> None:
    async def work(exit_: Exit) -> None:
        exit_.handshake = None if age is None else exits_module.time.time() - age
        assert exit_.link_up is up

    ask(1, work)


def test_no_word_of_an_error_has_an_address(thread: LoopThread) -> None:
    async def work(exit_: Exit) -> None:
        with pytest.raises(ExitError) as caught:
            await exit_.start(PAIR)
        assert "10." not in str(caught.value)

    with answering(thread, ANSWERS["no JSON"]) as port:
        ask(port, work)
