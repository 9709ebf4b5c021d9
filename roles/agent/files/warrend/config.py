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

from . import clients as clients_module
from .clients import Clients

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
class Config:
    """All that the agent is told.

    Attributes:
        slug, label: this server's.
        control4: its address on the control mesh.
        session4, session6: from where it takes session addresses for its clients.
        exit4, exit6: its exit addresses.
        control_interface: the control mesh.
        access_interfaces: where its clients come in.
        multihop_interface: where the sessions of other servers' clients come in.
        entry4, entry6: its entry addresses, None where it has none of a family.
        portal: the addresses on which clients reach the portal.
        portal_names: other names that lead to it.
        forward_ports: the first and the last port that clients may have forwarded to them.
        reserved_ports: those among them that are the fleet's own.
        backend_port: TCP port of the agents on the mesh.
        block_mark: the mark of a client whose exit is away.
        hold_mark: the mark of a client whose exit is about to change.
        lease_seconds: how long a session lives here, as its exit, without a renewal.
        idle_seconds: how long a session lives here, as its entry, without a handshake of its client.
        servers: the other servers, by slug.
        clients_connect: whether this server has clients, or only is an exit.
        clients: those that may connect to it. A reload changes them, and nothing else of this.
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
    access_interfaces: tuple[str, ...]
    multihop_interface: str
    backend_port: int
    block_mark: int
    hold_mark: int
    lease_seconds: int
    idle_seconds: int
    clients_connect: bool
    servers: Mapping[str, Server]
    clients: Clients

    @cached_property
    def links(self) -> frozenset[str]:
        """The names of this server's own WireGuard links."""
        exits = {server.interface for server in self.servers.values() if server.mark is not None}
        clients = set(self.access_interfaces) if self.clients_connect else set()
        return frozenset({self.control_interface, self.multihop_interface} | clients | exits)

    @cached_property
    def by_control_address(self) -> dict[str, Server]:
        """The other servers by either address on the mesh."""
        return {address: server for server in self.servers.values() for address in (server.control4, server.control6)}

    def exit(self, slug_or_name: str) -> Server | None:
        """The server of this slug or name that clients of this server can leave from."""
        named = (server for server in self.servers.values() if server.name == slug_or_name)
        found = self.servers.get(slug_or_name) or next(named, None)
        return found if found and found.mark is not None else None


def load(path: Path = PATH) -> Config:
    """Read the file that site.yml wrote, and that of the clients beside it.

    Raises:
        ClientsError: see ``clients.load``.
    """
    clients = clients_module.load(path.with_name(clients_module.NAME))
    return parse(json.loads(path.read_text(encoding="utf-8")), clients)


def parse(data: Mapping[str, Any], clients: Clients) -> Config:
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
    plain = ("control_interface", "multihop_interface", "backend_port", "block_mark", "hold_mark")
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
        access_interfaces=tuple(data["access_interfaces"]),
        **{name: data[name] for name in plain},
        clients_connect=data["clients_connect"],
        lease_seconds=data["lease_seconds"],
        idle_seconds=data["idle_seconds"],
        servers={server.slug: server for server in servers},
        clients=clients,
    )
