"""The agent as a whole: what it tells others of its clients, that nothing blocks it, and how it ends."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import prometheus_client
import pytest
from agents import Pair, PlainKernel, pair
from blockbuster import BlockingError, blockbuster_ctx
from fakes import EPOCH, FakeKernel, World
from fleets import IDLE_SECONDS, configs, fleet
from warrend import __main__ as main_module
from warrend import agent as agent_module
from warrend import ctl
from warrend.conntrack import EXIT_KIND, OWN_KIND, SESSION_KIND
from warrend.entry import LOOK_SECONDS, Session, State
from warrend.kernel import Kernel
from warrend.store import SessionRow
from warrend.tables import TablesError, TablesGoneError

IDENTIFYING = re.compile(r"10\.100\.|fd57:6172:7265:2:|\bc[1-9]\b|AAAA")
"""Addresses in the tunnel, names and keys of the clients."""
SESSION = re.compile(r"10\.128\.|fd57:6172:7265:8")


@pytest.fixture
def both(tmp_path: Path) -> Iterator[Pair]:
    with pair(tmp_path) as running, running.control():
        yield running


def whole_life(running: Pair, failing: bool) -> None:
    """All that can become of sessions, most of it twice."""
    for words in (
        ("start", "c1", "nyc"),
        ("start", "c1", "nyc"),
        ("start", "c2", "fra"),
        ("start", "10.100.0.2", "nyc"),
        ("start", "10.100.0.99", "nyc"),
        ("start", "c3", "10.100.0.3"),
        ("choose", "c3", "203.0.113.12", "2001:db8:e::12"),
        ("choose", "fd57:6172:7265:2::c1", "203.0.113.12"),
        ("start", "c3", "nyc"),
        ("show", "c1"),
        ("list",),
        ("exits",),
        ("check",),
        ("stop", "c1"),
        ("stop", "c1"),
        ("disconnected", "c2"),
        ("disconnected", "c3"),
    ):
        with suppress(SystemExit):
            ctl.main(words)
    if failing:
        kernels: list[Any] = [running.ams.kernel, running.nyc.kernel]
        for kernel in kernels:
            kernel.fail = [OSError("no buffer for 10.100.0.1 of c1")]
            ctl.main(("start", "c1", "nyc"))
            ctl.main(("stop", "c1"))
            kernel.fail = []
        ctl.main(("start", "c1", "nyc"))
    running.mesh.send("GET", "/metrics")
    running.mesh.post(op="start", a_slug="ams", session_ip="10.100.0.1")
    running.thread.run(running.ams.restore())


def test_no_log_line_and_no_metric_names_a_client(both: Pair, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("asyncio").setLevel(logging.INFO)
    whole_life(both, failing=True)
    kernel: Any = both.ams.kernel
    kernel.live.clear()
    both.thread.run(both.ams.restore())
    text = caplog.text
    assert "OSError in " in text
    assert "2 elements put right" in text or "4 elements put right" in text
    assert not IDENTIFYING.search(text)
    assert not SESSION.search(text)
    for agent in (both.ams, both.nyc):
        metrics = both.thread.run(shown(agent))
        assert "warren_session_starts" in metrics
        assert not IDENTIFYING.search(metrics)
        assert not SESSION.search(metrics)
        assert "203.0.113" not in metrics


async def shown(agent: agent_module.Agent) -> str:
    return prometheus_client.generate_latest(agent.metrics.registry).decode()


def test_no_log_line_of_what_happens_by_itself_names_a_client(caplog: pytest.LogCaptureFixture) -> None:
    """Idle clients, clients out of the inventory, sessions that nobody renews."""
    caplog.set_level(logging.DEBUG)
    with World(configs(fleet())) as world:
        world.boot()
        ams = world.hosts["ams"]
        for name in ("c1", "c2", "c3"):
            assert world.do("ams", ams.up.entry.start(ams.up.entry.client(name), "nyc")) == "ok"
        world.silent.add(("ams", "c1"))
        world.go(IDLE_SECONDS + 2 * LOOK_SECONDS)
        world.kill("ams")
        ams.config = replace(ams.config, clients={})
        world.boot("ams")
        world.cut.add("ams")
        world.go(60)
    wanted = ("1 clients were idle", "2 sessions end: their clients are not in the inventory", "elements put right")
    assert [line for line in wanted if line not in caplog.text] == []
    assert not IDENTIFYING.search(caplog.text)
    assert not SESSION.search(caplog.text)


def test_nothing_blocks_the_event_loop(both: Pair, caplog: pytest.LogCaptureFixture) -> None:
    """With the real store on a real disk, and real sockets."""
    with blockbuster_ctx():
        whole_life(both, failing=False)
        for agent in (both.ams, both.nyc):
            waiting = asyncio.run_coroutine_threadsafe(agent.wait(), both.thread.loop)
            with pytest.raises(TimeoutError):
                waiting.result(0.1)
            waiting.cancel()
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert ctl.main(("list", "--json")) == 0


def test_what_blocks_would_be_seen(both: Pair) -> None:
    async def wrong() -> None:
        with blockbuster_ctx():
            both.ams.entry._store.sessions()  # noqa: SLF001 - as a careless change would do it

    with pytest.raises(BlockingError):
        both.thread.run(wrong())


# --- metrics


def sample(world: World, name: str, **labels: str) -> float | None:
    return world.hosts["ams"].up.metrics.registry.get_sample_value(name, labels)


def test_metrics_count_what_there_is() -> None:
    with World(configs(fleet())) as world:
        world.boot()
        entry = world.hosts["ams"].up.entry
        assert sample(world, "warren_sessions", exit="nyc") == 0
        world.do("ams", entry.start(entry.client("c1"), "nyc"))
        world.do("ams", entry.start(entry.client("c1"), "nyc"))
        world.kill("fra")
        world.do("ams", entry.start(entry.client("c2"), "fra"))
        world.go(5)
        assert sample(world, "warren_sessions", exit="nyc") == sample(world, "warren_sessions", exit="fra") == 1
        assert sample(world, "warren_sessions_by_state", state="active") == 1
        assert sample(world, "warren_sessions_by_state", state="blocked") == 1
        assert sample(world, "warren_session_starts_total", exit="nyc") == 1
        assert sample(world, "warren_session_start_failures_total", reason="unreachable") == 1
        assert (sample(world, "warren_exit_up", exit="nyc"), sample(world, "warren_exit_up", exit="fra")) == (1, 0)
        assert sample(world, "warren_exit_link_up", exit="nyc") == 1
        assert sample(world, "warren_exit_round_trip_seconds", exit="nyc") is not None
        leases = world.hosts["nyc"].up.metrics.registry.get_sample_value("warren_leases", {"entry": "ams"})
        assert leases == 1
        world.do("ams", entry.stop(entry.client("c1")))
        assert sample(world, "warren_session_ends_total", reason="client") == 1
        assert sample(world, "warren_sessions", exit="nyc") == 0
        world.hosts["ams"].live.clear()
        world.hosts["ams"].touched()
        world.go(1)
        assert sample(world, "warren_elements_repaired_total") == 2


# --- what others do to the tables


def test_what_others_change_is_put_right_at_once() -> None:
    with World(configs(fleet())) as world:
        world.boot()
        ams = world.hosts["ams"]
        world.do("ams", ams.up.entry.start(ams.up.entry.client("c1"), "nyc"))
        wanted = dict(ams.live)
        ams.flows["10.100.0.1"].add((OWN_KIND, "default", None))
        ams.live = {("client_mark4", "10.100.0.1"): 5, ("session_exit4", "10.129.0.9"): "203.0.113.11"}
        ams.touched()
        world.go(0.1)
        assert ams.live == wanted
        assert not ams.flows["10.100.0.1"], "whatever came through meanwhile"


def test_the_elements_are_compared_now_and_then_even_if_nobody_seems_to_have_changed_them() -> None:
    with World(configs(fleet())) as world:
        world.boot()
        ams = world.hosts["ams"]
        world.do("ams", ams.up.entry.start(ams.up.entry.client("c1"), "nyc"))
        wanted = dict(ams.live)
        ams.live.clear()
        world.go(agent_module.AUDIT_SECONDS + 1)
        assert ams.live == wanted


@pytest.mark.parametrize("what", ["restore", "keep"])
def test_without_its_tables_the_agent_ends_and_says_why(what: str) -> None:
    with World(configs(fleet())) as world:
        world.boot()
        ams = world.hosts["ams"]
        world.do("ams", ams.up.entry.start(ams.up.entry.client("c1"), "nyc"))
        waiting = world.spawn("ams", ams.up.wait())
        world.go(10)
        assert not waiting.done()
        ams.fail = [TablesGoneError("no such table")] * 9
        if what == "restore":
            ams.touched()
        else:
            world.kill("nyc")
        world.go(60, waiting.done)
        assert isinstance(waiting.exception(), TablesGoneError)


# --- flows that an earlier run did not get to


def judged(sessions: int) -> tuple[PlainKernel, agent_module.Agent]:
    """An agent with sessions and a lease, and the kernel that it has given its judgement."""

    async def run() -> tuple[PlainKernel, agent_module.Agent]:
        agent = agent_module.Agent(configs(fleet())[0], Path())
        for number in range(sessions):
            pair4, pair6 = f"10.100.0.{number}", f"fd57:6172:7265:2::c{number}"
            row = SessionRow(pair4, pair6, "nyc", f"session {number}", f"other {number}", EPOCH)
            agent.entry.sessions[row.client4] = Session(row, State.ACTIVE)
        agent.leases.adopt({("session_exit4", "10.129.0.7"): "203.0.113.11"})
        await agent.check()
        await agent.http.close()
        kernel: Any = agent.kernel
        return kernel, agent

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(agent_module, "Kernel", PlainKernel)
        patched.setattr(agent_module, "Store", lambda _path: None)
        return asyncio.run(run())


@pytest.mark.parametrize(
    ("address", "mark", "wrong"),
    [
        ("10.100.0.1", OWN_KIND << 28, True),
        ("fd57:6172:7265:2::c1", OWN_KIND << 28, True),
        ("10.100.0.1", EXIT_KIND << 28, False),
        ("fd57:6172:7265:2::c1", EXIT_KIND << 28, False),
        ("10.100.0.3", OWN_KIND << 28, False),
        ("10.100.0.3", EXIT_KIND << 28, True),
        ("fd57:6172:7265:2::c3", EXIT_KIND << 28, True),
        ("192.0.2.1", OWN_KIND << 28, False),
        ("192.0.2.1", EXIT_KIND << 28, True),
        ("10.129.0.7", SESSION_KIND << 28, False),
        ("10.129.0.8", SESSION_KIND << 28, True),
        ("10.100.0.1", 0, False),
        ("10.129.0.8", 0, False),
    ],
)
def test_which_flows_are_wrong(address: str, mark: int, wrong: bool) -> None:
    assert judged(sessions=3)[0].wrong(address, mark) is wrong


def test_flows_are_judged_in_another_thread_while_sessions_come_and_go() -> None:
    kernel, agent = judged(sessions=2000)
    over = threading.Event()
    failed: list[Exception] = []

    def judge() -> None:
        while not over.is_set():
            try:
                kernel.wrong("10.100.0.1", OWN_KIND << 28)
            except RuntimeError as error:  # dictionary changed size during iteration
                failed.append(error)
                return

    thread = threading.Thread(target=judge)
    thread.start()
    row = agent.entry.sessions["10.100.0.1"]
    for number in range(30_000):
        agent.entry.sessions[f"x{number}"] = row
        if number > 100:
            del agent.entry.sessions[f"x{number - 100}"]
    over.set()
    thread.join()
    assert failed == []


# --- the process


def test_the_sockets_of_systemd_are_found_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    made = [socket.socket() for _number in range(3)]
    monkeypatch.setattr(main_module, "FIRST_DESCRIPTOR", made[0].fileno())
    monkeypatch.setenv("LISTEN_FDS", "3")
    monkeypatch.setenv("LISTEN_FDNAMES", "backend:backend:control")
    opened = []

    def socket_of(fileno: int) -> int:
        opened.append(fileno)
        return fileno

    monkeypatch.setattr(main_module.socket, "socket", socket_of)
    first = made[0].fileno()
    found: Any = main_module.sockets()
    assert found == {"backend": [first, first + 1], "control": [first + 2]}
    monkeypatch.delenv("LISTEN_FDS")
    assert main_module.sockets() == {}
    for sock in made:
        sock.close()


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, abstract: bool) -> None:
    name = f"{tmp_path}/notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"\0{name}" if abstract else name)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}" if abstract else name)
        main_module.notify("READY=1")
        assert sock.recv(100) == b"READY=1"
    monkeypatch.delenv("NOTIFY_SOCKET")
    main_module.notify("READY=1")


def test_a_missing_table_is_an_exit_status_that_has_systemd_try_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        raise TablesError("nftables map client_mark4 of table warren_multihop: No such file or directory")

    monkeypatch.setattr(main_module, "run", run)
    monkeypatch.setattr(logging, "basicConfig", lambda **_settings: None)
    assert main_module.main() == 1
    assert "systemd starts warrend again, and has the tables put back before" in caplog.text


def test_the_kernel_of_the_tests_can_what_the_agent_asks_of_the_real_one() -> None:
    def methods(kind: type) -> set[str]:
        return {name for name in vars(kind) if not name.startswith("_")}

    assert methods(Kernel) == methods(PlainKernel) == methods(FakeKernel)
