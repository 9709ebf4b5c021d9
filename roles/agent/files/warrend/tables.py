# Copyright (c) 2026 the warren.vpn authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Elements of the nftables maps that the roles declare. Blocking; the agent calls it in one thread of its own.

One transaction of libnftables for each change, over all maps it touches: all or nothing (libnftables-json(5)).
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import nftables

MULTIHOP_TABLE, ACCESS_TABLE = "warren_multihop", "warren_access"
ENTRY_MAPS = ("client_mark4", "client_mark6", "client_session4", "client_session6")
EXIT_MAPS = ("session_exit4", "session_exit6")
CHOICE_MAPS = ("client_choice4", "client_choice6")
FORWARD_MAPS = ("forward4", "forward6")
GATE = "ready"

# The name of the thread whose transactions are ours: the kernel reports who made each (NFTA_GEN_PROC_NAME).
THREAD = "warrend-nft"

Value = str | int
Key = tuple[str, str]
"""A map's name and the address, or the port, that is looked up in it."""


class TablesError(Exception):
    """nftables did not do as told. The message has no address."""


class TablesGoneError(TablesError):
    """A table that a role made is not there any more."""


class Tables:
    """The live elements, and a copy of them to compute changes from."""

    def __init__(self, clients: bool) -> None:
        """``clients`` says whether this server has clients, and so the table of the role access."""
        self._nft = nftables.Nftables()
        self._nft.set_json_output(True)
        names = dict.fromkeys(ENTRY_MAPS + EXIT_MAPS, MULTIHOP_TABLE)
        self._table_of = {**names, **(dict.fromkeys(CHOICE_MAPS + FORWARD_MAPS, ACCESS_TABLE) if clients else {})}
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
        for name, table in self._table_of.items():
            listed = self._list("map", table, name)
            self._live[name] = {str(key): value for key, value in listed.get("elem", ())}
        return {(name, key): value for name, found in self._live.items() for key, value in found.items()}

    def gates(self) -> set[str]:
        """The interfaces whose clients may leave."""
        return set(self._list("set", MULTIHOP_TABLE, GATE).get("elem", ()))

    def exit_seed(self) -> int:
        """The number from which the exit address of a client that has chosen none follows; it is secret.

        Raises:
            TablesGoneError: the table is not there, or has no such number.
        """
        chain = {"family": "inet", "table": ACCESS_TABLE, "name": "postrouting"}
        code, output, _error = self._nft.json_cmd({"nftables": [{"list": {"chain": chain}}]})
        found = re.search(r'"seed": ?(\d+)', output if isinstance(output, str) else json.dumps(output))
        if code or not found:
            raise TablesGoneError(f"chain postrouting of table {ACCESS_TABLE} does not say how exit addresses follow")
        return int(found[1])

    def apply(self, wanted: Mapping[Key, Value | None], opened: Iterable[str] = ()) -> None:
        """Give elements their wanted values, None for none, in one transaction.

        Args:
            wanted: the elements that are to change; others stay.
            opened: interfaces whose clients may leave from now on; all wanted elements are there then, whatever the
                copy says.

        Raises:
            TablesError: nothing was changed.
        """
        if not self._try(wanted, opened):
            return
        # Somebody else was there: take what is live now as the start, once.
        self.read()
        failure = self._try(wanted, opened)
        if failure:
            raise TablesError(failure)

    def _try(self, wanted: Mapping[Key, Value | None], opened: Iterable[str]) -> str:
        """What went wrong; empty if nothing did."""
        deleted: dict[str, list[Any]] = {}
        added: dict[str, list[Any]] = {}
        opened = list(opened)
        for (name, key), value in wanted.items():
            current = self._live[name].get(key)
            if current == value and not opened:
                continue
            if current not in (None, value):
                deleted.setdefault(name, []).append(key)
            if value is not None:
                added.setdefault(name, []).append([key, value])
        commands = [{"delete": self._element(name, keys)} for name, keys in deleted.items()]
        commands += [{"add": self._element(name, pairs)} for name, pairs in added.items()]
        if opened:
            commands.append({"add": {"element": {**_in(MULTIHOP_TABLE, GATE), "elem": opened}}})
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

    def _element(self, name: str, elements: list[Any]) -> dict[str, Any]:
        return {"element": {**_in(self._table_of[name], name), "elem": elements}}

    def _list(self, kind: str, table: str, name: str) -> dict[str, Any]:
        code, output, error = self._nft.json_cmd({"nftables": [{"list": {kind: _in(table, name)}}]})
        if code:
            raise TablesGoneError(f"nftables {kind} {name} of table {table}: {_without_elements(error)}")
        data = json.loads(output) if isinstance(output, str) else output
        found: dict[str, Any] = next(item[kind] for item in data["nftables"] if kind in item)
        return found


def _in(table: str, name: str) -> dict[str, str]:
    return {"family": "inet", "table": table, "name": name}


def _without_elements(error: str) -> str:
    """libnftables' words without the line that it quotes, which may hold an address."""
    lines = [line for line in error.splitlines() if "Error" in line]
    return "; ".join(sorted({line.partition("Error: ")[2] for line in lines})) or "refused"


NETLINK_NETFILTER, SOL_NETLINK, ADD_MEMBERSHIP = 12, 270, 1
GROUP_NFTABLES, NEWGEN, PROC_NAME = 7, (10 << 8) | 15, 3


def watch() -> socket.socket:
    """A socket that becomes readable after each nftables transaction of anybody (linux/netfilter/nfnetlink.h)."""
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, NETLINK_NETFILTER)
    sock.bind((0, 0))
    sock.setsockopt(SOL_NETLINK, ADD_MEMBERSHIP, GROUP_NFTABLES)
    return sock


def others_changed(sock: socket.socket) -> bool:
    """Whether any of the transactions that a watching socket has to report was not ours."""
    foreign = False
    with contextlib.suppress(BlockingIOError):
        while True:
            try:
                data = sock.recv(1 << 18)
            except OSError as error:
                if isinstance(error, BlockingIOError):
                    raise
                return True  # it could not keep up (ENOBUFS): anything may have happened
            foreign = any(name != THREAD for name in _makers(data)) or foreign
    return foreign


def _makers(data: bytes) -> Iterable[str]:
    """The names of the threads that made the transactions in a netlink datagram."""
    offset = 0
    while offset + 16 <= len(data):
        length, kind = struct.unpack_from("=IH", data, offset)
        position, end = offset + 20, offset + length
        while kind == NEWGEN and position + 4 <= end:
            size, attribute = struct.unpack_from("=HH", data, position)
            if attribute == PROC_NAME:
                yield data[position + 4 : position + size].rstrip(b"\0").decode(errors="replace")
            position += max(4, (size + 3) & ~3)
        offset += max(16, (length + 3) & ~3)
