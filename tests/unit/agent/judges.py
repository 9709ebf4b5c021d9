"""What has to hold at every moment, and what once it is quiet."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Coroutine
from typing import Any

from fakes import Host, World, outcome
from warrend.clients import Client
from warrend.conntrack import EXIT_KIND, OWN_KIND
from warrend.ctl import WRONG
from warrend.store import SessionRow

QUIET_SECONDS = 14.0
"""More than a lease, and what it takes to see that it is over."""


class Judge:
    """Looks at a world after every effect.

    Attributes:
        home: the server that a client is connected to, by the client's name, where it is not ams.
    """

    def __init__(self, world: World, **home: str) -> None:
        """Begin to look."""
        self.world, self.home = world, home
        # Clients that may not leave from their entry: a session was started, and nobody has begun to stop it.
        self.protected: set[tuple[str, str]] = set()
        self._starting: set[tuple[str, str]] = set()
        self._acts = -1
        world.watchers.append(self.look)

    # --- what the agents are asked for

    def begin(self, slug: str, what: str, client: Client, *arguments: Any) -> asyncio.Task[Any]:
        """Ask the agent of a server for something: start, stop, choose, disconnected, forward."""
        entry, key = self.world.hosts[slug].up.entry, (slug, client.address4)
        act = entry.forwards.add if what == "forward" else getattr(entry, what)
        coroutine: Coroutine[Any, Any, Any] = act(client, *arguments)
        if what == "start":
            self._starting.add(key)
        elif what in ("stop", "disconnected"):
            self._starting.discard(key)
            self.protected.discard(key)
        task = self.world.spawn(slug, coroutine)
        if what == "start":
            task.add_done_callback(lambda done: self._started(key, outcome(done)))
        return task

    def _started(self, key: tuple[str, str], what: str) -> None:
        if what in ("ok", "away") and key in self._starting:
            self.protected.add(key)
        self._starting.discard(key)

    def ask(self, slug: str, what: str, client: Client, *arguments: Any, seconds: float = 60) -> str:
        """Ask for something, and wait for what comes of it."""
        task = self.begin(slug, what, client, *arguments)
        self.world.go(seconds, task.done)
        return outcome(task)

    def kill(self, slug: str, reboot: bool = False) -> None:
        """Kill an agent.

        A start that was not on the disk yet never was: whoever asked for it got no answer. One that was on the disk and
        not in the kernel yet is valid from the agent's return.
        """
        (self.world.reboot if reboot else self.world.kill)(slug)
        host = self.world.hosts[slug]
        on_disk = {(slug, row.client4) for row in host.disk.sessions()}
        held = {key for key in on_disk if kind_of(host, key[1]) == EXIT_KIND}
        self.protected = {key for key in self.protected if key[0] != slug} | held | (on_disk if reboot else set())
        self._starting = {key for key in self._starting if key[0] != slug} | on_disk

    def disk_refuses(self, slug: str) -> None:
        """What was not on the disk yet, and was being started, never was."""
        on_disk = {(slug, row.client4) for row in self.world.hosts[slug].disk.sessions()}
        never = {key for key in self._starting if key[0] == slug} - on_disk
        self._starting -= never
        self.protected -= never

    # --- at every moment

    def clients_of(self, host: Host) -> list[Client]:
        """The clients that are connected to a server. Every server knows all of them."""
        clients = host.config.clients.values()
        return [client for client in clients if self.home.get(client.name, "ams") == host.config.slug]

    def look(self) -> None:
        """See that nothing is wrong."""
        acts = sum(len(host.log) for host in self.world.hosts.values())
        if acts == self._acts:
            return  # and so no kernel is another than before
        self._acts = acts
        for slug, host in self.world.hosts.items():
            self._sessions_are_unique(host)
            for client in self.clients_of(host):
                self._families_agree(host, client)
                key = (slug, client.address4)
                if key in self._starting and kind_of(host, client.address4) == EXIT_KIND:
                    self.protected.add(key)
                for address in (client.address4, client.address6):
                    if (slug, client.name) not in self.world.silent:
                        self._packets_come_out_right(host, address, key in self.protected)

    @staticmethod
    def _sessions_are_unique(host: Host) -> None:
        for family, network in (("4", host.config.session4), ("6", host.config.session6)):
            used = [str(value) for (name, _key), value in host.live.items() if name == f"client_session{family}"]
            assert len(set(used)) == len(used), "two clients have one session address"
            assert all(ipaddress.ip_address(address) in network for address in used)

    @staticmethod
    def _families_agree(host: Host, client: Client) -> None:
        ends = (("4", client.address4), ("6", client.address6))
        marks = {host.live.get((f"client_mark{family}", address)) for family, address in ends}
        assert len(marks) == 1, f"one family of {client.name} goes another way: {marks}"
        to_exit = bool(marks & set(host.exit_of_mark))
        for family, address in ends:
            assert ((f"client_session{family}", address) in host.live) == to_exit, "a session address without a way"

    @staticmethod
    def _packets_come_out_right(host: Host, address: str, protected: bool) -> None:
        out = host.send(address)
        kinds = {kind for kind, _where, _session in out}
        assert not (protected and OWN_KIND in kinds), "a client with a session left from its entry"
        assert {flow for flow in out if flow[0] == EXIT_KIND} <= {host.way(address)}, "an old flow left by another exit"

    # --- once it is quiet

    def settle(self, seconds: float = QUIET_SECONDS, flows: bool = True) -> None:
        """Let time pass, and see that all servers agree with each other, their disks, their kernels and their flows."""
        self.world.go(seconds)
        for slug, host in self.world.hosts.items():
            assert host.process.alive, "boot it first"
            self._server_agrees(slug, host)
            if flows:
                self._flows_agree(host)

    def _server_agrees(self, slug: str, host: Host) -> None:
        agent = host.up
        assert host.live == {**agent.entry.elements(), **agent.leases.elements()}
        check = asyncio.ensure_future(agent.check(), loop=self.world.loop)
        self.world.go(until=check.done)
        assert {name: check.result()[name] for name in WRONG} == dict.fromkeys(WRONG, 0)
        rows = host.disk.sessions()
        assert sorted(rows, key=client_of) == sorted((s.row for s in agent.entry.sessions.values()), key=client_of)
        assert {row.client4 for row in rows} == {client4 for where, client4 in self.protected if where == slug}
        assert not {row.client4 for row in rows} & {choice.client4 for choice in host.disk.choices()}
        here = {
            address
            for other in self.world.hosts.values()
            for row in other.disk.sessions()
            if row.exit == slug
            for address in (row.session4, row.session6)
        }
        leased = {key for name, key in agent.leases.elements() if name.startswith("session_exit")}
        assert leased == here, "a session that its exit or its entry lacks"

    def _flows_agree(self, host: Host) -> None:
        here = host.up.leases
        for address, flows in host.flows.items():
            if host.config.clients.at(address):
                assert flows <= {host.way(address)}
            elif here.entry_of(address):
                assert not flows or host.handles[address] in here.handles, "conntrack knows a session that is over"


def client_of(row: SessionRow) -> str:
    """What rows are ordered by."""
    return row.client4


def kind_of(host: Host, client4: str) -> int:
    """Which way a client's packets are approved for; a client that is held goes by no exit and not from here either."""
    return int(host.live.get(("client_mark4", client4), 0)) >> 28
