"""The agent as a whole: what it tells others of its clients, that nothing blocks it, and how it ends."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import prometheus_client
import pytest
from agents import Pair, PlainKernel, pair
from blockbuster import BlockingError, blockbuster_ctx
from fakes import EPOCH, FakeKernel, Host, World
from fleets import IDLE_SECONDS, configs, fleet
from fleets import other as changed
from warrend import __main__ as main_module
from warrend import agent as agent_module
from warrend import ctl
from warrend.clients import ClientsError
from warrend.conntrack import EXIT_KIND, OWN_KIND, SESSION_KIND, handle
from warrend.entry import LIVENESS_SECONDS
from warrend.kernel import Kernel
from warrend.session_states import Session, State
from warrend.store import NewerStoreError, SessionRow
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
    assert re.search(r"[1-9]\d* elements put right, of \d+$", text, re.MULTILINE)
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
        world.go(IDLE_SECONDS + 2 * LIVENESS_SECONDS)
        world.kill("ams")
        ams.config = changed(ams.config, clients={})
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
            both.ams.entry._disk.store.sessions()  # noqa: SLF001 - as a careless change would do it

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
        before = sample(world, "warren_elements_repaired_total") or 0
        lost = len(world.hosts["ams"].live)
        world.hosts["ams"].live.clear()
        world.hosts["ams"].touched()
        world.go(1)
        assert (sample(world, "warren_elements_repaired_total") or 0) - before == lost > 0


# --- what others do to the tables


@pytest.fixture
def three() -> Iterator[World]:
    """On ams c1 and c3 leave by nyc, and c2 from the addresses it chose; all have flows."""
    with World(configs(fleet())) as world:
        world.boot()
        ams = world.hosts["ams"]
        entry = ams.up.entry
        for name in ("c1", "c3"):
            assert world.do("ams", entry.start(entry.client(name), "nyc")) == "ok"
        assert world.do("ams", entry.choose(entry.client("c2"), "203.0.113.12", "2001:db8:e::12")) == "ok"
        world.go(3)
        for client in ams.config.clients.values():
            for address in (client.address4, client.address6):
                assert ams.send(address)
        yield world


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


def test_what_was_only_missing_ends_no_flow(three: World) -> None:
    """Nobody passes without an element, be it a client or a session: nothing came through wrongly."""
    for slug in ("ams", "nyc"):
        host = three.hosts[slug]
        wanted, flows = dict(host.live), {address: set(flows) for address, flows in host.flows.items() if flows}
        assert flows
        for key in list(wanted):
            if "choice" not in key[0]:
                del host.live[key]
        host.log.clear()
        host.touched()
        three.go(0.1)
        assert host.live == wanted
        assert {address: flows for address, flows in host.flows.items() if flows} == flows
        assert [what for what, _detail in host.log if what == "sweep"] == []


def test_a_choice_that_was_missing_ends_the_flows_from_elsewhere(three: World) -> None:
    """Without it a client does leave, from an address that it has not chosen."""
    ams = three.hosts["ams"]
    for family, address in (("4", "10.100.0.2"), ("6", "fd57:6172:7265:2::c2")):
        assert ams.live.pop((f"client_choice{family}", address))
        ams.send(address)
        ams.touched()
        three.go(0.1)
        assert not ams.flows["10.100.0.2"]
        assert not ams.flows["fd57:6172:7265:2::c2"]
        assert ams.flows["10.100.0.1"]


@pytest.mark.parametrize("address", ["10.100.0.1", "fd57:6172:7265:2::c1"])
@pytest.mark.parametrize("name", ["client_mark", "client_flow", "client_session", "client_choice"])
def test_what_was_wrong_ends_the_clients_flows_of_both_families(three: World, name: str, address: str) -> None:
    ams = three.hosts["ams"]
    key = name + ("6" if ":" in address else "4"), address
    wanted, before = dict(ams.live), {each: set(flows) for each, flows in ams.flows.items()}
    ams.live[key] = 5
    ams.touched()
    three.go(0.1)
    assert ams.live == wanted
    assert not ams.flows["10.100.0.1"]
    assert not ams.flows["fd57:6172:7265:2::c1"]
    for other in ("10.100.0.2", "10.100.0.3", "fd57:6172:7265:2::c3"):
        assert ams.flows[other] == before[other] != set()


@pytest.mark.parametrize("six", [False, True])
@pytest.mark.parametrize("name", ["session_flow", "session_exit"])
def test_what_was_wrong_ends_the_sessions_flows_of_both_families(three: World, name: str, six: bool) -> None:
    nyc = three.hosts["nyc"]
    first, second = three.hosts["ams"].disk.sessions()
    wanted = dict(nyc.live)
    nyc.live[name + ("6" if six else "4"), first.session6 if six else first.session4] = 5
    nyc.touched()
    three.go(0.1)
    assert nyc.live == wanted
    assert not nyc.flows[first.session4]
    assert not nyc.flows[first.session6]
    assert nyc.flows[second.session4]
    assert nyc.flows[second.session6]


UNKNOWN = "fd57:6172:7265:8001::99"


@pytest.mark.parametrize(
    ("key", "value", "handle"),
    [
        (("session_exit6", UNKNOWN), "2001:db8:e::21", 0x0A80_9999),
        (("session_flow6", UNKNOWN), 0x5A80_9999, 0x0A80_9999),
        (("client_mark6", "fd57:6172:7265:2::99"), 0x7000_0003, 0x0A64_0063),
    ],
)
def test_what_is_nobodys_ends_the_flows_that_nobody_else_ends(
    three: World, key: tuple[str, str], value: str | int, handle: int
) -> None:
    """Of an IPv6 address alone nobody can say which flows are its: all are looked at."""
    host = three.hosts["nyc"] if "session" in key[0] else three.hosts["ams"]
    before = {address: set(flows) for address, flows in host.flows.items() if flows}
    host.live[key] = value
    host.handles[key[1]] = handle
    host.flows[key[1]] = {(SESSION_KIND if "session" in key[0] else EXIT_KIND, "elsewhere", None)}
    host.log.clear()
    host.touched()
    three.go(0.1)
    assert key not in host.live
    assert {address: flows for address, flows in host.flows.items() if flows} == before
    assert [what for what, _detail in host.log if what == "sweep"] == ["sweep"]


def test_what_is_nobodys_has_no_flow_of_its_ipv4_address(three: World) -> None:
    nyc = three.hosts["nyc"]
    before = {address: set(flows) for address, flows in nyc.flows.items() if flows}
    nyc.live["session_exit4", "10.128.200.9"] = "203.0.113.21"
    nyc.live["session_flow4", "10.128.200.9"] = 0x5A80_C809
    assert nyc.pass_on("10.128.200.9")
    nyc.touched()
    three.go(0.1)
    assert {address: flows for address, flows in nyc.flows.items() if flows} == before


# --- tables and links that are away


def put_backs(host: Host) -> int:
    return sum(what == "put_back" for what, _detail in host.log)


def test_what_is_away_is_put_back_once_at_the_start_and_then_only_if_need_be() -> None:
    with World(configs(fleet())) as world:
        world.boot()
        world.go(5)
        ams = world.hosts["ams"]
        assert put_backs(ams) == 1, "what somebody took while no agent was there to see"
        world.go(3 * agent_module.AUDIT_SECONDS)
        assert put_backs(ams) == 1
        ams.damaged()
        world.go(0.1)
        assert put_backs(ams) == 2
        for _number in range(50):
            ams.damaged()
            world.go(0.1)
        assert 2 + 3 <= put_backs(ams) <= 2 + 6, "not as often as somebody breaks things"
        world.go(3)
        ams.link_away = True
        world.go(agent_module.AUDIT_SECONDS + 5)
        assert not ams.link_away, "even if nobody told"


def test_who_can_put_back_is_asked_until_there_is_somebody(three: World) -> None:
    """What was taken away is not reported twice."""
    ams = three.hosts["ams"]
    three.go(5)
    before, ams.root_answers = put_backs(ams), False
    ams.damaged()
    three.go(5)
    assert put_backs(ams) >= before + 3
    ams.root_answers = True
    three.go(2)
    asked = put_backs(ams)
    three.go(10)
    assert put_backs(ams) == asked, "and then no more"


def lose_chain(host: Host) -> None:
    """Somebody flushes a chain: all elements are still there."""
    host.chain_away = True


@pytest.mark.parametrize("lose", [Host.lose_table, lose_chain])
@pytest.mark.parametrize("reboot", [False, True])
def test_a_table_that_is_not_whole_at_the_start_is_put_back(
    three: World, reboot: bool, lose: Callable[[Host], None]
) -> None:
    ams = three.hosts["ams"]
    wanted = dict(ams.live)
    (three.reboot if reboot else three.kill)("ams")
    lose(ams)
    three.boot("ams")
    assert not ams.gone
    assert not ams.chain_away
    assert ams.live == wanted
    waiting = three.spawn("ams", ams.up.wait())
    three.go(2 * agent_module.AUDIT_SECONDS)
    assert not waiting.done()


def test_a_table_that_cannot_be_put_back_at_the_start_ends_the_agent(three: World) -> None:
    ams = three.hosts["ams"]
    three.kill("ams")
    ams.can_put_back = False
    ams.lose_table()
    ams.log.clear()
    starting = three.begin_boot("ams")
    three.go(60, starting.done)
    assert isinstance(starting.exception(), TablesGoneError)
    assert put_backs(ams) == 1


@pytest.mark.parametrize("told", [False, True])
def test_a_table_that_is_gone_is_put_back_and_the_agent_lives_on(three: World, told: bool) -> None:
    ams = three.hosts["ams"]
    wanted, flows = dict(ams.live), {address: set(ams.flows[address]) for address in ("10.100.0.1", "10.100.0.3")}
    waiting = three.spawn("ams", ams.up.wait())
    ams.log.clear()
    if told:
        ams.lose_table()
    else:
        ams.gone, ams.live = True, {}
    three.go(0.1 if told else agent_module.AUDIT_SECONDS + 5)
    assert not waiting.done()
    assert put_backs(ams) >= 1
    assert ams.live == wanted
    assert {address: ams.flows[address] for address in flows} == flows
    entry = ams.up.entry
    assert three.do("ams", entry.start(entry.client("c1"), "fra")) == "ok"


def test_a_table_that_cannot_be_put_back_ends_the_agent(three: World) -> None:
    ams = three.hosts["ams"]
    waiting = three.spawn("ams", ams.up.wait())
    ams.can_put_back = False
    ams.log.clear()
    ams.lose_table()
    three.go(5, waiting.done)
    assert isinstance(waiting.exception(), TablesGoneError)
    assert put_backs(ams) >= 1


# --- flows that an earlier run did not get to


def judged(sessions: int) -> tuple[PlainKernel, agent_module.Agent]:
    """An agent with sessions of its first clients and a lease, and the kernel that it has given its judgement."""

    async def run() -> tuple[PlainKernel, agent_module.Agent]:
        agent = agent_module.Agent(configs(fleet())[0], Path())
        for number in range(1, sessions + 1):
            pair4, pair6 = f"10.100.0.{number}", f"fd57:6172:7265:2::c{number}"
            row = SessionRow(pair4, pair6, "nyc", f"session {number}", f"other {number}", EPOCH)
            agent.entry.sessions.by_client[row.client4] = Session(row, State.ACTIVE, 0.0)
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
    ("address", "kind", "wrong"),
    [
        ("10.100.0.1", OWN_KIND, True),
        ("10.100.0.1", EXIT_KIND, False),
        ("10.100.0.2", EXIT_KIND, False),
        ("10.100.0.3", OWN_KIND, False),
        ("10.100.0.3", EXIT_KIND, True),
        ("192.0.2.1", OWN_KIND, False),
        ("192.0.2.1", EXIT_KIND, True),
        ("10.129.0.7", SESSION_KIND, False),
        ("10.129.0.8", SESSION_KIND, True),
        ("10.100.0.1", SESSION_KIND, True),
        ("10.129.0.7", EXIT_KIND, True),
        ("10.100.0.1", 0, False),
        ("10.129.0.8", 0, False),
        ("10.129.0.8", 1, False),
        ("10.100.0.1", 8, False),
        ("10.100.0.3", 15, False),
    ],
)
def test_which_flows_are_wrong(address: str, kind: int, wrong: bool) -> None:
    """By what their marks have of the address that began them, or of the IPv4 one that goes with it."""
    assert judged(sessions=2)[0].wrong(kind << 28 | handle(address)) is wrong


def test_flows_are_judged_in_another_thread_while_sessions_come_and_go() -> None:
    kernel, agent = judged(sessions=2)
    over = threading.Event()
    failed: list[Exception] = []

    def judge() -> None:
        while not over.is_set():
            try:
                for kind in (OWN_KIND, SESSION_KIND):
                    kernel.wrong(kind << 28 | handle("10.100.0.1"))
            except RuntimeError as error:  # dictionary changed size during iteration
                failed.append(error)
                return

    thread = threading.Thread(target=judge)
    thread.start()
    row = agent.entry.sessions["10.100.0.1"]
    for number in range(30_000):
        agent.entry.sessions.by_client[f"x{number}"] = row
        agent.leases.handles.add(number)
        if number > 100:
            del agent.entry.sessions.by_client[f"x{number - 100}"]
            agent.leases.handles.discard(number - 100)
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
        raise TablesError("nftables map client_mark4 of table warren_path: No such file or directory")

    monkeypatch.setattr(main_module, "run", run)
    monkeypatch.setattr(logging, "basicConfig", lambda **_settings: None)
    assert main_module.main() == 1
    assert "and cannot be put back. systemd starts warrend again" in caplog.text


def test_a_clients_file_that_is_broken_at_the_start_is_an_exit_status_and_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    (tmp_path / "agent.json").write_text("{}")
    monkeypatch.setattr(main_module.config, "PATH", tmp_path / "agent.json")
    monkeypatch.setattr(main_module.config.load, "__defaults__", (tmp_path / "agent.json",))
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    monkeypatch.setattr(logging, "basicConfig", lambda **_settings: None)
    assert main_module.main() == 1
    why = (
        f"{tmp_path}/clients.json is not as site.yml writes it: No such file or directory. Run site.yml for this server"
    )
    assert caplog.messages == [f"{why} again. Until then nobody passes"]


def test_a_database_of_a_newer_agent_is_an_exit_status_and_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        raise NewerStoreError("/var/lib/warrend/sessions.db is of a newer agent")

    monkeypatch.setattr(main_module, "run", run)
    monkeypatch.setattr(logging, "basicConfig", lambda **_settings: None)
    assert main_module.main() == 1
    assert caplog.messages == ["/var/lib/warrend/sessions.db is of a newer agent"]


def test_a_signal_reloads_and_systemd_is_told_when_that_begins_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    class Reloaded:
        async def reload(self) -> None:
            said.append("reload")
            if said.count("reload") == 2:
                raise ClientsError("broken")

    async def run() -> None:
        told, agent = asyncio.Event(), Reloaded()
        task = asyncio.create_task(main_module.reload_at_each(agent, told))  # type: ignore[arg-type]
        for _number in range(2):
            told.set()
            await asyncio.sleep(0.01)
        task.cancel()

    monkeypatch.setattr(main_module, "notify", said.append)
    asyncio.run(run())
    assert [re.sub(r"=\d{6,}$", "=N", line) for line in said] == [
        "RELOADING=1\nMONOTONIC_USEC=N",
        "reload",
        "READY=1",
    ] * 2


def test_the_kernel_of_the_tests_can_what_the_agent_asks_of_the_real_one() -> None:
    def methods(kind: type) -> set[str]:
        return {name for name in vars(kind) if not name.startswith("_")}

    assert methods(Kernel) == methods(PlainKernel) == methods(FakeKernel)
