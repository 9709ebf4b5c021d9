# Copyright (c) 2026 the warren.vpn authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads the clients of the inventory and checks them against each other and against the servers.

Private to the collection; called by ``_inventory.py`` only.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from . import _addressing, _problems
from ._problems import FLEET, Place, Report

Server = Mapping[str, Any]
Settings = Mapping[str, Any]

CLIENT_KEYS = ("name", "public_key", "address", "address6", "server")
CLIENT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,62}")
"""A client's name is also the name of its files."""


def read(
    report: Report,
    given: Mapping[str, object],
    settings: Mapping[str, Any],
    servers: Mapping[str, Mapping[str, Any]],
    made: object,
) -> list[dict[str, Any]]:
    """The clients; an entry without a usable name is left out. ``made`` are public keys recorded in this very run."""
    keys = dict(_problems.mapping(Place(report, FLEET, "warren_client_keys"), given.get("warren_client_keys")))
    keys.update(_problems.mapping(Place(report, FLEET, "warren_client_keys_made"), made))
    place = Place(report, FLEET, "warren_clients")
    listed = _problems.items(place, given.get("warren_clients", []), "Write a list of entries with a name each.") or []
    numbered = [(server["id"], name) for name, server in servers.items() if server["access"] and server["id"]]
    default = min(numbered)[1] if numbered else None
    found = []
    for number, entry in enumerate(listed):
        client = _client(place, number, entry, settings, keys)
        if client is not None:
            client["server"] = client["server"] or default
            found.append(client)
    _recorded(report, found, keys)
    return found


def _client(
    place: Place, number: int, entry: object, settings: Mapping[str, Any], keys: Mapping[str, object]
) -> dict[str, Any] | None:
    if not isinstance(entry, Mapping):
        place.at(f"[{number}]").bad(entry, "not a mapping", "Write an entry such as `- name: alice`.")
        return None
    name = entry.get("name")
    if not isinstance(name, str) or not CLIENT_NAME.fullmatch(name):
        remedy = "Give it 1-63 letters, digits, dots, dashes, underscores or @, a letter or digit first."
        place.at(f"[{number}].name").bad(name, "not a name for a client", remedy)
        return None
    here = place.at(f"[{name}]")
    for key in entry:
        if key not in CLIENT_KEYS:
            remedy = _problems.did_you_mean(str(key), CLIENT_KEYS)
            here.report.add(FLEET, here.variable, key, "not a key of a client", remedy)
    recorded = Place(place.report, FLEET, f"warren_client_keys[{name}]")
    key_place, key = here.at(".public_key"), entry.get("public_key")
    if key is None:
        key_place, key = recorded, keys.get(name)
    server = entry.get("server")
    return {
        "name": name,
        "public_key": None if key is None else _problems.public_key(key_place, key),
        "own_key": entry.get("public_key") is not None,
        "address4": _client_address(here.at(".address"), entry.get("address"), name, settings["client_prefix"], 4),
        "address6": _client_address(here.at(".address6"), entry.get("address6"), name, settings["client_prefix6"], 6),
        "server": server if server is None else _problems.text(here.at(".server"), server, "Name a server."),
    }


def _client_address(place: Place, given: object, name: str, prefix: str | None, version: int) -> str | None:
    if given is not None:
        return _problems.address(place, given, version)
    try:
        return _addressing.client_address(prefix, name) if prefix else None
    except ValueError:
        return None  # the prefix is too small: _checks.settings says so, once


def check(report: Report, values: Settings, found: Mapping[str, Server], listed: Sequence[Mapping[str, Any]]) -> None:
    """No two clients share a name or an address, and each is where its server and its prefix are."""
    names: set[str] = set()
    accepting = {name for name, server in found.items() if server["access"]}
    if listed and not accepting:
        problem = "there are clients, but group warren_access is empty"
        report.add(FLEET, "warren_clients", None, problem, "Add a server to it.")
    for client in listed:
        name, server = client["name"], client["server"]
        if name in names:
            report.add(FLEET, f"warren_clients[{name}].name", name, "the name of two clients", "Rename one of them.")
        names.add(name)
        if server is not None and server not in accepting:
            problem = "not a server of group warren_access"
            remedy = (
                _problems.did_you_mean(server, accepting)
                if _problems.closest(server, accepting)
                else (f"Name one of {_problems.some(sorted(accepting))}." if accepting else "Put it in warren_access.")
            )
            report.add(FLEET, f"warren_clients[{name}].server", server, problem, remedy)
    for suffix in ("", "6"):
        _client_addresses(report, values, listed, suffix)


def _client_addresses(report: Report, values: Settings, listed: Sequence[Mapping[str, Any]], suffix: str) -> None:
    prefix, portal = values[f"client_prefix{suffix}"], values[f"portal_address{suffix}"]
    if not prefix or _addressing.network(prefix).size < 4:
        return
    inside = _addressing.network(prefix)
    low, high = inside.first + 1, inside.last - 1
    taken = {portal: f"warren_portal_address{suffix}"} if portal else {}
    addresses = {client[f"address{suffix or '4'}"] for client in listed}
    seen: set[str] = set()
    for client in listed:
        name, address = client["name"], client[f"address{suffix or '4'}"]
        if address is None or (name in seen and taken.get(address) == name):
            continue  # the second of two clients of one name: reported as that
        seen.add(name)
        variable = f"warren_clients[{name}].address{suffix}"
        if address in taken:
            owner = taken[address]
            whose = f"the address of {owner}" if owner in seen else owner
            free = _free(address, low, high, addresses | taken.keys())
            remedy = f"Write `address{suffix}: {free}` in its entry; it is free."
            if free is None:
                remedy = f"Widen warren_client_prefix{suffix}: it is full."
            addresses.add(free)
            report.add(FLEET, variable, address, f"also {whose}", remedy)
            continue
        taken[address] = name
        if not low <= int(_addressing.address(address)) <= high:
            what = "the first or last of" if _addressing.address(address) in inside else "outside"
            remedy = "Remove it to have one computed, or choose one inside."
            report.add(FLEET, variable, address, f"{what} warren_client_prefix{suffix} {prefix}", remedy)


def _free(address: str, low: int, high: int, taken: Collection[str]) -> str | None:
    """The next address after ``address`` that nobody has, from ``low`` to ``high`` and round again."""
    found = _addressing.address(address)
    start = min(max(int(found), low), high)
    for number in range(start, start + min(high - low + 1, len(taken) + 1) + 1):
        free = _addressing.numbered(low + (number - low) % (high - low + 1), found.version)
        if free not in taken:
            return free
    return None


def _recorded(report: Report, listed: Sequence[Mapping[str, Any]], recorded: Mapping[str, object]) -> None:
    """Warn of clients without a key, which get no peer, and of keys without a client."""
    without = [client["name"] for client in listed if client["public_key"] is None]
    if without:
        report.warnings.append(
            f"No public key for {_problems.some(without)}: no server accepts them yet. Run playbooks/clients.yml."
        )
    names = {client["name"] for client in listed}
    gone = [name for name in recorded if name not in names]
    if gone:
        report.warnings.append(
            f"warren_client_keys has keys of {_problems.some(gone)}, not in warren_clients. Remove the entry."
        )


def check_keys(report: Report, recorded: Mapping[str, Mapping[str, str]], listed: Sequence[Mapping[str, Any]]) -> None:
    """No public key stands twice: WireGuard would give the second peer all the packets of the first."""
    owners: dict[str, str] = {}
    remedy = "Each needs a key pair of its own: remove one of them to have it made."
    for name, keys in recorded.items():
        for purpose, key in keys.items():
            owner = owners.setdefault(key, f"{name} ({purpose})")
            if owner != f"{name} ({purpose})":
                report.add(FLEET, f"warren_public_keys[{name}].{purpose}", key, f"also the key of {owner}", remedy)
    for client in listed:
        name, key = client["name"], client["public_key"]
        owner = owners.setdefault(key, name) if key else name
        if owner != name:
            report.add(FLEET, f"warren_clients[{name}].public_key", key, f"also the key of {owner}", remedy)
