"""Sessions of other servers' clients that leave from here."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from fakes import Host, World
from fleets import LEASE_SECONDS, config, configs, fleet, other
from hypothesis import given, settings
from hypothesis import strategies as st
from warrend import leases as leases_module
from warrend.config import Config
from warrend.leases import Leases, SessionPair
from warrend.refusals import RefusedError
from warrend.tables import Key, TablesError, Value

NYC = config("nyc")
AMS, FRA = NYC.servers["ams"], NYC.servers["fra"]
PAIR = ("10.128.128.7", "fd57:6172:7265:8001::7")
MARK = 0x5A80_8007
"""SESSION_KIND, and the end of 10.128.128.7."""


def elements_of(made: Mapping[str, str]) -> dict[Key, Value]:
    """The elements of PAIR with these exit addresses."""
    flows: dict[Key, Value] = {("session_flow4", PAIR[0]): MARK, ("session_exit4", PAIR[0]): made[PAIR[0]]}
    if PAIR[1] in made:
        flows |= {("session_flow6", PAIR[1]): MARK, ("session_exit6", PAIR[1]): made[PAIR[1]]}
    return flows


KEYS = list(elements_of(dict.fromkeys(PAIR, "")))


def pair(number: int, six: int | None = None) -> SessionPair:
    """The session addresses of one of many sessions, or an IPv4 one with the IPv6 one of another."""
    address4 = f"10.128.{128 + number // 250}.{number % 250}"
    return address4, f"fd57:6172:7265:8001::{number if six is None else six:x}"


def alone(number: int) -> SessionPair:
    """A session without IPv6."""
    return pair(number)[0], None


def addresses(leases: Leases) -> set[str]:
    """All session addresses that have any element."""
    return {address for _name, address in leases.elements()}


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
        made = await leases.start(AMS, [PAIR])
        assert list(made) == list(PAIR)
        assert made[PAIR[0]] in NYC.exit4
        assert made[PAIR[1]] in NYC.exit6
        assert kernel.done == [("apply", elements_of(made))]
        assert leases.elements() == elements_of(made)
        assert leases.count() == {"ams": 1, "fra": 0}
        assert leases.handles == {MARK & 0x0FFF_FFFF}
        assert leases.session4_of(PAIR[1]) == PAIR[0]
        assert leases.session4_of("fd57:6172:7265:8001::8") == leases.session4_of("") == ""

    with_leases(work)


def test_a_session_without_ipv6_has_no_element_of_it() -> None:
    async def work(leases: Leases, kernel: Recorder) -> None:
        made = await leases.start(AMS, [(PAIR[0], None)])
        assert list(made) == [PAIR[0]]
        assert leases.elements() == elements_of(made)
        assert await leases.renew(AMS, [(PAIR[0], None)]) == {}
        assert len(kernel.done) == 1

    with_leases(work)


def test_a_family_that_this_server_lacks_is_left_out() -> None:
    async def work(leases: Leases, kernel: Recorder) -> None:
        assert list(await leases.start(AMS, [PAIR])) == [PAIR[0]]
        assert list(leases.elements()) == KEYS[:2]
        assert list(await leases.renew(AMS, [PAIR])) == []
        assert len(kernel.done) == 1
        assert await leases.stop([PAIR]) == 1

    with_leases(work, replace(NYC, exit6=()))


def test_every_exit_address_is_as_likely() -> None:
    """Picked for each session anew, or one could be told from the other."""

    async def work(leases: Leases, _kernel: Recorder) -> None:
        made: Counter[str] = Counter()
        for number in range(1, 601):
            made.update((await leases.start(AMS, [alone(number)])).values())
        assert set(made) == set(NYC.exit4)
        assert min(made.values()) > 130, "200 of each are expected: less than 130 once in 10^9 times"
        again = {(await leases.start(AMS, [PAIR]))[PAIR[0]] for _number in range(60)}
        assert again == set(NYC.exit4), "nothing follows from the session address"

    with_leases(work, other(NYC, most_sessions=601))


def test_a_session_under_the_same_addresses_is_another() -> None:
    async def work(leases: Leases, kernel: Recorder) -> None:
        await leases.start(AMS, [PAIR])
        kernel.done.clear()
        made = await leases.start(AMS, [PAIR])
        assert kernel.done == [
            ("apply", dict.fromkeys(KEYS)),
            ("forget", [PAIR[0]]),
            ("apply", elements_of(made)),
        ]
        assert leases.count()["ams"] == 1

    with_leases(work)


def test_the_element_goes_before_its_flows() -> None:
    async def work(leases: Leases, kernel: Recorder) -> None:
        await leases.start(AMS, [PAIR])
        kernel.done.clear()
        assert await leases.stop([PAIR, ("10.128.128.99", None)]) == 1
        assert kernel.done == [("apply", dict.fromkeys(KEYS)), ("forget", [PAIR[0]])]
        assert leases.elements() == {}
        assert leases.handles == set()
        assert leases.session4_of(PAIR[1]) == ""
        assert await leases.stop([PAIR]) == 0
        assert len(kernel.done) == 2, "nothing to do"

    with_leases(work)


def test_a_renewal_makes_what_is_missing_and_says_so() -> None:
    async def work(leases: Leases, kernel: Recorder) -> None:
        first = await leases.start(AMS, [PAIR])
        many = [alone(n) for n in range(250, 300)]
        made = await leases.renew(AMS, [PAIR, *many])
        assert sorted(made) == sorted(session4 for session4, _none in many)
        assert len(kernel.done) == 2, "one transaction for all"
        assert await leases.renew(AMS, [PAIR, *many]) == {}
        one = many[0][0]
        assert await leases.renew(AMS, [PAIR, many[0]], report_all=True) == {**first, one: made[one]}
        assert len(kernel.done) == 2
        assert {
            address: leases.elements()["session_exit6" if ":" in address else "session_exit4", address]
            for address in PAIR
        } == first

    with_leases(work)


# --- the two addresses of a session


@pytest.mark.parametrize("op", ["start", "renew"])
@pytest.mark.parametrize(
    ("there", "asked", "left"),
    [
        # The older one's IPv4 address, with another IPv6 one.
        ([pair(1)], [pair(1, 2)], [pair(1, 2)]),
        # The older one's IPv6 address: it may have been somebody else's.
        ([pair(1)], [pair(2, 1)], [pair(2, 1)]),
        # One of each of two older ones.
        ([pair(1), pair(2), pair(3)], [pair(1, 2)], [pair(1, 2), pair(3)]),
        # With IPv6 before and without now, and the other way round.
        ([pair(1)], [alone(1)], [alone(1)]),
        ([alone(1)], [pair(1)], [pair(1)]),
        # Two that changed their IPv6 addresses with each other.
        ([pair(1), pair(2)], [pair(1, 2), pair(2, 1)], [pair(1, 2), pair(2, 1)]),
    ],
)
def test_a_conflict_in_either_address_ends_the_older_one(
    op: str, there: list[SessionPair], asked: list[SessionPair], left: list[SessionPair]
) -> None:
    """Wholly, its elements and its flows, before there is a new one."""

    async def work(leases: Leases, kernel: Recorder) -> None:
        await leases.start(AMS, there)
        before = leases.elements()
        kernel.done.clear()
        made = await getattr(leases, op)(AMS, asked)
        assert set(made) == {address for each in asked for address in each if address}
        kept = {address for each in there if each in left for address in each}
        (first, surplus), (second, forgotten), (third, _elements) = kernel.done
        assert (first, second, third) == ("apply", "forget", "apply")
        assert surplus == dict.fromkeys(key for key in before if key[1] not in kept)
        assert set(forgotten) == {each[0] for each in there if each not in left}
        assert addresses(leases) == {address for each in left for address in each if address}
        assert leases.count()["ams"] == len(left)
        assert all(leases.session4_of(session6) == session4 for session4, session6 in left if session6)

    with_leases(work)


def test_flows_of_both_families_have_the_mark_of_the_ipv4_address() -> None:
    """Or one could not be forgotten with the other."""

    async def work(leases: Leases, _kernel: Recorder) -> None:
        await leases.start(AMS, [pair(1), pair(2, 77)])
        marks = {key: value for key, value in leases.elements().items() if "flow" in key[0]}
        assert marks == {
            ("session_flow4", pair(1)[0]): 0x5A80_8001,
            ("session_flow6", pair(1)[1]): 0x5A80_8001,
            ("session_flow4", pair(2)[0]): 0x5A80_8002,
            ("session_flow6", pair(77)[1]): 0x5A80_8002,
        }

    with_leases(work)


# --- no more than an entry can have clients for

TOO_MANY = r"^(ams|fra) has (3|64) sessions here, and no client of it is without one$"
FEW = other(NYC, most_sessions=3)


@pytest.mark.parametrize("op", ["start", "renew"])
def test_what_is_too_much_is_refused_as_a_whole(op: str) -> None:
    async def work(leases: Leases, kernel: Recorder) -> None:
        await leases.start(AMS, [pair(1), pair(2)])
        before = leases.elements()
        kernel.done.clear()
        with pytest.raises(RefusedError, match=TOO_MANY):
            await getattr(leases, op)(AMS, [pair(3), pair(4)])
        assert leases.elements() == before
        assert leases.count() == {"ams": 2, "fra": 0}
        assert kernel.done == []
        assert await getattr(leases, op)(AMS, [pair(3)]), "there is room for one"

    with_leases(work, FEW)


def test_one_entrys_many_sessions_are_not_anothers() -> None:
    async def work(leases: Leases, _kernel: Recorder) -> None:
        await leases.start(AMS, [pair(n) for n in range(1, 4)])
        with pytest.raises(RefusedError, match=TOO_MANY):
            await leases.start(AMS, [pair(4)])
        theirs: list[SessionPair] = [(f"10.129.128.{n}", f"fd57:6172:7265:8003::{n}") for n in range(1, 5)]
        assert len(await leases.start(FRA, theirs[:3])) == 6
        with pytest.raises(RefusedError, match=TOO_MANY):
            await leases.renew(FRA, theirs)
        assert leases.count() == {"ams": 3, "fra": 3}

    with_leases(work, FEW)


def test_one_that_takes_the_place_of_another_is_not_too_much() -> None:
    async def work(leases: Leases, _kernel: Recorder) -> None:
        await leases.start(AMS, [pair(n) for n in range(1, 4)])
        await leases.start(AMS, [pair(1)])
        await leases.start(AMS, [pair(2, 20), pair(30, 3)])
        assert addresses(leases) == {*pair(1), *pair(2, 20), *pair(30, 3)}
        await leases.start(AMS, [pair(2, 3)])
        assert leases.count()["ams"] == 2, "two of them gave an address each"
        await leases.start(AMS, [pair(5)])
        with pytest.raises(RefusedError, match=TOO_MANY):
            await leases.start(AMS, [pair(6)])

    with_leases(work, FEW)


def test_those_that_are_there_are_kept_where_more_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr(leases_module, "time", clock)
    monkeypatch.setattr(leases_module, "EXPIRE_SECONDS", 0)

    async def work(leases: Leases, _kernel: Recorder) -> None:
        await leases.start(AMS, [pair(n) for n in range(1, 4)])
        clock.now = FEW.lease_seconds - 1.0
        with pytest.raises(RefusedError, match=TOO_MANY):
            await leases.renew(AMS, [pair(1), pair(2), pair(4)])
        clock.now += 2
        expiring = asyncio.create_task(leases.expire())
        await asyncio.sleep(0.01)
        expiring.cancel()
        assert addresses(leases) == {*pair(1), *pair(2)}
        assert leases.count()["ams"] == 2
        assert await leases.renew(AMS, [pair(1), pair(2), pair(4)]), "and so there is room again"

    with_leases(work, FEW)


def test_what_has_ended_is_not_counted() -> None:
    async def work(leases: Leases, _kernel: Recorder) -> None:
        for number in range(1, 50, 3):
            three = [pair(n) for n in range(number, number + 3)]
            await leases.start(AMS, three)
            assert leases.count()["ams"] == 3
            assert await leases.stop(three) == 3
            assert leases.count()["ams"] == 0
            assert leases.handles == set()

    with_leases(work, FEW)


def test_what_was_taken_over_is_counted() -> None:
    async def work(leases: Leases, kernel: Recorder) -> None:
        other: Any = Recorder()
        before = Leases(FEW, other)
        await before.start(AMS, [pair(1), pair(2)])
        leases.adopt(before.elements())
        assert leases.count() == {"ams": 2, "fra": 0}
        with pytest.raises(RefusedError, match=TOO_MANY):
            await leases.start(AMS, [pair(3), pair(4)])
        assert kernel.done == []
        assert await leases.start(AMS, [pair(3)])

    with_leases(work, FEW)


def test_a_renewal_of_what_is_there_is_never_too_much() -> None:
    """There may be fewer clients now than when this server was told last: those that are there are kept."""

    async def work(leases: Leases, kernel: Recorder) -> None:
        other: Any = Recorder()
        before = Leases(NYC, other)
        five = [pair(n) for n in range(1, 6)]
        await before.start(AMS, five)
        leases.adopt(before.elements())
        assert await leases.renew(AMS, []) == {}, "a probe"
        assert await leases.renew(AMS, five) == {}
        assert set(await leases.renew(AMS, five, report_all=True)) == {address for each in five for address in each}
        with pytest.raises(RefusedError, match=TOO_MANY):
            await leases.renew(AMS, [*five, pair(6)])
        assert kernel.done == []

    with_leases(work, FEW)


def test_an_entry_that_makes_up_sessions_does_not_get_many() -> None:
    """60 calls with 1000 each: the IPv6 addresses are of a prefix that has room for any number."""

    async def work(leases: Leases, kernel: Recorder) -> None:
        refused = 0
        for call in range(60):
            many = [pair(n, call * 1000 + n) for n in range(1, 1001)]
            try:
                await leases.renew(AMS, many[: 50 if call == 0 else None])
            except RefusedError:
                refused += 1
        assert refused == 59
        assert leases.count()["ams"] == 50
        assert len(addresses(leases)) == 100
        for call in range(1, 60):
            await leases.renew(AMS, [pair(n, call * 1000 + n) for n in range(1, 65)])
            assert leases.count()["ams"] == NYC.clients.most_sessions == 64
        assert len(leases.elements()) == 4 * 64
        live: dict[Key, Value] = {}
        for what, detail in kernel.done:
            if what == "apply":
                live = {key: value for key, value in {**live, **detail}.items() if value is not None}
        assert live == leases.elements(), "nor is anything left of those that others took the place of"

    with_leases(work)


# --- what an earlier run left


def test_elements_of_an_earlier_run_are_taken_over() -> None:
    async def work(leases: Leases, kernel: Recorder) -> None:
        good: dict[Key, Value] = {
            **elements_of({PAIR[0]: NYC.exit4[1], PAIR[1]: NYC.exit6[0]}),
            ("session_flow4", "10.129.128.7"): 0x5A81_8007,
            ("session_exit4", "10.129.128.7"): NYC.exit4[0],
        }
        wrong: dict[Key, Value] = {
            ("session_exit4", "10.128.128.8"): "203.0.113.99",  # not ours any more
            ("session_exit4", "10.129.0.1"): NYC.exit4[0],  # this server's own prefix: no other may speak for it
            ("session_exit4", "192.0.2.1"): NYC.exit4[0],
            ("client_mark4", "10.100.0.1"): 0x7000_0002,
            ("client_choice4", "10.128.128.9"): NYC.exit4[0],
            ("session_exit6", "fd57:6172:7265:8001::9"): NYC.exit6[0],  # nobody says whose
            ("session_flow6", "fd57:6172:7265:8001::a"): 0x5A80_800A,  # a session that is not there
            ("session_exit6", "fd57:6172:7265:8001::a"): NYC.exit6[0],
        }
        leases.adopt({**good, **wrong})
        assert leases.elements() == good
        assert leases.count() == {"ams": 1, "fra": 1}
        assert leases.session4_of(PAIR[1]) == PAIR[0]
        assert kernel.done == []
        assert await leases.renew(AMS, [PAIR]) == {}

    with_leases(work)


def test_addresses_are_paired_again_by_the_mark_of_their_flows() -> None:
    """Those of one session say nothing of each other but that."""

    async def work(leases: Leases, kernel: Recorder) -> None:
        other: Any = Recorder()
        before = Leases(NYC, other)
        pairs = [pair(n, 60 - n) for n in range(1, 50)] + [alone(n) for n in range(50, 60)]
        made = await before.start(AMS, pairs)
        backwards = dict(reversed(list(before.elements().items())))
        leases.adopt(backwards)
        assert leases.elements() == before.elements()
        assert leases.handles == before.handles
        assert await leases.renew(AMS, pairs, report_all=True) == made
        assert kernel.done == []
        assert await leases.stop([pairs[0]]) == 1
        assert kernel.done[-1] == ("forget", [pairs[0][0]])
        assert pairs[0][1] not in addresses(leases)

    with_leases(work)


@pytest.mark.parametrize(
    "wrong",
    [
        {("session_exit6", PAIR[1]): "2001:db8:e::99"},  # not ours any more
        {("session_exit6", PAIR[1]): None},
        {("session_flow6", PAIR[1]): None},
        {("session_flow6", PAIR[1]): MARK + 1},  # another session's
    ],
)
def test_what_is_left_of_a_pair_is_taken_over_and_the_rest_made_by_the_next_renewal(wrong: dict[Key, Any]) -> None:
    async def work(leases: Leases, kernel: Recorder) -> None:
        exits = {PAIR[0]: NYC.exit4[1], PAIR[1]: NYC.exit6[0]}
        live = {key: value for key, value in {**elements_of(exits), **wrong}.items() if value is not None}
        leases.adopt(live)
        assert leases.elements() == elements_of({PAIR[0]: NYC.exit4[1]})
        assert kernel.done == []
        assert set(await leases.renew(AMS, [PAIR])) == set(PAIR)
        assert set(leases.elements()) == set(KEYS)
        assert leases.count()["ams"] == 1

    with_leases(work)


def test_an_ipv6_address_of_another_entry_is_not_taken_over() -> None:
    async def work(leases: Leases, _kernel: Recorder) -> None:
        theirs = "fd57:6172:7265:8003::7"
        leases.adopt(
            {
                **elements_of({PAIR[0]: NYC.exit4[1]}),
                ("session_flow6", theirs): MARK,
                ("session_exit6", theirs): NYC.exit6[0],
            }
        )
        assert addresses(leases) == {PAIR[0]}

    with_leases(work)


def test_without_ipv6_too_a_session_outlives_the_agent() -> None:
    """A server that has none knows no IPv6 address after a restart; that is no reason to end sessions."""
    told = replace(NYC, exit6=())

    async def work(leases: Leases, kernel: Recorder) -> None:
        other: Any = Recorder()
        before = Leases(told, other)
        await before.start(AMS, [PAIR])
        leases.adopt(before.elements())
        await leases.renew(AMS, [PAIR])
        assert kernel.done == []
        assert leases.elements() == before.elements()

    with_leases(work, told)


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
            await leases.start(AMS, [PAIR])
        assert len(leases.elements()) == 4, "noted, and so put right by whoever compares"
        kernel.fail = []
        assert await leases.stop([PAIR]) == 1

    with_leases(work)


def test_what_was_renewed_while_others_were_busy_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of leases waits its turn; by then some may have been renewed."""
    clock = SimpleNamespace(now=0.0)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr(leases_module, "time", clock)
    monkeypatch.setattr(leases_module, "EXPIRE_SECONDS", 0)

    async def work(leases: Leases, kernel: Recorder) -> None:
        await leases.renew(AMS, [PAIR, alone(8)])
        kernel.busy = asyncio.Event()
        others = asyncio.create_task(leases.start(AMS, [alone(9)]))
        await asyncio.sleep(0)
        renewing = asyncio.create_task(leases.renew(AMS, [PAIR]))
        await asyncio.sleep(0)
        clock.now = NYC.lease_seconds + 1.0
        expiring = asyncio.create_task(leases.expire())
        await asyncio.sleep(0.01)
        kernel.busy.set()
        await asyncio.gather(others, renewing)
        await asyncio.sleep(0.01)
        expiring.cancel()
        assert addresses(leases) == set(PAIR)

    with_leases(work)


PAIRS = st.tuples(st.integers(1, 6), st.none() | st.integers(1, 6))
"""The IPv4 addresses, and which of the IPv6 ones it has, if any."""
OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(("start", "renew", "stop")),
        st.lists(PAIRS, min_size=1, max_size=4, unique_by=(lambda p: p[0], lambda p: p[1] or -p[0])),
    ),
    max_size=12,
)


@given(operations=OPERATIONS)
@settings(max_examples=100, deadline=None)
def test_at_once_is_as_one_after_the_other(operations: list[tuple[str, list[tuple[int, int | None]]]]) -> None:
    """Calls of several servers meet: elements and leases are the same at the end, and the last call counts."""

    async def work(leases: Leases, kernel: Recorder) -> None:
        def call(op: str, numbers: list[tuple[int, int | None]]) -> Awaitable[object]:
            pairs = [pair(four, six) if six else alone(four) for four, six in numbers]
            return leases.stop(pairs) if op == "stop" else getattr(leases, op)(AMS, pairs)

        await asyncio.gather(*(call(*operation) for operation in operations))
        live: dict[Key, Value] = {}
        for what, detail in kernel.done:
            if what == "apply":
                live = {key: value for key, value in {**live, **detail}.items() if value is not None}
        assert live == leases.elements()
        wanted: dict[int, int | None] = {}
        for op, numbers in operations:
            for four, six in numbers:
                kept = {} if op == "stop" else {four: six}
                others = {f: s for f, s in wanted.items() if f != four and (op == "stop" or s is None or s != six)}
                wanted = others | kept
        pairs = [pair(four, six) if six else alone(four) for four, six in wanted.items()]
        assert addresses(leases) == {address for each in pairs for address in each if address}
        assert leases.count()["ams"] == len(wanted)
        assert leases.handles == {0x0A80_8000 + four for four in wanted}

    with_leases(work)


# --- time


@contextmanager
def alone_in_the_world(**changes: Any) -> Iterator[Host]:
    """An exit whose entries say nothing."""
    (nyc,) = (each for each in configs(fleet()) if each.slug == "nyc")
    nowhere = {slug: replace(server, mark=None) for slug, server in nyc.servers.items()}
    with World([other(nyc, servers=nowhere, **changes)]) as world:
        world.boot("nyc")
        yield world.hosts["nyc"]


@pytest.fixture
def exit_() -> Iterator[Host]:
    with alone_in_the_world() as host:
        yield host


@pytest.fixture
def many_sessions() -> Iterator[Host]:
    """An exit that takes very many."""
    with alone_in_the_world(most_sessions=2000) as host:
        yield host


def test_what_nobody_renews_ends(exit_: Host) -> None:
    leases, world = exit_.up.leases, exit_.world
    others = [pair(n) for n in range(20, 30)]
    for op in (leases.start(AMS, [PAIR]), leases.renew(AMS, others)):
        assert world.do("nyc", op) == "ok"
    for each in (PAIR, *others):
        for address in each:
            assert address
            assert exit_.pass_on(address)
    world.go(LEASE_SECONDS - 1)
    assert world.do("nyc", leases.renew(AMS, [PAIR])) == "ok"
    world.go(2)
    assert set(exit_.leased) == set(KEYS)
    assert {address for address, flows in exit_.flows.items() if flows} == set(PAIR)
    assert leases.count() == {"ams": 1, "fra": 0}
    world.go(LEASE_SECONDS)
    assert exit_.leased == {}
    assert not any(exit_.flows.values())
    assert leases.count() == {"ams": 0, "fra": 0}
    assert leases.handles == set()


def test_a_wall_clock_that_jumps_ends_no_lease(exit_: Host) -> None:
    leases, world = exit_.up.leases, exit_.world
    for off in (3600.0, -3600.0):
        assert world.do("nyc", leases.start(AMS, [PAIR])) == "ok"
        world.clock.off = off
        world.go(LEASE_SECONDS - 1)
        assert set(exit_.leased) == set(KEYS)
        world.go(3)
        assert exit_.leased == {}


def test_many_that_nobody_renews_leave_gaps_for_others(many_sessions: Host) -> None:
    leases, world = many_sessions.up.leases, many_sessions.world
    assert world.do("nyc", leases.renew(AMS, [alone(n) for n in range(1, 1201)])) == "ok"
    many_sessions.log.clear()
    world.go(LEASE_SECONDS + 2)
    assert [len(detail) for what, detail in many_sessions.log if what == "apply"] == [1000, 1000, 400]


def test_what_is_taken_over_ends_too_unless_it_is_renewed(exit_: Host) -> None:
    leases, world = exit_.up.leases, exit_.world
    world.do("nyc", leases.start(AMS, [PAIR]))
    world.kill("nyc")
    world.go(10 * LEASE_SECONDS)
    assert set(exit_.leased) == set(KEYS), "nobody was there"
    world.boot("nyc")
    world.go(LEASE_SECONDS - 1)
    assert set(exit_.leased) == set(KEYS)
    world.go(3)
    assert exit_.leased == {}
