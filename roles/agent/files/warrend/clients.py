# Copyright (c) 2026 the warren.vpn authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The clients that may connect to this server: ``/etc/warren/clients.json``, written by site.yml.

They are read at the start and again by ``systemctl reload warrend``, which changes nothing for those who stay.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from .conntrack import handle

NAME = "clients.json"
PATH = Path("/etc/warren") / NAME


class ClientsError(Exception):
    """The file cannot be used. The message says what is wrong with it, and names no client."""


@dataclass(frozen=True)
class Client:
    """A client that may connect to this server.

    Attributes:
        name: how people call it.
        public_key: its WireGuard key.
        address4, address6: its addresses in the tunnel, in canonical form.
    """

    name: str
    public_key: str
    address4: str
    address6: str

    def is_same_device(self, other: Client) -> bool:
        """Whether this is that client with another key, name or IPv6 address, and no other who has its address now."""
        return self.address4 == other.address4 and (self.name == other.name or self.public_key == other.public_key)


class Clients(Mapping[str, Client]):
    """The clients, by IPv4 tunnel address. Whoever holds them sees at once what a reload makes of them.

    Attributes:
        most_sessions: how many sessions another server may have here; it follows from the number of clients.
    """

    def __init__(self, clients: Iterable[Client], most_sessions: int) -> None:
        self.most_sessions = most_sessions
        self._by_address4 = {client.address4: client for client in clients}
        listed = self._by_address4.values()
        self._by_address = {address: c for c in listed for address in (c.address4, c.address6)}
        self._by_name_or_address = {key: c for c in listed for key in (c.address6, c.address4, c.name)}
        self._address_by_handle = {handle(address): address for address in self._by_address4}

    def __getitem__(self, address4: str) -> Client:
        """The client with an IPv4 tunnel address."""
        return self._by_address4[address4]

    def __iter__(self) -> Iterator[str]:
        """Their IPv4 tunnel addresses."""
        return iter(self._by_address4)

    def __len__(self) -> int:
        return len(self._by_address4)

    def at(self, address: str) -> Client | None:
        """The client whose tunnel address this is; a name that looks like one is nobody's."""
        return self._by_address.get(address)

    def find(self, name_or_address: str) -> Client | None:
        """The client of this name or tunnel address."""
        found = self._by_name_or_address
        return found.get(name_or_address) or found.get(_canonical(name_or_address))

    def address_of_handle(self, number: int) -> str | None:
        """The IPv4 tunnel address of the client whose flows' marks end in a number, see ``conntrack.handle``."""
        return self._address_by_handle.get(number)

    def replace(self, other: Clients) -> None:
        """Be those others from now on."""
        self.__dict__.update(other.__dict__)


def load(path: Path = PATH) -> Clients:
    """Read the file that site.yml wrote.

    Raises:
        ClientsError: it is not as site.yml writes it.
    """
    try:
        return parse(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        why = str(error.strerror)
    except json.JSONDecodeError as error:
        why = f"line {error.lineno} is no JSON"
    except (UnicodeDecodeError, RecursionError):
        why = "it is no JSON"
    except ClientsError as error:
        why = str(error)
    raise ClientsError(f"{path} is not as site.yml writes it: {why}. Run site.yml for this server again")


def parse(data: Any) -> Clients:
    """The clients from their plain data.

    Raises:
        ClientsError: it is not what ``warren.vpn.agent_clients`` makes.
    """
    if not isinstance(data, dict) or data.keys() != {"most_sessions", "clients"}:
        raise ClientsError("it has to be an object with most_sessions and clients")
    most, listed = data["most_sessions"], data["clients"]
    if not isinstance(most, int) or isinstance(most, bool) or most < 1 or not isinstance(listed, list):
        raise ClientsError("most_sessions has to be a positive number, and clients a list")
    clients = [_client(number, each) for number, each in enumerate(listed, 1)]
    for name in ("name", "address4", "address6"):
        if len({getattr(client, name) for client in clients}) != len(clients):
            raise ClientsError(f"two clients have one {name}")
    return Clients(clients, most)


def _client(number: int, data: Any) -> Client:
    names = {field.name for field in fields(Client)}
    if not isinstance(data, dict) or data.keys() != names or not all(isinstance(each, str) for each in data.values()):
        raise ClientsError(f"client {number} has to have these texts: {', '.join(sorted(names))}")
    client = Client(**data)
    for address, version in ((client.address4, 4), (client.address6, 6)):
        try:
            good = ipaddress.ip_address(address).version == version and _canonical(address) == address
        except ValueError:
            good = False
        if not good:
            raise ClientsError(f"address{version} of client {number} is no IPv{version} address in canonical form")
    return client


def _canonical(address: str) -> str:
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return address
