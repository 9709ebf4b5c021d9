"""What becomes of a client's traffic, from the start of its session to the end, on whole agents in a fake world."""

from __future__ import annotations

import ipaddress
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from fakes import EPOCH, World, own_ways
from fleets import IDLE_SECONDS, LEASE_SECONDS, SMALL_POOL, configs, fleet, other
from judges import Judge
from warrend.clients import Client
from warrend.conntrack import EXIT_KIND, OWN_KIND, SESSION_KIND
from warrend.entry import LIVENESS_SECONDS
from warrend.exits import ALIVE_SECONDS
from warrend.refusals import AwayError, RefusedError
from warrend.store import ChoiceRow, SessionRow
from warrend.tables import TablesError
from warrend.views import session_addresses

HOLD, BLOCK = 0x7FFF_FFFF, 0x7FFF_FFFE
LINK = {"nyc": 0x7000_0002, "fra": 0x7000_0003}
CHOSEN4, CHOSEN6 = "203.0.113.12", "2001:db8:e::12"


class Fleet:
    """A running fleet whose server ams has clients that do things."""

    def __init__(self, world: World) -> None:
        self.world, self.judge = world, Judge(world)
        self.ams, self.nyc, self.fra = (world.hosts[slug] for slug in ("ams", "nyc", "fra"))
        world.boot()

    def client(self, name: str) -> Client:
        return self.ams.up.entry.client(name)

    def ask(self, what: str, name: str, *arguments: Any) -> str:
        return self.judge.ask("ams", what, self.client(name), *arguments)

    def refused(self, what: str, name: str, *arguments: Any) -> str:
        """The message with which something is refused."""
        task = self.judge.begin("ams", what, self.client(name), *arguments)
        self.world.go(60, task.done)
        error = task.exception()
        assert isinstance(error, RefusedError), error
        return str(error)

    def marks(self, name: str) -> set[object]:
        """The marks of a client, of both families."""
        client = self.client(name)
        return {
            self.ams.live.get(("client_mark4", client.address4)),
            self.ams.live.get(("client_mark6", client.address6)),
        }

    def ways(self, name: str) -> list[tuple[int, str | None] | None]:
        """How a client's next packets leave, by family."""
        client = self.client(name)
        ways = [self.ams.way(address) for address in (client.address4, client.address6)]
        return [way and way[:2] for way in ways]

    def leaves_by(self, name: str, slug: str) -> bool:
        return self.ways(name) == [(EXIT_KIND, slug)] * 2

    def leaves_from_here(self, name: str) -> bool:
        return self.ways(name) == [(OWN_KIND, "default")] * 2

    def as_at_first(self) -> bool:
        """Whether all clients leave from here, and nothing is left of a session or a choice."""
        return self.ams.live == own_ways(self.ams.config)

    def failures(self, reason: str) -> float:
        return (
            self.ams.up.metrics.registry.get_sample_value("warren_session_start_failures_total", {"reason": reason})
            or 0
        )


@pytest.fixture
def fleet_of_three() -> Iterator[Fleet]:
    """Orderly; at the end all is quiet and everybody agrees."""
    with World(configs(fleet())) as world:
        running = Fleet(world)
        yield running
        running.judge.settle()


@pytest.fixture
def f(fleet_of_three: Fleet) -> Fleet:
    return fleet_of_three


# --- start, switch, stop


def test_a_client_leaves_by_an_exit_when_start_returns(f: Fleet) -> None:
    assert f.leaves_from_here("c1")
    assert f.ask("start", "c1", "nyc") == "ok"
    assert f.leaves_by("c1", "nyc")
    assert f.leaves_from_here("c2")
    (row,) = f.ams.disk.sessions()
    assert (row.client4, row.client6, row.exit) == ("10.100.0.1", "fd57:6172:7265:2::c1", "nyc")
    assert EPOCH <= row.since <= EPOCH + 60
    flow = (SESSION_KIND << 28) + f.nyc.handles[row.session4]
    assert f.nyc.leased == {
        ("session_flow4", row.session4): flow,
        ("session_flow6", row.session6): flow,
        ("session_exit4", row.session4): f.nyc.live["session_exit4", row.session4],
        ("session_exit6", row.session6): f.nyc.live["session_exit6", row.session6],
    }
    assert not f.fra.leased
    session = f.ams.up.entry.sessions["10.100.0.1"]
    assert session_addresses(session) == {
        "exit4": f.nyc.live["session_exit4", row.session4],
        "exit6": f.nyc.live["session_exit6", row.session6],
    }


def test_an_exit_has_its_name_or_its_slug(f: Fleet) -> None:
    assert f.ask("start", "c1", "host-nyc") == "ok"
    assert f.leaves_by("c1", "nyc")


def test_the_client_is_held_and_on_the_disk_before_the_exit_is_asked(f: Fleet) -> None:
    task = f.judge.begin("ams", "start", f.client("c1"), "nyc")
    f.world.go(60, lambda: bool(f.nyc.leased) or task.done())
    assert f.marks("c1") == {HOLD}
    assert f.ams.disk.sessions()
    assert not f.ams.flows["10.100.0.1"], "and what it began before is forgotten"
    f.world.go(60, task.done)
    assert f.leaves_by("c1", "nyc")


def test_stop_brings_the_client_back_and_leaves_nothing(f: Fleet) -> None:
    f.ask("start", "c1", "nyc")
    assert f.ask("stop", "c1") == "ok"
    assert f.leaves_from_here("c1")
    f.world.go(1)
    assert f.as_at_first()
    assert not f.nyc.leased
    assert not f.ams.disk.sessions()
    assert not any(f.nyc.flows.values())
    assert f.ams.up.entry.sessions == {}


def test_stop_tells_whether_the_exit_knows(f: Fleet) -> None:
    f.ask("start", "c1", "nyc")
    task = f.judge.begin("ams", "stop", f.client("c1"))
    f.world.go(60, task.done)
    assert task.result() is True
    f.ask("start", "c1", "nyc")
    f.world.kill("nyc")
    task = f.judge.begin("ams", "stop", f.client("c1"))
    f.world.go(60, task.done)
    assert task.result() is False
    assert f.leaves_from_here("c1")
    f.world.boot("nyc")


def test_stop_does_not_wait_for_an_exit_that_says_nothing(f: Fleet) -> None:
    f.ask("start", "c1", "nyc")
    f.world.cut.add("nyc")
    before = f.world.clock.now
    assert f.ask("stop", "c1") == "ok"
    assert 1 < f.world.clock.now - before < 3
    f.world.cut.clear()


@pytest.mark.parametrize("end", ["stop", "disconnected"])
def test_a_renewal_that_crosses_the_end_leaves_nothing(f: Fleet, end: str) -> None:
    """The exit hears of the end first, and then of the renewal that was sent before."""
    f.ask("start", "c1", "nyc")
    f.world.go(20, lambda: bool(renewals(f)))
    (f.world.late,) = renewals(f)
    assert f.ask(end, "c1") == "ok"
    assert not f.nyc.leased
    assert renewals(f), "it is still on its way"
    f.world.go(0.5)
    assert not f.nyc.leased, "made anew, and told again"


def renewals(f: Fleet) -> list[Any]:
    """Renewals of sessions that are on their way to an exit."""
    return [queue for queue in f.world.effects if queue[0] == "net" and queue[2] in ("renew", "tell") and queue[3]]


def test_another_exit_takes_over(f: Fleet) -> None:
    f.ask("start", "c1", "nyc")
    (first,) = f.ams.disk.sessions()
    assert f.ask("start", "c1", "fra") == "ok"
    assert f.leaves_by("c1", "fra")
    (second,) = f.ams.disk.sessions()
    assert second.exit == "fra"
    assert {first.session4, first.session6} & {second.session4, second.session6} == set()
    f.world.go(1)
    assert not f.nyc.leased
    assert len(f.fra.leased) == 4


def test_the_same_exit_again_changes_nothing(f: Fleet) -> None:
    f.ask("start", "c1", "nyc")
    rows, live, log = f.ams.disk.sessions(), dict(f.nyc.live), len(f.ams.log)
    assert f.ask("start", "c1", "nyc") == "ok"
    assert (f.ams.disk.sessions(), dict(f.nyc.live), len(f.ams.log)) == (rows, live, log)


def test_nobody_has_a_session_twice_at_once(f: Fleet) -> None:
    """Several programs ask for the same client, and for others."""
    tasks = [
        f.judge.begin("ams", "start", f.client(name), slug) for name in ("c1", "c2", "c1") for slug in ("nyc", "fra")
    ]
    f.world.go(60, lambda: all(task.done() for task in tasks))
    assert len(f.ams.disk.sessions()) == 2
    assert f.leaves_by("c1", "fra")
    assert f.leaves_by("c2", "fra")


# --- refusals


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("ams", "ams is this server: a client leaves from it without a session"),
        ("lon", "lon is no exit. There are: fra, nyc"),
        ("", " is no exit. There are: fra, nyc"),
    ],
)
def test_an_unknown_exit(f: Fleet, word: str, message: str) -> None:
    assert f.refused("start", "c1", word) == message
    assert f.leaves_from_here("c1")
    assert f.failures("unknown_exit") == 1


def test_an_unknown_client(f: Fleet) -> None:
    for word in ("mallory", "10.100.0.99", "10.100.0.0/24", ""):
        with pytest.raises(RefusedError, match=rf"^{word} is no client of ams$") as caught:
            f.client(word)
        assert caught.value.reason == "unknown_client"


@pytest.mark.parametrize("word", ["c1", "10.100.0.1", "fd57:6172:7265:2::c1", "FD57:6172:7265:2:0:0:0:C1"])
def test_a_client_has_a_name_and_two_addresses(f: Fleet, word: str) -> None:
    assert f.client(word).name == "c1"


def test_what_has_no_session_cannot_be_stopped(f: Fleet) -> None:
    assert f.refused("stop", "c1") == "c1 has no session"


def test_a_session_and_a_choice_exclude_each_other(f: Fleet) -> None:
    f.ask("choose", "c1", CHOSEN4, None)
    message = "c1 has chosen an exit address of ams. Go back to the default first: the two together are not possible."
    assert f.refused("start", "c1", "nyc") == message
    assert f.failures("choice") == 1
    assert not f.ams.disk.sessions()
    f.ask("start", "c2", "nyc")
    for arguments in ((CHOSEN4, CHOSEN6), (None, None)):
        message = "c2 leaves by nyc. Stop that session first: the two together are not possible."
        assert f.refused("choose", "c2", *arguments) == message
    assert f.leaves_by("c2", "nyc")
    assert [choice.client4 for choice in f.ams.disk.choices()] == ["10.100.0.1"]
    assert f.ask("choose", "c1", None, None) == f.ask("start", "c1", "nyc") == "ok"
    assert f.ask("stop", "c2") == f.ask("choose", "c2", CHOSEN4, None) == "ok"


# --- choices


def test_a_client_leaves_from_the_address_it_chose(f: Fleet) -> None:
    assert f.ask("choose", "c1", CHOSEN4, CHOSEN6) == "ok"
    assert f.ways("c1") == [(OWN_KIND, CHOSEN4), (OWN_KIND, CHOSEN6)]
    assert f.ams.disk.choices() == [ChoiceRow("10.100.0.1", "fd57:6172:7265:2::c1", CHOSEN4, CHOSEN6)]
    assert f.ask("choose", "c1", "203.0.113.13", None) == "ok"
    assert f.ways("c1") == [(OWN_KIND, "203.0.113.13"), (OWN_KIND, "default")]
    assert f.ask("choose", "c1", None, None) == "ok"
    assert f.leaves_from_here("c1")
    assert f.as_at_first()
    assert not f.ams.disk.choices()


@pytest.mark.parametrize("chosen", [("203.0.113.21", None), ("198.51.100.1", None), (None, CHOSEN4), ("default", None)])
def test_only_exit_addresses_of_this_server_can_be_chosen(f: Fleet, chosen: tuple[str | None, str | None]) -> None:
    ours = "203.0.113.11, 203.0.113.12, 203.0.113.13, 2001:db8:e::11, 2001:db8:e::12, 2001:db8:e::13"
    assert f.refused("choose", "c1", *chosen) == f"this is no exit address of ams. There are: {ours}"
    assert f.as_at_first()
    assert not f.ams.disk.choices()


def test_no_flow_keeps_the_address_that_was_left(f: Fleet) -> None:
    f.ask("choose", "c1", CHOSEN4, CHOSEN6)
    f.world.go(1)
    for address in ("10.100.0.1", "fd57:6172:7265:2::c1"):
        assert f.ams.flows[address] == {f.ams.way(address)}


# --- an exit that is away


def test_without_its_exit_a_client_is_blocked_until_that_is_back(f: Fleet) -> None:
    f.world.kill("nyc")
    task = f.judge.begin("ams", "start", f.client("c1"), "nyc")
    f.world.go(60, task.done)
    with pytest.raises(AwayError) as caught:
        task.result()
    assert str(caught.value) == (
        "nyc does not answer. The client's traffic is blocked until that is over, or until the session is stopped"
    )
    assert f.marks("c1") == {BLOCK}
    assert f.failures("unreachable") == 1
    f.world.go(100)
    assert f.marks("c1") == {BLOCK}
    f.world.boot("nyc")
    f.world.go(3)
    assert f.leaves_by("c1", "nyc")
    assert None not in session_addresses(f.ams.up.entry.sessions["10.100.0.1"]).values()


def test_a_mesh_that_is_cut_blocks_in_time_and_comes_back(f: Fleet) -> None:
    f.ask("start", "c1", "nyc")
    f.world.cut.add("nyc")
    f.world.go(LEASE_SECONDS - 1)
    assert f.leaves_by("c1", "nyc"), "the exit may be back before the lease is over"
    f.world.go(6)
    assert f.marks("c1") == {BLOCK}
    f.world.go(20)
    assert not f.nyc.leased, "nobody renews it"
    assert not any(f.nyc.flows.values())
    f.world.cut.clear()
    f.world.go(LIVENESS_SECONDS + 5)
    assert f.leaves_by("c1", "nyc")


@pytest.mark.parametrize("listed", ["never", "nowhere", "long ago"])
def test_an_exit_whose_link_is_down_is_away(f: Fleet, listed: str) -> None:
    """The mesh may be up all the same."""
    exit_ = f.ams.up.entry.exits["nyc"]
    peer, now = (exit_.server.interface, str(exit_.server.public_key)), f.world.clock.time()
    said: dict[tuple[str, str], float] = {"never": {peer: 0.0}, "nowhere": {}, "long ago": {peer: now}}[listed]

    async def down() -> dict[tuple[str, str], float]:
        return said

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("warrend.liveness.handshakes", down)
        if listed == "long ago":
            f.world.go(ALIVE_SECONDS - LIVENESS_SECONDS)
            assert exit_.link_up
        f.world.go(2 * LIVENESS_SECONDS + 1)
        assert not exit_.link_up
        assert f.ask("start", "c1", "nyc") == "away"
        assert f.marks("c1") == {BLOCK}
        assert f.failures("link") == 1
        f.world.go(2 * LEASE_SECONDS)
        assert f.marks("c1") == {BLOCK}, "although the backend answers"
    assert f.ask("start", "c1", "nyc") == "ok", "asked again, it is tried again"
    assert f.leaves_by("c1", "nyc")


def test_a_client_that_is_blocked_can_go_elsewhere(f: Fleet) -> None:
    f.world.kill("nyc")
    f.ask("start", "c1", "nyc")
    assert f.ask("start", "c1", "fra") == "ok"
    assert f.leaves_by("c1", "fra")
    f.world.kill("fra")
    f.world.go(2 * LEASE_SECONDS)
    assert f.marks("c1") == {BLOCK}
    assert f.ask("stop", "c1") == "ok"
    assert f.leaves_from_here("c1")
    f.world.boot("nyc", "fra")


def test_an_exit_that_was_restarted_has_the_session_again(f: Fleet) -> None:
    f.ask("start", "c1", "nyc")
    f.judge.kill("nyc", reboot=True)
    f.world.boot("nyc")
    f.world.go(LEASE_SECONDS)
    assert f.leaves_by("c1", "nyc")
    assert len(f.nyc.leased) == 4


def test_an_exit_that_was_killed_goes_on_as_before(f: Fleet) -> None:
    f.ask("start", "c1", "nyc")
    f.world.go(1)
    live = dict(f.nyc.live)
    f.judge.kill("nyc")
    f.world.boot("nyc")
    f.world.go(3 * LEASE_SECONDS)
    assert f.nyc.live == live, "and the same exit addresses"


# --- restarts of the entry


def test_after_a_restart_the_exit_addresses_are_known_again(f: Fleet) -> None:
    f.ask("start", "c1", "nyc")
    before = session_addresses(f.ams.up.entry.sessions["10.100.0.1"])
    f.judge.kill("ams", reboot=True)
    f.world.boot("ams")
    f.world.go(1)
    assert session_addresses(f.ams.up.entry.sessions["10.100.0.1"]) == before


@pytest.mark.parametrize("reboot", [False, True])
def test_sessions_and_choices_outlive_the_agent_and_the_host(f: Fleet, reboot: bool) -> None:
    f.ask("start", "c1", "nyc")
    f.ask("choose", "c2", CHOSEN4, None)
    live = dict(f.ams.live)
    f.judge.kill("ams", reboot)
    f.world.boot("ams")
    assert f.ams.live == live
    assert f.leaves_by("c1", "nyc")
    assert f.ways("c2") == [(OWN_KIND, CHOSEN4), (OWN_KIND, "default")]


def test_clients_pass_only_once_all_elements_are_there(f: Fleet) -> None:
    f.ask("start", "c1", "nyc")
    f.judge.kill("ams", reboot=True)
    for address in f.ams.handles:
        assert f.ams.way(address) is None
    task = f.world.begin_boot("ams")
    f.world.go(60, lambda: bool(f.ams.live))
    assert f.ams.way("10.100.0.2") == f.ams.way("fd57:6172:7265:2::c2") == (OWN_KIND, "default", None)
    assert {way and way[1] for way in map(f.ams.way, ("10.100.0.1", "fd57:6172:7265:2::c1"))} == {"nyc"}, "at once"
    f.world.go(60, task.done)


def test_new_session_addresses_are_not_those_on_disk(f: Fleet) -> None:
    f.ask("start", "c1", "nyc")
    (row,) = f.ams.disk.sessions()
    f.judge.kill("ams")
    f.world.boot("ams")
    taken = [int(ipaddress.ip_address(a)) for a in (row.session4, row.session6)]
    prefixes = [int(n.network_address) for n in (f.ams.config.session4, f.ams.config.session6)]
    draws = iter([taken[0] - prefixes[0] - 1, 5, taken[1] - prefixes[1] - 1, 6])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("warrend.pool.secrets.randbelow", lambda _limit: next(draws, 7))
        f.ask("start", "c2", "nyc")
    assert f.ams.disk.sessions()[1].session4 == "10.128.128.6"
    assert f.ams.disk.sessions()[1].session6 == "fd57:6172:7265:8001::7"


def with_config(f: Fleet, **changes: Any) -> None:
    """The agent is told something else from now on."""
    f.ams.tell(other(f.ams.config, **changes))


def test_a_client_that_left_the_inventory_loses_its_session(f: Fleet) -> None:
    f.ask("start", "c1", "nyc")
    f.ask("start", "c2", "nyc")
    f.ask("choose", "c3", CHOSEN4, None)
    f.judge.kill("ams")
    with_config(f, clients={"10.100.0.2": f.ams.config.clients["10.100.0.2"]})
    f.judge.protected.discard(("ams", "10.100.0.1"))
    f.world.boot("ams")
    f.world.go(1)
    assert [row.client4 for row in f.ams.disk.sessions()] == ["10.100.0.2"]
    assert not f.ams.disk.choices()
    assert len(f.nyc.leased) == 4, "the exit was told"
    for name in ("10.100.0.1", "fd57:6172:7265:2::c1", "10.100.0.3"):
        assert f.ams.way(name) is None, "nobody's now"


def test_a_client_whose_other_address_changed_leaves_by_its_exit_with_that_too(f: Fleet) -> None:
    f.ask("start", "c1", "nyc")
    f.judge.kill("ams", reboot=True)
    alice = replace(f.ams.config.clients["10.100.0.1"], address6="fd57:6172:7265:2::a11c")
    with_config(f, clients={**f.ams.config.clients, "10.100.0.1": alice})
    f.judge.protected.discard(("ams", "10.100.0.1"))
    f.world.boot("ams")
    f.judge.protected.add(("ams", "10.100.0.1"))
    assert f.leaves_by("c1", "nyc")
    assert [row.client6 for row in f.ams.disk.sessions()] == ["fd57:6172:7265:2::a11c"]
    assert ("client_mark6", "fd57:6172:7265:2::c1") not in f.ams.live


def test_a_choice_of_an_address_that_is_gone_is_over(f: Fleet) -> None:
    f.ask("choose", "c1", CHOSEN4, None)
    f.judge.kill("ams")
    with_config(f, exit4=("203.0.113.11",))
    f.world.boot("ams")
    assert f.leaves_from_here("c1")
    assert not f.ams.disk.choices()


def test_a_session_by_an_exit_that_is_gone_stays_blocked(f: Fleet) -> None:
    """Nothing says that the client may leave from here."""
    f.ask("start", "c1", "fra")
    f.judge.kill("ams")
    with_config(f, servers={"nyc": f.ams.config.servers["nyc"]})
    f.world.boot("ams")
    f.world.go(60)
    assert f.marks("c1") == {BLOCK}
    assert f.ask("stop", "c1") == "ok"
    assert f.leaves_from_here("c1")


# --- a disk that takes nothing


@pytest.fixture
def full(f: Fleet) -> Iterator[None]:
    """The disk of ams takes nothing from now on."""

    def refuse(*_arguments: object) -> None:
        f.judge.disk_refuses("ams")
        raise sqlite3.OperationalError("database or disk is full")

    with pytest.MonkeyPatch.context() as patched:
        f.ask("start", "c2", "nyc")
        f.ask("forward", "c2")
        patched.setattr(f.ams.disk, "_many", refuse)
        yield


@pytest.mark.usefixtures("full")
def test_a_session_that_cannot_be_written_down_is_not_started(f: Fleet) -> None:
    assert f.ask("start", "c1", "nyc") == "disk"
    assert f.leaves_from_here("c1")
    assert f.ask("choose", "c1", CHOSEN4, None) == "disk"
    assert f.leaves_from_here("c1")
    assert f.ask("forward", "c1") == "disk"


@pytest.mark.usefixtures("full")
def test_a_session_whose_end_cannot_be_written_down_goes_on(f: Fleet) -> None:
    """Stopped, switched, or of a client that is gone: it stays by its exit."""
    for what in (("start", "c2", "fra"), ("stop", "c2"), ("disconnected", "c2")):
        assert f.ask(*what) == "disk"
        f.world.go(10)
        assert f.leaves_by("c2", "nyc"), what
    f.world.silent.add(("ams", "c2"))
    f.world.go(IDLE_SECONDS + 2 * LIVENESS_SECONDS)
    assert f.leaves_by("c2", "nyc")


# --- ends that nobody asks for


def test_an_idle_clients_session_ends(f: Fleet) -> None:
    f.ask("start", "c1", "nyc")
    f.ask("choose", "c2", CHOSEN4, None)
    f.ask("start", "c3", "nyc")
    for name in ("c1", "c2", "c3"):
        f.ask("forward", name)
    f.world.silent |= {("ams", "c1"), ("ams", "c2")}
    f.world.go(IDLE_SECONDS - 60)
    assert len(f.ams.disk.sessions()) == 2
    assert len(f.ams.disk.forwards()) == 3
    f.world.go(60 + 2 * LIVENESS_SECONDS)
    assert [row.client4 for row in f.ams.disk.sessions()] == ["10.100.0.3"]
    assert not f.ams.disk.choices()
    assert [row.client4 for row in f.ams.disk.forwards()] == ["10.100.0.3"]
    assert len(f.nyc.leased) == 4
    f.judge.protected.discard(("ams", "10.100.0.1"))
    registry = f.ams.up.metrics.registry
    assert registry.get_sample_value("warren_session_ends_total", {"reason": "idle"}) == 1


def test_an_idle_clients_forwarded_ports_end(f: Fleet) -> None:
    """One that has nothing else."""
    f.ask("forward", "c1")
    f.ask("forward", "c2")
    f.world.silent.add(("ams", "c1"))
    f.world.go(IDLE_SECONDS - 60)
    assert len(f.ams.disk.forwards()) == 2
    f.world.go(60 + 2 * LIVENESS_SECONDS)
    assert [row.client4 for row in f.ams.disk.forwards()] == ["10.100.0.2"]


def test_after_a_restart_clients_have_time_to_shake_hands(f: Fleet) -> None:
    f.ask("start", "c1", "nyc")
    f.world.silent.add(("ams", "c1"))
    f.world.go(IDLE_SECONDS / 2)
    f.judge.kill("ams", reboot=True)
    f.world.boot("ams")
    f.world.go(IDLE_SECONDS - 60)
    assert f.ams.disk.sessions()


def test_without_handshakes_nobody_is_idle(f: Fleet) -> None:
    """Nobody says who is there: that is no reason to end everybody's session."""

    async def nobody() -> None:
        return None

    f.ask("start", "c1", "nyc")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("warrend.liveness.handshakes", nobody)
        f.world.go(2 * IDLE_SECONDS)
    assert f.leaves_by("c1", "nyc")


def test_an_interface_that_was_made_anew_ends_nothing(f: Fleet) -> None:
    """It has no handshake of anybody, and sessions are older than any client may be idle. Nor does it keep anything."""
    f.ask("start", "c1", "nyc")
    f.ask("choose", "c2", CHOSEN4, None)
    f.ask("forward", "c3")
    f.world.go(2 * IDLE_SECONDS)
    f.world.silent |= {("ams", "c2"), ("ams", "c3")}
    f.world.go(4 * LIVENESS_SECONDS)
    clients = f.ams.config.clients.values()
    peers = [(*f.ams.config.access_interfaces, client.public_key) for client in clients]
    said = dict.fromkeys(peers, 0.0)

    async def anew() -> dict[tuple[str, str], float]:
        return said

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("warrend.liveness.handshakes", anew)
        f.world.go(2 * LIVENESS_SECONDS)
        assert f.leaves_by("c1", "nyc")
        assert f.ways("c2") == [(OWN_KIND, CHOSEN4), (OWN_KIND, "default")]
        assert f.ams.disk.forwards()
        f.world.go(4 * LIVENESS_SECONDS)
        assert f.leaves_by("c1", "nyc")
        assert f.leaves_from_here("c2")
        assert not f.ams.disk.forwards()
        said[peers[0]] = f.world.clock.time()
        f.world.go(4 * LIVENESS_SECONDS)
        assert f.leaves_by("c1", "nyc")


@pytest.mark.parametrize("hours", [1, -1])
def test_a_wall_clock_that_jumps_ends_nothing(f: Fleet, hours: int) -> None:
    """Nor does it keep anything longer: only the seconds that have really passed count."""
    f.ask("start", "c1", "nyc")
    f.ask("forward", "c1")
    f.ask("choose", "c2", CHOSEN4, None)
    f.ask("start", "c3", "nyc")
    f.world.go(IDLE_SECONDS)
    exit_ = f.ams.up.entry.exits["nyc"]
    link = {(exit_.server.interface, str(exit_.server.public_key)): f.world.clock.time()}

    async def frozen() -> dict[tuple[str, str], float]:
        """Nobody shakes hands any more but c3."""
        return {**await f.world.handshakes(), **link}

    f.world.silent |= {("ams", "c1"), ("ams", "c2")}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("warrend.liveness.handshakes", frozen)
        f.world.clock.off = hours * 3600.0
        f.world.go(ALIVE_SECONDS - 2 * LIVENESS_SECONDS)
        assert exit_.link_up
        assert f.leaves_by("c1", "nyc")
        assert f.ways("c2") == [(OWN_KIND, CHOSEN4), (OWN_KIND, "default")]
        assert f.ask("start", "c2", "nyc") == "choice"
        assert f.ask("choose", "c2", None, None) == f.ask("start", "c2", "nyc") == "ok"
        f.world.go(4 * LIVENESS_SECONDS)
        assert not exit_.link_up, "by now it is"
        f.world.go(2 * LIVENESS_SECONDS)
        assert f.leaves_from_here("c1")
        assert not f.ams.disk.forwards()
        f.judge.protected.discard(("ams", "10.100.0.1"))
        assert f.leaves_by("c2", "nyc"), "it began when its client was silent already, and has as long"
        assert f.leaves_by("c3", "nyc")


def test_a_clock_that_was_wrong_at_the_start_ends_nothing(f: Fleet) -> None:
    """A session's own time on the disk, and handshakes before that, are of a year to come, or long past."""
    f.ask("start", "c1", "nyc")
    f.ask("start", "c2", "nyc")
    for off in (-(10**8), 10**8):
        f.judge.kill("ams")
        f.world.clock.off = float(off)
        f.world.boot("ams")
        f.world.go(IDLE_SECONDS - LIVENESS_SECONDS)
        assert f.leaves_by("c1", "nyc")
        f.world.go(3 * LIVENESS_SECONDS)
        assert f.leaves_by("c1", "nyc")
    f.world.silent.add(("ams", "c2"))
    f.world.go(IDLE_SECONDS + 2 * LIVENESS_SECONDS)
    f.judge.protected.discard(("ams", "10.100.0.2"))
    assert f.leaves_by("c1", "nyc")
    assert f.leaves_from_here("c2")


@pytest.mark.parametrize("had", ["session", "choice", "nothing"])
def test_a_client_that_disconnects_has_nothing_any_more(f: Fleet, had: str) -> None:
    if had == "session":
        f.ask("start", "c1", "nyc")
    if had == "choice":
        f.ask("choose", "c1", CHOSEN4, None)
    if had != "nothing":
        f.ask("forward", "c1")
        assert f.ams.disk.forwards()
    assert f.ask("disconnected", "c1") == "ok"
    assert not f.ams.disk.forwards()
    assert f.leaves_from_here("c1")
    assert not f.ams.disk.sessions()
    assert not f.ams.disk.choices()
    assert not f.nyc.leased
    assert f.as_at_first()


# --- session addresses


def test_session_addresses_are_unique_and_of_our_prefix() -> None:
    with World(configs(fleet(clients=120, servers=2, **SMALL_POOL))) as world:
        world.boot()
        ams = world.hosts["ams"]
        tasks = [world.spawn("ams", ams.up.entry.start(client, "nyc")) for client in ams.config.clients.values()]
        world.go(1, lambda: all(task.done() for task in tasks))
        rows = ams.disk.sessions()
        for addresses, network in (
            ({row.session4 for row in rows}, ipaddress.ip_network("10.1.1.0/24")),
            ({row.session6 for row in rows}, ipaddress.ip_network("fd57:6172:7265:8001::/64")),
        ):
            assert len(addresses) == len(rows) == 120
            found = set(map(ipaddress.ip_address, addresses))
            assert all(address in network for address in found)
            assert not found & {network[0], network[-1]}
        first = [int(row.session4.rpartition(".")[2]) for row in rows]
        assert first != sorted(first), "they say nothing of the order"


def test_every_address_of_the_documents_pool_is_used_and_then_no_more() -> None:
    """254 sessions, where the document's own way could draw 163 addresses."""
    with World(configs(fleet(clients=257, servers=2, **SMALL_POOL))) as world:
        world.boot()
        ams = world.hosts["ams"]
        outcomes = []
        with pytest.MonkeyPatch.context() as patched:
            draws = iter(range(100_000))
            patched.setattr("warrend.pool.secrets.randbelow", lambda limit: next(draws) % limit)
            for client in ams.config.clients.values():
                outcomes.append(world.do("ams", ams.up.entry.start(client, "nyc"), 1))
        assert outcomes == ["ok"] * 254 + ["pool_full"] * 3
        used = {row.session4 for row in ams.disk.sessions()}
        assert used == {str(address) for address in ipaddress.ip_network("10.1.1.0/24").hosts()}
        last = list(ams.config.clients.values())[-1]
        task = world.spawn("ams", ams.up.entry.start(last, "nyc"))
        world.go(1, task.done)
        assert str(task.exception()) == "no session address is free: ams has 254 of them"
        assert {key: value for key, value in ams.live.items() if last.address4 in key} == {
            ("client_mark4", last.address4): OWN_KIND << 28 | ams.handles[last.address4]
        }
        sample = ams.up.metrics.registry.get_sample_value
        assert sample("warren_session_start_failures_total", {"reason": "pool_full"}) == 4
        assert world.do("ams", ams.up.entry.stop(next(iter(ams.config.clients.values())))) == "ok"
        assert world.do("ams", ams.up.entry.start(last, "nyc")) == "ok", "an address is free again"


def test_the_default_pool_has_room_for_thirty_thousand() -> None:
    (ams, *_others) = configs(fleet())
    assert ams.session4.num_addresses - 2 >= 30_000


# --- a kernel that refuses


def test_a_failure_of_the_kernel_is_told_and_changes_nothing(f: Fleet) -> None:
    f.ams.fail = [TablesError("refused")]
    task = f.judge.begin("ams", "start", f.client("c1"), "nyc")
    f.world.go(60, task.done)
    assert isinstance(task.exception(), TablesError)
    assert not f.ams.disk.sessions()
    f.ams.touched()
    f.world.go(1)
    assert f.ask("start", "c1", "nyc") == "ok"


def test_a_session_on_disk_is_a_session_whatever_comes_before(f: Fleet) -> None:
    """Rows of an older run that the kernel knows nothing of."""
    f.judge.kill("ams")
    f.ams.disk.put_sessions(
        [SessionRow("10.100.0.1", "fd57:6172:7265:2::c1", "nyc", "10.128.128.7", "fd57:6172:7265:8001::7", EPOCH)]
    )
    f.world.boot("ams")
    f.judge.protected.add(("ams", "10.100.0.1"))
    assert f.leaves_by("c1", "nyc")
