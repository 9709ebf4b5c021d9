"""Clients that come and go while the agent runs: nobody else notices."""

from __future__ import annotations

import asyncio
import logging
import re
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes import World, outcome
from fleets import config, configs, fleet, key, other
from judges import Judge
from namespaces import Tun, command, flows, fresh, router, udp
from warrend import clients as clients_module
from warrend.agent import Agent
from warrend.clients import Client
from warrend.conntrack import EXIT_KIND, OWN_KIND, handle
from warrend.tables import TablesError

NEW = Client("c9", key(9009), "10.100.0.9", "fd57:6172:7265:2::c9")
CHOSEN = ("203.0.113.12", "2001:db8:e::12")
BROKEN = "/etc/warren/clients.json is not as site.yml writes it: line 1 is no JSON"


class Running:
    """A fleet in which c1 and c3 leave by nyc and have a forwarded port, and c2 has chosen an address of ams."""

    def __init__(self, world: World) -> None:
        self.world, self.judge = world, Judge(world)
        self.ams, self.nyc = world.hosts["ams"], world.hosts["nyc"]
        world.boot()
        for name in ("c1", "c3"):
            assert self.ask("start", name, "nyc") == self.ask("forward", name) == "ok"
        assert self.ask("choose", "c2", *CHOSEN) == "ok"
        world.go(3)

    def client(self, name: str) -> Client:
        return self.ams.up.entry.client(name)

    def ask(self, what: str, name: str, *arguments: Any) -> str:
        return self.judge.ask("ams", what, self.client(name), *arguments)

    def tell(self, *gone: str, **now: Client) -> None:
        """Have another file on ams: without these clients, with those."""
        clients = {client.name: client for client in self.ams.config.clients.values() if client.name not in gone}
        listed = {client.address4: client for client in {**clients, **now}.values()}
        self.ams.tell(other(self.ams.config, clients=listed))
        for name in gone:
            self.judge.protected.discard(("ams", f"10.100.0.{name[1:]}"))

    def reload(self) -> str:
        return self.world.do("ams", self.ams.up.reload())

    def check(self) -> dict[str, Any]:
        task = self.world.spawn("ams", self.ams.up.check())
        self.world.go(1, task.done)
        return dict(task.result())

    def of(self, *numbers: int) -> dict[Any, Any]:
        """All elements of ams that have to do with these clients."""
        known = {f"10.100.0.{number}" for number in numbers} | {f"fd57:6172:7265:2::c{number}" for number in numbers}
        return {item: value for item, value in self.ams.live.items() if {item[1], value} & known}

    def flows(self, *numbers: int) -> dict[str, Any]:
        known = {f"10.100.0.{number}" for number in numbers} | {f"fd57:6172:7265:2::c{number}" for number in numbers}
        return {address: set(flows) for address, flows in self.ams.flows.items() if flows and address in known}

    def touched(self) -> set[str]:
        """The keys of all elements that were changed on ams, and all whose flows were forgotten."""
        changes = [detail for what, detail in self.ams.log if what in ("apply", "forget")]
        return {each if isinstance(each, str) else each[1] for detail in changes for each in detail}


@pytest.fixture
def f() -> Iterator[Running]:
    with World(configs(fleet())) as world:
        running = Running(world)
        yield running
        running.judge.settle()


def test_the_same_clients_again_change_nothing(f: Running) -> None:
    live, log = dict(f.ams.live), len(f.ams.log)
    f.tell()
    assert f.reload() == "ok"
    assert f.ams.live == live
    assert [what for what, detail in f.ams.log[log:] if detail] == []


def test_a_new_client_passes_and_nobody_else_is_touched(f: Running) -> None:
    before, leased, flows = f.of(1, 2, 3), f.nyc.leased, f.flows(1, 2, 3)
    sessions = dict(f.ams.up.entry.sessions)
    f.ams.log.clear()
    f.tell(c9=NEW)
    assert f.reload() == "ok"
    own = OWN_KIND << 28 | handle(NEW.address4)
    assert f.of(9) == {("client_mark4", NEW.address4): own, ("client_mark6", NEW.address6): own}
    assert f.touched() == {NEW.address4, NEW.address6}
    assert (f.of(1, 2, 3), f.nyc.leased, f.flows(1, 2, 3)) == (before, leased, flows)
    assert dict(f.ams.up.entry.sessions) == sessions
    assert f.ask("start", "c9", "nyc") == f.ask("forward", "c9") == "ok"


@pytest.mark.parametrize("number", [1, 2])
def test_one_that_is_gone_has_nothing_any_more_and_nobody_else_is_touched(f: Running, number: int) -> None:
    """With a session and a port, or with a choice."""
    name, stay = f"c{number}", [each for each in (1, 2, 3) if each != number]
    before, flows, address4 = f.of(*stay), f.flows(*stay), f.client(name).address4
    sessions = {address: session for address, session in f.ams.up.entry.sessions.items() if address != address4}
    theirs = {address for session in sessions.values() for address in session.pair}
    leased = {item: value for item, value in f.nyc.leased.items() if item[1] in theirs}
    f.ams.log.clear()
    f.tell(name)
    assert f.reload() == "ok"
    assert f.ams.way(address4) is None
    f.world.go(1)
    assert not f.of(number)
    assert not f.flows(number)
    assert (f.of(*stay), f.flows(*stay)) == (before, flows)
    ports = {each for each in f.touched() if each.isdigit()}
    assert f.touched() - ports == {address4, f"fd57:6172:7265:2::c{number}"}
    assert len(ports) == (1 if number == 1 else 0)
    assert dict(f.ams.up.entry.sessions) == sessions
    assert f.nyc.leased == leased
    disk = f.ams.disk
    rows = [*disk.sessions(), *disk.choices(), *disk.forwards()]
    assert {row.client4 for row in rows} == {f"10.100.0.{each}" for each in stay}
    assert f.ams.up.config.clients.find(name) is None
    ended = f.ams.up.metrics.registry.get_sample_value("warren_session_ends_total", {"reason": "removed"})
    assert ended == (1 if number == 1 else None)


def test_the_address_of_one_that_is_gone_is_anothers(f: Running) -> None:
    f.tell("c1", c9=replace(NEW, address4="10.100.0.1"))
    assert f.reload() == "ok"
    f.world.go(1)
    assert f.ams.way("10.100.0.1") == (OWN_KIND, "default", None)
    assert f.ams.way(NEW.address6) == (OWN_KIND, "default", None)
    assert f.ams.way("fd57:6172:7265:2::c1") is None
    assert [row.client4 for row in f.ams.disk.forwards()] == ["10.100.0.3"]


@pytest.mark.parametrize("changes", [{"name": "c7"}, {"public_key": key(7)}])
def test_another_name_or_key_is_the_same_device(f: Running, changes: dict[str, str]) -> None:
    live, log = dict(f.ams.live), len(f.ams.log)
    now = replace(f.client("c1"), **changes)
    f.ams.tell(other(f.ams.config, clients={**f.ams.config.clients, now.address4: now}))
    assert f.reload() == "ok"
    assert f.ams.live == live
    assert [what for what, detail in f.ams.log[log:] if detail] == []
    assert f.client(now.name) == now


def test_another_ipv6_address_keeps_session_choice_and_port(f: Running) -> None:
    """Two that swap theirs, and one whose new one nobody had."""
    c1, c2, c3 = (f.client(name) for name in ("c1", "c2", "c3"))
    swapped = {"c1": replace(c1, address6=c2.address6), "c2": replace(c2, address6=c1.address6)}
    f.judge.protected.clear()  # whoever has an address now is not who had it
    f.tell(**swapped, c3=replace(c3, address6="fd57::3"))
    assert f.reload() == "ok"
    f.world.go(1)
    for address in (c1.address4, c2.address6, c3.address4, "fd57::3"):
        way = f.ams.way(address)
        assert way is not None
        assert way[:2] == (EXIT_KIND, "nyc")
    assert [f.ams.way(address) for address in (c2.address4, c1.address6)] == [(OWN_KIND, to, None) for to in CHOSEN]
    assert f.ams.way(c3.address6) is None
    assert {row.client6 for row in f.ams.disk.sessions()} == {c2.address6, "fd57::3"}
    assert [row.client6 for row in f.ams.disk.choices()] == [c1.address6]
    (row,) = f.ams.up.entry.forwards.of(c3.address4)
    assert f.ams.live["forward6", str(row.port)] == "fd57::3"
    f.judge.protected |= {("ams", c1.address4), ("ams", c3.address4)}


def test_what_was_asked_for_before_is_refused_after(f: Running) -> None:
    """A start, a choice and a port that wait for their turn while their client goes."""
    client, entry = f.client("c2"), f.ams.up.entry
    f.ask("choose", "c2", None, None)
    f.world.cut.add("fra")
    first = f.world.spawn("ams", entry.start(client, "fra"))
    f.world.go(0.5)
    assert not first.done()
    f.tell("c2", c9=NEW)
    reloading = f.world.spawn("ams", f.ams.up.reload())
    waiting = [f.world.spawn("ams", work) for work in (entry.start(client, "nyc"), entry.choose(client, *CHOSEN))]
    f.world.go(60, reloading.done)
    waiting.append(f.world.spawn("ams", entry.forwards.add(client)))
    f.world.go(60, lambda: all(task.done() for task in waiting))
    assert [outcome(task) for task in (first, reloading, *waiting)] == ["away", "ok", *["unknown_client"] * 3]
    assert {str(task.exception()) for task in waiting} == {"c2 is no client of ams any more"}
    f.world.go(1)
    assert not f.of(2)
    f.world.cut.clear()


def test_a_file_that_is_broken_leaves_all_as_it_is_and_is_told(f: Running, caplog: pytest.LogCaptureFixture) -> None:
    live, clients = dict(f.ams.live), dict(f.ams.up.config.clients)
    f.ams.clients_error = BROKEN
    task = f.world.spawn("ams", f.ams.up.reload())
    f.world.go(1, task.done)
    assert str(task.exception()) == BROKEN
    said = f"{BROKEN}; the clients of before stay"
    assert [record.message for record in caplog.records if record.levelno == logging.ERROR] == [said]
    assert (f.ams.live, dict(f.ams.up.config.clients)) == (live, clients)
    assert f.check()["broken_clients_file"] == 1
    f.ams.clients_error = ""
    assert f.reload() == "ok"
    assert f.check()["broken_clients_file"] == 0


def test_a_disk_that_takes_nothing_lets_nobody_stay(f: Running, caplog: pytest.LogCaptureFixture) -> None:
    def refuse(*_arguments: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(f.ams.disk, "_many", refuse)
        f.tell("c1", "c2")
        assert f.reload() == "ok"
        f.world.go(1)
        assert not f.of(1, 2)
        assert "the disk takes nothing" in caplog.text
    f.judge.kill("ams")
    f.judge.protected = {("ams", "10.100.0.3")}
    f.world.boot("ams")
    f.world.go(1)
    assert [row.client4 for row in (*f.ams.disk.sessions(), *f.ams.disk.choices())] == ["10.100.0.3"]


def test_what_the_kernel_refuses_is_done_by_the_next_start(f: Running) -> None:
    waiting = f.world.spawn("ams", f.ams.up.wait())
    for gone in ({}, {"c8": replace(NEW, name="c8", address4="10.100.0.8", address6="fd57:6172:7265:2::c8")}):
        f.tell("c1", c9=NEW, **gone)
        f.ams.fail = [TablesError("refused")]
        task = f.world.spawn("ams", f.ams.up.reload())
        f.world.go(60, lambda task=task: waiting.done() and task.done())
        assert isinstance(task.exception(), TablesError)
    assert str(waiting.exception()) == "the elements of clients that come and go could not be changed"
    f.judge.kill("ams")
    f.judge.protected = {("ams", "10.100.0.3")}
    f.world.boot("ams")
    f.world.go(1)
    assert not f.of(1)
    assert f.of(9)


def test_reloads_come_one_after_the_other(f: Running) -> None:
    f.tell(c9=NEW)
    first = f.world.spawn("ams", f.ams.up.reload())
    f.tell("c9")
    second = f.world.spawn("ams", f.ams.up.reload())
    f.world.go(60, lambda: first.done() and second.done())
    assert outcome(first) == outcome(second) == "ok"
    assert not f.of(9)


# --- with the real kernel


def elements() -> dict[str, str]:
    """The elements of each map, as nft(8) lists them."""
    listing = command("nft", "list", "table", "inet", "warren_path")
    return dict(
        re.findall(r"^\tmap (client_\w+|forward\w+) \{\n[^}]*?elements = \{(.*?)\}", listing, re.MULTILINE | re.DOTALL)
    )


def test_in_the_kernel_only_the_elements_and_flows_of_who_goes_and_comes_are_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = config()
    c1, c2, c3 = told.clients.values()
    now = other(told, clients={c1.address4: c1, c2.address4: c2, NEW.address4: NEW}).clients
    monkeypatch.setattr(clients_module, "load", lambda: now)

    async def nothing_is_away() -> bool:
        return True

    async def go(tuns: dict[str, Tun]) -> None:
        agent = Agent(told, tmp_path)
        await agent.start()
        await agent.entry.choose(c2, *CHOSEN)
        await agent.entry.choose(c3, *CHOSEN)
        await agent.entry.forwards.add(c1, 40001)
        await agent.entry.forwards.add(c3, 40003)
        for client in (c1, c3):
            tuns["wg0access"].send(udp(client.address4, "192.0.2.9", 5555))
        tuns["uplink"].send(udp("192.0.2.9", "198.51.100.1", 5555, 40003))
        assert {(c1.address4, 5555), (c3.address4, 5555), ("192.0.2.9", 5555)} <= flows().keys()
        before = elements()
        await agent.reload()
        after = elements()
        assert after.keys() == before.keys()
        for name, listed in before.items():
            was, now_ = (set(re.sub(r"\s+", " ", text).strip().split(", ")) for text in (listed, after[name]))
            gone, come = was - now_, now_ - was
            assert all(c3.address4 in each or c3.address6 in each or "40003" in each for each in gone), name
            assert all(NEW.address4 in each or NEW.address6 in each for each in come), name
        assert NEW.address4 in after["client_mark4"]
        assert NEW.address6 in after["client_mark6"]
        assert c3.address4 not in str(after)
        assert {flow for flow in flows() if flow[1] == 5555} == {(c1.address4, 5555)}
        assert await agent.check() == {**dict.fromkeys(await agent.check(), 0), "choices": 1, "forwards": 1}
        await agent.close()

    monkeypatch.setattr("warrend.agent.put_back", nothing_is_away)
    with fresh(), router(fleet(), "host-ams") as tuns:
        asyncio.run(go(tuns))
