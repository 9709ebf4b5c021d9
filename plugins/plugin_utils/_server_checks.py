# Copyright (c) 2026 the warren.vpn authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compares the settings of a fleet with servers, and servers with each other, and reports what does not go together.

Private to the collection; called with values that ``_inventory.py`` and ``_servers.py`` have read. A value that could
not be read is None and is left out: it has its problem already.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

from . import _addressing, _services
from ._problems import FLEET, Report

if TYPE_CHECKING:
    from netaddr import IPNetwork

Server = Mapping[str, Any]
Settings = Mapping[str, Any]

ADDRESS_FIELDS = {"entry4": "entry", "entry6": "entry", "exit4": "exit", "exit6": "exit"}
PREFIXES = ("control_prefix", "client_prefix", "session_pool", "portal_address")


def check(report: Report, values: Settings, found: Mapping[str, Server]) -> None:
    """The settings and the servers go together."""
    settings(report, values, found)
    servers(report, values, found)


def families(report: Report, name: str, entries: Sequence[str], exits: Sequence[str]) -> None:
    """A server has one IPv4 entry address, at most one for IPv6, and exit addresses of the same families."""
    for version in (4, 6):
        entry = [address for address in entries if (":" in address) == (version == 6)]
        leaving = [address for address in exits if (":" in address) == (version == 6)]
        if not entry and (leaving or version == 4):
            problem = f"no IPv{version} address{', but server_exit_addresses has one' if leaving else ''}"
            remedy = "Add the one that clients connect to."
            report.add(name, "server_entry_addresses", None, problem, remedy)
        if len(entry) > 1:
            remedy = "Keep the one that clients and servers connect to."
            report.add(name, "server_entry_addresses", ", ".join(entry), f"more than one IPv{version} address", remedy)
        if entry and not leaving:
            problem = f"no IPv{version} address, but server_entry_addresses has one"
            remedy = f"Add an IPv{version} address that no service of {name} listens on, or remove the entry address."
            report.add(name, "server_exit_addresses", None, problem, remedy)


def settings(report: Report, values: Settings, servers: Mapping[str, Server]) -> None:
    """The fleet's prefixes and ports keep out of each other's way."""
    for suffix in ("", "6"):
        _prefixes(report, values, suffix)
        _pool(report, values, suffix)
    highest = min(limit for limit, _what in _id_limits(values))
    _forward_ports(report, values)
    _ports(report, values, min(highest, max((server["id"] or 0 for server in servers.values()), default=0)))


def _prefixes(report: Report, values: Settings, suffix: str) -> None:
    named = [(f"{name}{suffix}", values[f"{name}{suffix}"]) for name in PREFIXES]
    for (first, one), (second, other) in combinations([pair for pair in named if pair[1]], 2):
        if _addressing.overlap(one, other):
            remedy = "Give each a part of the address space to itself."
            report.add(FLEET, f"warren_{second}", other, f"overlaps with warren_{first} {one}", remedy)
    prefix = values[f"client_prefix{suffix}"]
    if prefix and _addressing.network(prefix).size < 4:
        report.add(FLEET, f"warren_client_prefix{suffix}", prefix, "no room for a client", "Widen it.")


def _pool(report: Report, values: Settings, suffix: str) -> None:
    pool, length = values[f"session_pool{suffix}"], values[f"session_prefix_length{suffix}"]
    if pool and length and length < _addressing.network(pool).prefixlen:
        problem = f"shorter than the prefix of warren_session_pool{suffix} {pool}"
        report.add(FLEET, f"warren_session_prefix_length{suffix}", length, problem, "Lengthen it, or widen the pool.")


def _ports(report: Report, values: Settings, highest: int) -> None:
    fleet, striped, base = values["fleet_ports"], values["striped_ports"], values["link_port_base"]
    ranges = {name: [values[name]] * 2 for name in ("control_port", "multihop_port") if values[name]}
    if base:
        ranges["link_port_base"] = [base + 1, base + max(highest, 1)]
    for name, ports in ranges.items():
        if fleet and not fleet[0] <= ports[0] <= ports[1] <= fleet[1]:
            problem = f"port {ports[1]} is outside warren_fleet_ports {_shown(fleet)}"
            report.add(FLEET, f"warren_{name}", values[name], problem, "Move it into the block, or widen the block.")
    if values["access_port"]:
        ranges["access_port"] = [values["access_port"]] * 2
        if fleet and _meet(ranges["access_port"], fleet):
            problem = f"inside warren_fleet_ports {_shown(fleet)}"
            remedy = "Clients need a port outside the block."
            report.add(FLEET, "warren_access_port", values["access_port"], problem, remedy)
    for first, second in combinations(ranges, 2):
        if _meet(ranges[first], ranges[second]):
            problem = f"collides with warren_{first} (port {_shown(ranges[first])})"
            report.add(FLEET, f"warren_{second}", values[second], problem, "Give each a port of its own.")
    for name, ports in {"fleet_ports": fleet, **ranges}.items():
        if ports and striped and _meet(ports, striped):
            problem = f"port {_shown(ports)} is in the striped range, warren_striped_ports {_shown(striped)}"
            report.add(FLEET, f"warren_{name}", _shown(values[name]), problem, "Move it, or shorten the striped range.")


def _forward_ports(report: Report, values: Settings) -> None:
    forwarded = values["forward_ports"]
    for name, ports in {name: values[name] for name in ("fleet_ports", "striped_ports")}.items():
        if ports and forwarded and _meet(ports, forwarded):
            problem = f"overlaps with warren_{name} {_shown(ports)}"
            report.add(FLEET, "warren_forward_ports", _shown(forwarded), problem, "Choose a range without them.")


def _shown(ports: object) -> str:
    if not isinstance(ports, (list, tuple)):
        return str(ports)
    return str(ports[0]) if ports[0] == ports[1] else f"{ports[0]}-{ports[1]}"


def _meet(one: Sequence[int], other: Sequence[int]) -> bool:
    return one[0] <= other[1] and other[0] <= one[1]


def servers(report: Report, values: Settings, found: Mapping[str, Server]) -> None:
    """No two servers share a number, a slug or an address, and none lies where it must not."""
    _server_ids(report, values, found)
    slugs: dict[str, str] = {}
    for name, server in found.items():
        first = slugs.setdefault(server["slug"], name) if server["slug"] else name
        if first != name:
            report.add(name, "server_slug", server["slug"], f"also the server_slug of {first}", f"Give {name} its own.")
    _server_addresses(report, values, found)
    for name, server in found.items():
        _nat_ports(report, values, name, server)


def _server_ids(report: Report, values: Settings, found: Mapping[str, Server]) -> None:
    used = {server["id"] for server in found.values()}
    limits = list(_id_limits(values))
    highest = min(limit for limit, _what in limits)
    free = next((number for number in range(1, highest + 1) if number not in used), None)
    hint = f"; {free} is free." if free else "; none is free, widen the prefixes."
    owners: dict[int, str] = {}
    for name, server in found.items():
        number = server["id"]
        if number is None:
            continue
        first = owners.setdefault(number, name)
        if first != name:
            remedy = f"Give {name} a number of its own{hint}"
            report.add(name, "server_id", number, f"also the server_id of {first}", remedy)
        if number > highest:
            tight = " and ".join(f"{what} takes ids up to {limit}" for limit, what in limits if number > limit)
            report.add(name, "server_id", number, f"out of range, {tight}", f"Lower it or widen the setting{hint}")


def _id_limits(values: Settings) -> Iterator[tuple[int, str]]:
    """The highest id that each setting has room for."""
    room = _addressing.INTERFACE_NAME_BYTES - len(_addressing.link_interface(1)) + 1
    yield 10**room - 1, f"an interface name of {_addressing.INTERFACE_NAME_BYTES} bytes"
    base, ports = values["link_port_base"], values["fleet_ports"]
    if base and ports:
        yield max(0, ports[1] - base), f"warren_link_port_base {base} in warren_fleet_ports {_shown(ports)}"
    for suffix in ("", "6"):
        prefix, pool = values[f"control_prefix{suffix}"], values[f"session_pool{suffix}"]
        length = values[f"session_prefix_length{suffix}"]
        if prefix:
            yield _addressing.highest_server_id(prefix), f"warren_control_prefix{suffix} {prefix}"
        if pool and length and length >= _addressing.network(pool).prefixlen:
            what = f"warren_session_pool{suffix} {pool} cut in /{length}"
            yield _addressing.highest_session_id(pool, length), what


def _server_addresses(report: Report, values: Settings, found: Mapping[str, Server]) -> None:
    taken: dict[str, tuple[str, str]] = {}
    prefixes = _named_networks(values)
    for name, server in found.items():
        for field, kind in ADDRESS_FIELDS.items():
            listed = server[field] if isinstance(server[field], list) else [server[field]]
            for address in dict.fromkeys(filter(None, listed)):
                variable = f"server_{kind}_addresses"
                if listed.count(address) > 1:
                    report.add(name, variable, address, "listed twice", "Keep it once.")
                owner, what = taken.setdefault(address, (name, kind))
                if (owner, what) != (name, kind):
                    _shared(report, name, variable, address, owner, what)
                _inside(report, name, variable, address, prefixes)


def _shared(report: Report, name: str, variable: str, address: str, owner: str, what: str) -> None:
    remedy = "Correct one of the two."
    if owner == name:  # the port shadow: a service on an exit address lets clients take packets
        remedy = f"Give {name} an exit address that no service listens on, or clients can take each other's packets."
    report.add(name, variable, address, f"also an {what} address of {owner}", remedy)


def _named_networks(values: Settings) -> list[tuple[str, IPNetwork]]:
    names = [f"{name}{suffix}" for suffix in ("", "6") for name in PREFIXES]
    return [(f"warren_{name}", _addressing.network(values[name])) for name in names if values[name]]


def _inside(report: Report, name: str, variable: str, address: str, prefixes: list[tuple[str, IPNetwork]]) -> None:
    numeric = _addressing.address(address)
    for setting, prefix in prefixes:
        if numeric in prefix:
            remedy = "Use a public address of the server, or move the prefix."
            report.add(name, variable, address, f"inside {setting} {prefix}", remedy)


def _nat_ports(report: Report, values: Settings, name: str, server: Server) -> None:
    ports = server["nat_ports"]
    if not ports:
        return
    for block in dict.fromkeys(service.block for service in _services.services(values, server["access"])):
        kept = values[block] if isinstance(values[block], list) else [values[block]] * 2
        if kept[0] and _meet(ports, kept):
            remedy = "Choose a range without it: 30000-51000 is the default."
            problem = f"contains ports of services, warren_{block} {_shown(kept)}"
            report.add(name, "server_nat_ports", _shown(ports), problem, remedy)
