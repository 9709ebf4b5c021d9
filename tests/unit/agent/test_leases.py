"""Sessions of other servers' clients that leave from here."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from fakes import Host, World
from fleets import LEASE_SECONDS, config, configs, fleet
from hypothesis import given, settings
from hypothesis import strategies as st
from warrend import leases as leases_module
from warrend.config import Config
from warrend.leases import Leases
from warrend.tables import Key, TablesError, Value

NYC = config("nyc")
AMS, FRA = NYC.servers["ams"], NYC.servers["fra"]
PAIR = ("10.128.128.7", "fd57:6172:7265:8001::7")
KEYS = [("session_exit4", PAIR[0]), ("session_exit6", PAIR[1])]


class Recorder:
    """A kernel that notes what it is asked."""

    def __init__(self) -> None:
        self.done: list[tuple[str, Any]] = []
        self.fail: list[Exception] = []
        self.busy: asyncio.Event | None = None

    async def apply(self, wanted: Mapping[Key, Value | None]) -> None:
        await (self.busy.wait() if self.busy else asyncio.sleep(0))
        if self.fail:
            raise self.fail[0]
        self.done.append(("apply", dict(wanted)))

    async def forget(self, addresses: Iterable[str]) -> None:
        await asyncio.sleep(0)
        self.done.append(("forget", list(addresses)))


def with_leases(work: Callable[[Leases, Recorder], Awaitable[None]], told: Config = NYC) -> None:
    """Run work with leases."""
    kernel: Any = Recorder()

    async def run() -> None:
        await work(Leases(told, kernel), kernel)

    asyncio.run(run())


def test_a_session_leaves_from_an_exit_address_of_each_family() -> None:
    async def work(leases: Leases, kernel: Recorder) -> None:
        made = await leases.start(AMS, PAIR)
        assert list(made) == list(PAIR)
        assert made[PAIR[0]] in NYC.exit4
        assert made[PAIR[1]] in NYC.exit6
        elements = dict(zip(KEYS, made.values(), strict=True))
        assert kernel.done == [("apply", elements)]
        assert leases.elements() == elements
        assert leases.count() == {"ams": 1, "fra": 0}
        assert PAIR[0] in leases
        assert "10.128.128.8" not in leases

    with_leases(work)


def test_a_family_that_this_server_lacks_is_left_out() -> None:
    async def work(leases: Leases, kernel: Recorder) -> None:
        assert list(await leases.start(AMS, PAIR)) == [PAIR[0]]
        assert list(leases.elements()) == [KEYS[0]]
        assert list(await leases.renew(AMS, PAIR)) == []
        assert len(kernel.done) == 1
        assert await leases.stop(PAIR) == 1

    with_leases(work, replace(NYC, exit6=()))


def test_every_exit_address_is_as_likely() -> None:
    """Picked for each session anew, or one could be told from the other."""

    async def work(leases: Leases, _kernel: Recorder) -> None:
        made: Counter[str] = Counter()
        for number in range(1, 601):
            made.update((await leases.start(AMS, [f"10.128.{128 + number // 250}.{number % 250}"])).values())
        assert set(made) == set(NYC.exit4)
        assert min(made.values()) > 130, "200 of each are expected: less than 130 once in 10^9 times"
        again = {(await leases.start(AMS, [PAIR[0]]))[PAIR[0]] for _number in range(60)}
        assert again == set(NYC.exit4), "nothing follows from the session address"

    with_leases(work)


def test_a_session_under_the_same_addresses_is_another() -> None:
    async def work(leases: Leases, kernel: Recorder) -> None:
        await leases.start(AMS, PAIR)
        kernel.done.clear()
        made = await leases.start(AMS, PAIR)
        assert kernel.done == [
            ("apply", dict.fromkeys(KEYS)),
            ("forget", list(PAIR)),
            ("apply", dict(zip(KEYS, made.values(), strict=True))),
        ]

    with_leases(work)


def test_the_element_goes_before_its_flows() -> None:
    async def work(leases: Leases, kernel: Recorder) -> None:
        await leases.start(AMS, PAIR)
        kernel.done.clear()
        assert await leases.stop([*PAIR, "10.128.128.99"]) == 2
        assert kernel.done == [("apply", dict.fromkeys(KEYS)), ("forget", list(PAIR))]
        assert leases.elements() == {}
        assert await leases.stop(PAIR) == 0
        assert len(kernel.done) == 2, "nothing to do"

    with_leases(work)


def test_a_renewal_makes_what_is_missing_and_says_so() -> None:
    async def work(leases: Leases, kernel: Recorder) -> None:
        first = await leases.start(AMS, PAIR)
        many = [f"10.128.129.{n}" for n in range(1, 200)]
        made = await leases.renew(AMS, [*PAIR, *many])
        assert sorted(made) == sorted(many)
        assert len(kernel.done) == 2, "one transaction for all"
        assert await leases.renew(AMS, [*PAIR, *many]) == {}
        assert await leases.renew(AMS, [*PAIR, many[0]], tell=True) == {**first, many[0]: made[many[0]]}
        assert len(kernel.done) == 2
        assert {
            address: leases.elements()["session_exit6" if ":" in address else "session_exit4", address]
            for address in PAIR
        } == first

    with_leases(work)


def test_elements_of_an_earlier_run_are_taken_over() -> None:
    async def work(leases: Leases, kernel: Recorder) -> None:
        good: dict[Key, Value] = {
            KEYS[0]: NYC.exit4[1],
            KEYS[1]: NYC.exit6[0],
            ("session_exit4", "10.129.128.7"): NYC.exit4[0],
        }
        wrong: dict[Key, Value] = {
            ("session_exit4", "10.128.128.8"): "203.0.113.99",  # not ours any more
            ("session_exit4", "10.129.0.1"): NYC.exit4[0],  # this server's own prefix: no other may speak for it
            ("session_exit4", "192.0.2.1"): NYC.exit4[0],
            ("client_mark4", "10.100.0.1"): 0x7000_0002,
            ("client_choice4", "10.128.128.9"): NYC.exit4[0],
        }
        leases.adopt({**good, **wrong})
        assert leases.elements() == good
        assert leases.count() == {"ams": 1, "fra": 1}
        assert kernel.done == []
        assert await leases.renew(AMS, PAIR) == {}

    with_leases(work)


@pytest.mark.parametrize(
    ("address", "slug"),
    [
        ("10.128.128.0", "ams"),
        ("10.128.255.255", "ams"),
        ("10.129.128.1", "fra"),
        ("10.129.0.1", None),
        ("10.128.0.1", None),
        ("fd57:6172:7265:8001:ffff:ffff:ffff:ffff", "ams"),
        ("fd57:6172:7265:8004::1", None),
        ("::ffff:10.128.128.1", None),
    ],
)
def test_whose_a_session_address_is(address: str, slug: str | None) -> None:
    kernel: Any = Recorder()
    found = Leases(NYC, kernel).entry_of(address)
    assert (found and found.slug) == slug


def test_when_the_kernel_refuses_the_next_renewal_or_repair_makes_it_so() -> None:
    async def work(leases: Leases, kernel: Recorder) -> None:
        kernel.fail = [TablesError("refused")]
        with pytest.raises(TablesError):
            await leases.start(AMS, PAIR)
        assert len(leases.elements()) == 2, "noted, and so put right by whoever compares"
        kernel.fail = []
        assert await leases.stop(PAIR) == 2

    with_leases(work)


def test_what_was_renewed_while_others_were_busy_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of leases waits its turn; by then some may have been renewed."""
    clock = SimpleNamespace(now=0.0)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr(leases_module, "time", clock)
    monkeypatch.setattr(leases_module, "EXPIRE_SECONDS", 0)

    async def work(leases: Leases, kernel: Recorder) -> None:
        await leases.renew(AMS, [*PAIR, "10.128.128.8"])
        kernel.busy = asyncio.Event()
        others = asyncio.create_task(leases.start(AMS, ["10.128.128.9"]))
        await asyncio.sleep(0)
        renewing = asyncio.create_task(leases.renew(AMS, PAIR))
        await asyncio.sleep(0)
        clock.now = NYC.lease_seconds + 1.0
        expiring = asyncio.create_task(leases.expire())
        await asyncio.sleep(0.01)
        kernel.busy.set()
        await asyncio.gather(others, renewing)
        await asyncio.sleep(0.01)
        expiring.cancel()
        assert {address for _name, address in leases.elements()} == set(PAIR)

    with_leases(work)


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(("start", "renew", "stop")), st.lists(st.integers(1, 6), min_size=1, max_size=4, unique=True)
    ),
    max_size=12,
)


@given(operations=OPERATIONS)
@settings(max_examples=60, deadline=None)
def test_at_once_is_as_one_after_the_other(operations: list[tuple[str, list[int]]]) -> None:
    """Calls of several servers meet: elements and leases are the same at the end, and the last call counts."""

    async def work(leases: Leases, kernel: Recorder) -> None:
        def call(op: str, numbers: list[int]) -> Awaitable[object]:
            addresses = [f"10.128.128.{number}" for number in numbers]
            return leases.stop(addresses) if op == "stop" else getattr(leases, op)(AMS, addresses)

        await asyncio.gather(*(call(*operation) for operation in operations))
        live: dict[Key, Value] = {}
        for what, detail in kernel.done:
            if what == "apply":
                live = {key: value for key, value in {**live, **detail}.items() if value is not None}
        assert live == leases.elements()
        last = {number: op for op, numbers in operations for number in numbers}
        wanted = {f"10.128.128.{number}" for number, op in last.items() if op != "stop"}
        assert {address for _name, address in live} == wanted

    with_leases(work)


# --- time


@pytest.fixture
def exit_() -> Iterator[Host]:
    """An exit whose entries say nothing."""
    (nyc,) = (each for each in configs(fleet()) if each.slug == "nyc")
    nowhere = {slug: replace(server, mark=None) for slug, server in nyc.servers.items()}
    with World([replace(nyc, servers=nowhere)]) as world:
        world.boot("nyc")
        yield world.hosts["nyc"]


def test_what_nobody_renews_ends(exit_: Host) -> None:
    leases, world = exit_.up.leases, exit_.world
    others = [f"10.128.128.{n}" for n in range(20, 30)]
    for op in (leases.start(AMS, PAIR), leases.renew(AMS, others)):
        assert world.do("nyc", op) == "ok"
    for address in (*PAIR, *others):
        assert exit_.pass_on(address)
    world.go(LEASE_SECONDS - 1)
    assert world.do("nyc", leases.renew(AMS, PAIR)) == "ok"
    world.go(2)
    assert set(exit_.live) == set(KEYS)
    assert {address for address, flows in exit_.flows.items() if flows} == set(PAIR)
    world.go(LEASE_SECONDS)
    assert exit_.live == {}
    assert not any(exit_.flows.values())
    assert leases.count() == {"ams": 0, "fra": 0}


def test_many_that_nobody_renews_leave_gaps_for_others(exit_: Host) -> None:
    leases, world = exit_.up.leases, exit_.world
    world.do("nyc", leases.renew(AMS, [f"10.128.{128 + n // 250}.{n % 250}" for n in range(1, 1201)]))
    exit_.log.clear()
    world.go(LEASE_SECONDS + 2)
    assert [len(detail) for what, detail in exit_.log if what == "apply"] == [500, 500, 200]


def test_what_is_taken_over_ends_too_unless_it_is_renewed(exit_: Host) -> None:
    leases, world = exit_.up.leases, exit_.world
    world.do("nyc", leases.start(AMS, PAIR))
    world.kill("nyc")
    world.go(10 * LEASE_SECONDS)
    assert set(exit_.live) == set(KEYS), "nobody was there"
    world.boot("nyc")
    world.go(LEASE_SECONDS - 1)
    assert set(exit_.live) == set(KEYS)
    world.go(3)
    assert exit_.live == {}
