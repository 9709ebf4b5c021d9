# Copyright (c) 2026 the warren.vpn authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the agent is told by the inventory: ``/etc/warren/agent.json``, written by site.yml."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from .conntrack import handle

PATH = Path("/etc/warren/agent.json")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class Server:
    """Another server of the fleet.

    Attributes:
        name, slug, label, region: how people and servers call it.
        control4: its address on the control mesh.
        control6: the same for IPv6.
        session4, session6: the session addresses that it may speak for.
        mark: the firewall mark of clients that leave by it; None where this server has no clients.
        interface: the multihop link towards it.
        public_key: its WireGuard key on that link.
        exit4, exit6: its exit addresses, those that it may say a session leaves from.
    """

    name: str
    slug: str
    label: str
    region: str
    control4: str
    control6: str
    session4: ipaddress.IPv4Network
    session6: ipaddress.IPv6Network
    mark: int | None
    interface: str
    public_key: str | None
    exit4: tuple[str, ...]
    exit6: tuple[str, ...]

    def speaks_for(self, address: str) -> bool:
        """Whether a session address, in canonical form, is of its own prefix."""
        return ipaddress.ip_address(address) in (self.session6 if ":" in address else self.session4)


@dataclass(frozen=True)
class Client:
    """A client that may connect to this server.

    Attributes:
        name: how people call it.
        public_key: its WireGuard key.
        address4, address6: its addresses in the tunnel.
    """

    name: str
    public_key: str
    address4: str
    address6: str


@dataclass(frozen=True)
class Config:
    """All that the agent is told.

    Attributes:
        slug, label: this server's.
        control4: its address on the control mesh.
        session4, session6: from where it takes session addresses for its clients.
        exit4, exit6: its exit addresses.
        control_interface: the control mesh.
        access_interface: where its clients are.
        multihop_interface: where the sessions of other servers' clients come in.
        entry4, entry6: its entry addresses, None where it has none of a family.
        portal: the addresses on which clients reach the portal.
        portal_names: other names that lead to it.
        forward_ports: the first and the last port that clients may have forwarded to them.
        reserved_ports: those among them that are the fleet's own.
        backend_port: TCP port of the agents on the mesh.
        block_mark: the mark of a client whose exit is away.
        hold_mark: the mark of a client whose exit is about to change.
        most_sessions: how many sessions another server may have here.
        lease_seconds: how long a session lives here, as its exit, without a renewal.
        idle_seconds: how long a session lives here, as its entry, without a handshake of its client.
        servers: the other servers, by slug.
        clients_connect: whether this server has clients, or only is an exit.
        clients: by IPv4 tunnel address.
    """

    slug: str
    label: str
    control4: str
    session4: ipaddress.IPv4Network
    session6: ipaddress.IPv6Network
    exit4: tuple[str, ...]
    exit6: tuple[str, ...]
    entry4: str
    entry6: str | None
    portal: tuple[str, ...]
    portal_names: tuple[str, ...]
    forward_ports: tuple[int, int]
    reserved_ports: frozenset[int]
    control_interface: str
    access_interface: str
    multihop_interface: str
    backend_port: int
    block_mark: int
    hold_mark: int
    most_sessions: int
    lease_seconds: int
    idle_seconds: int
    clients_connect: bool
    servers: Mapping[str, Server]
    clients: Mapping[str, Client]

    @cached_property
    def links(self) -> frozenset[str]:
        """The names of this server's own WireGuard links."""
        exits = {server.interface for server in self.servers.values() if server.mark is not None}
        clients = {self.access_interface} if self.clients_connect else set()
        return frozenset({self.control_interface, self.multihop_interface} | clients | exits)

    @cached_property
    def by_control_address(self) -> dict[str, Server]:
        """The other servers by either address on the mesh."""
        return {address: server for server in self.servers.values() for address in (server.control4, server.control6)}

    @cached_property
    def _clients_by_word(self) -> dict[str, Client]:
        return {word: c for c in self.clients.values() for word in (c.address6, c.address4, c.name)}

    @cached_property
    def _clients_by_address(self) -> dict[str, Client]:
        return {address: c for c in self.clients.values() for address in (c.address4, c.address6)}

    @cached_property
    def clients_by_handle(self) -> dict[int, str]:
        """The IPv4 tunnel address of each client by what its flows' marks have of it."""
        return {handle(address): address for address in self.clients}

    def client_at(self, address: str) -> Client | None:
        """The client whose tunnel address this is; a name that looks like one is nobody's."""
        return self._clients_by_address.get(address)

    def client(self, word: str) -> Client | None:
        """The client of this name or tunnel address."""
        return self._clients_by_word.get(word) or self._clients_by_word.get(_canonical(word))

    def exit(self, word: str) -> Server | None:
        """The server of this slug or name that clients of this server can leave from."""
        found = self.servers.get(word) or next((s for s in self.servers.values() if s.name == word), None)
        return found if found and found.mark is not None else None


def _canonical(address: str) -> str:
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return address


def load(path: Path = PATH) -> Config:
    """Read the file that site.yml wrote."""
    return parse(json.loads(path.read_text(encoding="utf-8")))


def parse(data: Mapping[str, Any]) -> Config:
    """The configuration from its plain data."""
    here = data["server"]
    servers = [
        Server(
            **{
                **server,
                "session4": ipaddress.IPv4Network(server["session4"]),
                "session6": ipaddress.IPv6Network(server["session6"]),
                "exit4": tuple(server["exit4"]),
                "exit6": tuple(server["exit6"]),
            }
        )
        for server in data["servers"]
    ]
    clients = [Client(**client) for client in data["clients"]]
    plain = ("control_interface", "access_interface", "multihop_interface", "backend_port", "block_mark", "hold_mark")
    return Config(
        slug=here["slug"],
        label=here["label"],
        control4=here["control4"],
        session4=ipaddress.IPv4Network(here["session4"]),
        session6=ipaddress.IPv6Network(here["session6"]),
        exit4=tuple(here["exit4"]),
        exit6=tuple(here["exit6"]),
        entry4=here["entry4"],
        entry6=here["entry6"],
        portal=tuple(data["portal"]),
        portal_names=tuple(data["portal_names"]),
        forward_ports=(data["forward_ports"][0], data["forward_ports"][1]),
        reserved_ports=frozenset(data["reserved_ports"]),
        **{name: data[name] for name in plain},
        clients_connect=data["clients_connect"],
        most_sessions=data["most_sessions"],
        lease_seconds=data["lease_seconds"],
        idle_seconds=data["idle_seconds"],
        servers={server.slug: server for server in servers},
        clients={client.address4: client for client in clients},
    )
