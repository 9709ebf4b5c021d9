# Copyright (c) 2026 the warren.vpn authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Elements of the nftables maps that the roles declare. Blocking; the agent calls it in one thread of its own.

One transaction of libnftables for each change, over all maps it touches: all or nothing (libnftables-json(5)).
"""

from __future__ import annotations

import json
import re
import socket
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import nftables

TABLE = "warren_path"
CLIENT_MAPS = tuple(f"client_{name}{family}" for name in ("mark", "flow", "session", "choice") for family in "46")
FORWARD_MAPS = ("forward4", "forward6", "forward_flow")
SESSION_MAPS = tuple(f"session_{name}{family}" for name in ("flow", "exit") for family in "46")

# The name of the thread whose transactions are ours: the kernel reports who made each (NFTA_GEN_PROC_NAME).
THREAD = "warrend-nft"

Value = str | int
Key = tuple[str, str]
"""A map's name and the address, or the port, that is looked up in it."""


class TablesError(Exception):
    """nftables refused a change, and did none of it. The message has no address."""


class TablesGoneError(TablesError):
    """The table that a role made is not there any more."""


class Tables:
    """The live elements, and a copy of them to compute changes from."""

    def __init__(self, clients: bool) -> None:
        """``clients`` says whether this server has clients, and so maps of them."""
        self._nft = nftables.Nftables()
        self._nft.set_json_output(True)
        self._maps = SESSION_MAPS + (CLIENT_MAPS + FORWARD_MAPS if clients else ())
        self._live: dict[str, dict[str, Value]] = {}

    @staticmethod
    def own_thread() -> None:
        """Give the calling thread the name by which the kernel reports its transactions."""
        Path("/proc/thread-self/comm").write_text(THREAD, encoding="ascii")

    def read(self) -> dict[Key, Value]:
        """All elements as they are in the kernel.

        Raises:
            TablesGoneError: a map is not there.
        """
        for name in self._maps:
            self._live[name] = {str(key): value for key, value in self._list(name).get("elem", ())}
        return {(name, key): value for name, found in self._live.items() for key, value in found.items()}

    def exit_seed(self) -> int:
        """The number from which the exit address of a client that has chosen none follows; it is secret.

        Raises:
            TablesGoneError: the table is not there, or has no such number.
        """
        chain = _of_table("client_as_exit")
        code, output, _error = self._nft.json_cmd({"nftables": [{"list": {"chain": chain}}]})
        found = re.search(r'"seed": ?(\d+)', output if isinstance(output, str) else json.dumps(output))
        if code or not found:
            raise TablesGoneError(f"chain {chain['name']} of table {TABLE} does not say how exit addresses follow")
        return int(found[1])

    def apply(self, wanted: Mapping[Key, Value | None], anyway: bool = False) -> None:
        """Give elements their wanted values, None for none, in one transaction.

        Args:
            wanted: the elements that are to change; others stay.
            anyway: all wanted elements are there then, whatever the copy says.

        Raises:
            TablesError: nothing was changed.
        """
        if not self._try(wanted, anyway):
            return
        # Somebody else was there: take what is live now as the start, once.
        self.read()
        failure = self._try(wanted, anyway)
        if failure:
            raise TablesError(failure)

    def _try(self, wanted: Mapping[Key, Value | None], anyway: bool) -> str:
        """Apply in one transaction. Returns what went wrong; empty if nothing did."""
        deleted: dict[str, list[Any]] = {}
        added: dict[str, list[Any]] = {}
        for (name, key), value in wanted.items():
            current = self._live[name].get(key)
            if current == value and not anyway:
                continue
            if current not in (None, value):
                deleted.setdefault(name, []).append(key)
            if value is not None:
                added.setdefault(name, []).append([key, value])
        commands = [{"delete": _elements(name, keys)} for name, keys in deleted.items()]
        commands += [{"add": _elements(name, pairs)} for name, pairs in added.items()]
        if not commands:
            return ""
        code, _output, error = self._nft.json_cmd({"nftables": commands})
        if code:
            return _without_elements(error)
        for (name, key), value in wanted.items():
            if value is None:
                self._live[name].pop(key, None)
            else:
                self._live[name][key] = value
        return ""

    def _list(self, name: str) -> dict[str, Any]:
        code, output, error = self._nft.json_cmd({"nftables": [{"list": {"map": _of_table(name)}}]})
        if code:
            raise TablesGoneError(f"nftables map {name} of table {TABLE}: {_without_elements(error)}")
        data = json.loads(output) if isinstance(output, str) else output
        found: dict[str, Any] = next(item["map"] for item in data["nftables"] if "map" in item)
        return found


def _of_table(name: str) -> dict[str, str]:
    return {"family": "inet", "table": TABLE, "name": name}


def _elements(name: str, elements: list[Any]) -> dict[str, Any]:
    return {"element": {**_of_table(name), "elem": elements}}


def _without_elements(error: str) -> str:
    """libnftables' words without the line that it quotes, which may hold an address."""
    lines = [line for line in error.splitlines() if "Error" in line]
    return "; ".join(sorted({line.partition("Error: ")[2] for line in lines})) or "refused"


NETLINK_NETFILTER, SOL_NETLINK, ADD_MEMBERSHIP = 12, 270, 1
GROUP_NFTABLES, NEWGEN, PROC_NAME = 7, (10 << 8) | 15, 3
TABLE_NAME = 1
STRUCTURE = {(10 << 8) | number for number in (0, 2, 3, 5, 6, 8, 11)}
"""What takes tables, chains, rules and sets away, or adds any of the first three (nf_tables.h); it names its table."""

ELEMENTS = {(10 << 8) | number for number in (12, 14)}
"""What adds elements, or takes them away: the agent's own work too."""

OURS = "warren_"
"""What the names of the collection's tables begin with."""


def watch() -> socket.socket:
    """A socket that becomes readable after each nftables transaction of anybody (linux/netfilter/nfnetlink.h)."""
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, NETLINK_NETFILTER)
    sock.bind((0, 0))
    sock.setsockopt(SOL_NETLINK, ADD_MEMBERSHIP, GROUP_NFTABLES)
    return sock


def others_changed(sock: socket.socket) -> tuple[bool, bool]:
    """What a watching socket has to report: whether any transaction was not ours, and whether a table of ours is other.

    The agent changes elements only; whatever else becomes of a table is somebody else's doing.
    """
    foreign = damaged = elements = False
    for data in datagrams(sock):
        if data is None:
            return True, True
        for kind, attributes in _messages(data):
            if kind == NEWGEN:  # the last of a transaction
                others = attributes.get(PROC_NAME, "") != THREAD
                foreign, damaged, elements = foreign or others, damaged or (others and elements), False
            elif attributes.get(TABLE_NAME, "").startswith(OURS):
                damaged, elements = damaged or kind in STRUCTURE, elements or kind in ELEMENTS
    return foreign, damaged


def datagrams(sock: socket.socket) -> Iterable[bytes | None]:
    """What a netlink socket has to report now; a last None if it could not keep up (ENOBUFS)."""
    while True:
        try:
            yield sock.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError:
            yield None
            return


def _messages(data: bytes) -> Iterable[tuple[int, dict[int, str]]]:
    """Kind and first attributes, as texts, of each message in a netlink datagram that says something here."""
    offset = 0
    while offset + 16 <= len(data):
        length, kind = struct.unpack_from("=IH", data, offset)
        position, end = offset + 20, offset + length
        found: dict[int, str] = {}
        while (kind == NEWGEN or kind in STRUCTURE or kind in ELEMENTS) and position + 4 <= end:
            size, attribute = struct.unpack_from("=HH", data, position)
            if attribute in (TABLE_NAME, PROC_NAME):
                found[attribute] = data[position + 4 : position + size].rstrip(b"\0").decode(errors="replace")
            position += max(4, (size + 3) & ~3)
        if found:
            yield kind, found
        offset += max(16, (length + 3) & ~3)
