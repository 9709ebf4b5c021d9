# Copyright (c) 2026 the warren.vpn authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads the whole inventory once, into a plain dict called the fleet, and reports all that is wrong with it.

Private to the collection. This file turns variables into values, one at a time; ``_checks.py`` compares the values
with each other; ``_clients.py`` does both for clients; ``_problems.py`` says what a problem is. Nothing here contacts
a host or reads a file.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import _addressing, _checks, _clients, _problems
from ._problems import FLEET, Place, Report

SETTINGS: dict[str, tuple[str, object]] = {
    "control_prefix": ("prefix4", "10.77.0.0/24"),
    "control_prefix6": ("prefix6", "fd57:6172:7265:1::/64"),
    "client_prefix": ("prefix4", "10.96.0.0/11"),
    "client_prefix6": ("prefix6", "fd57:6172:7265:2::/64"),
    "session_pool": ("prefix4", "10.128.0.0/9"),
    "session_prefix_length": ("length4", 17),
    "session_pool6": ("prefix6", "fd57:6172:7265:8000::/49"),
    "session_prefix_length6": ("length6", 64),
    "portal_address": ("address4", "10.31.33.7"),
    "portal_address6": ("address6", "fd57:6172:7265:33::7"),
    "client_dns": ("addresses", []),
    "access_port": ("port", 51820),
    "control_port": ("port", 20000),
    "multihop_port": ("port", 20001),
    "backend_port": ("port", 80),
    "link_port_base": ("port", 21000),
    "fleet_ports": ("ports", "20000-29999"),
    "striped_ports": ("ports", "1-19999"),
    "forward_ports": ("ports", "30000-65535"),
    "mtu": ("mtu", 1420),
}
"""The fleet's settings: name without ``warren_``, kind, default. The defaults stand nowhere else."""

NAT_PORTS = "30000-51000"
"""Default of ``server_nat_ports``, the range of the source document."""

PURPOSES = ("control_mesh", "multihop", "access")
"""What a server's keys are for, in the order they are reported. The last is needed in group warren_access only."""

SECRET_LENGTH = 32

SERVER_VARIABLES = frozenset(
    f"server_{name}" for name in ("id", "slug", "label", "region", "entry_addresses", "exit_addresses", "nat_ports")
)
FLEET_VARIABLES = frozenset(f"warren_{name}" for name in SETTINGS) | frozenset(
    ("warren_fleet_secret", "warren_public_keys", "warren_clients", "warren_client_keys")
)
NOT_READ_HERE = frozenset(
    f"warren_{name}" for name in ("fleet", "unenrolled", "enrolled", "client_keys_made", "serial", "records_dir")
)
"""Known, but nothing to read: facts that a host has once the inventory was read, and options of playbooks."""

SLUG = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
SLUG_BYTES = 15


def purposes(access: bool) -> tuple[str, ...]:
    """What a server needs keys for; ``access`` says whether it is in group warren_access."""
    return PURPOSES if access else PURPOSES[:-1]


@dataclass
class Reading:
    """The result. ``fleet`` is empty when there are problems; ``unenrolled`` are servers of the run without a key."""

    fleet: dict[str, Any] = field(default_factory=dict)
    problems: list[_problems.Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    unenrolled: list[str] = field(default_factory=list)


def read(
    hosts: Mapping[str, Mapping[str, object]],
    servers: Sequence[str],
    access: Sequence[str],
    run: Sequence[str],
    options: Mapping[str, Collection[str]] | None = None,
) -> Reading:
    """Read and check a fleet.

    ``hosts`` maps a host's name to the variables that its inventory gives it, ``servers`` and ``access`` are the
    members of the two groups, ``run`` the hosts of this run. ``options`` maps a role's name to the names of its
    options: a variable that starts with the name of one of these roles and is none of them is reported.
    """
    report = Report()
    _checks.groups(report, servers, access)
    if not servers:
        return Reading({}, report.problems)
    fleet_wide = _fleet_variables(report, hosts, servers)
    settings = _settings(report, fleet_wide)
    secret = _secret(report, fleet_wide)
    keys = _recorded_keys(report, fleet_wide, servers)
    for name in servers:
        made = hosts.get(name, {}).get("warren_enrolled")  # in this very run
        if isinstance(made, Mapping):
            keys[name] = {**keys.get(name, {}), **{str(purpose): str(key) for purpose, key in made.items()}}
    accepting = frozenset(access)
    found = {
        name: _server(report, name, hosts.get(name, {}), name in accepting, keys.get(name, {})) for name in servers
    }
    made = next(
        (given["warren_client_keys_made"] for given in hosts.values() if "warren_client_keys_made" in given), {}
    )
    clients = _clients.read(report, fleet_wide, settings, found, made)

    _checks.variables(report, hosts, servers, SERVER_VARIABLES | FLEET_VARIABLES, NOT_READ_HERE, options or {})
    _checks.settings(report, settings, found)
    _checks.servers(report, settings, found)
    _clients.check(report, settings, found, clients)
    _clients.check_keys(report, found, clients)
    unenrolled = _enrolment(report, found, frozenset(run))

    if report.problems:
        return Reading({}, report.problems, report.warnings, unenrolled)
    for name, server in found.items():
        server["name"] = name
        server["control4"] = _addressing.host_address(settings["control_prefix"], server["id"])
        server["control6"] = _addressing.host_address(settings["control_prefix6"], server["id"])
        server["session4"] = _addressing.session_prefix(
            settings["session_pool"], settings["session_prefix_length"], server["id"]
        )
        server["session6"] = _addressing.session_prefix(
            settings["session_pool6"], settings["session_prefix_length6"], server["id"]
        )
    fleet = {"settings": settings, "secret": secret, "servers": found, "clients": clients}
    return Reading(fleet, report.problems, report.warnings, unenrolled)


def _fleet_variables(
    report: Report, hosts: Mapping[str, Mapping[str, object]], servers: Sequence[str]
) -> dict[str, object]:
    """The warren_* variables, which must be the same for every server."""
    first = hosts.get(servers[0], {})
    for name in sorted(FLEET_VARIABLES):
        expected = first.get(name)
        for host in servers:
            value = hosts.get(host, {}).get(name)
            if value is not expected and value != expected:
                shown = None if name == "warren_fleet_secret" else value
                remedy = "It belongs to the whole fleet: set it once, in group_vars/all."
                report.add(host, name, shown, f"not the same as for {servers[0]}", remedy)
    return {name: first[name] for name in FLEET_VARIABLES if name in first}


def _settings(report: Report, given: Mapping[str, object]) -> dict[str, Any]:
    """Every setting, normalised; None where the given value is wrong, so that checks of it are left out."""
    return {
        name: _setting(Place(report, FLEET, f"warren_{name}"), kind, given.get(f"warren_{name}", default), default)
        for name, (kind, default) in SETTINGS.items()
    }


def _setting(place: Place, kind: str, value: object, default: object) -> Any:
    if kind.startswith("prefix"):
        return _problems.prefix(place, value, int(kind[-1]), str(default))
    if kind == "addresses":
        listed = _problems.items(place, value, 'Write a list of addresses, such as ["9.9.9.9", "2620:fe::fe"].')
        return [address for each in listed or () if (address := _problems.address(place, each))]
    if kind.startswith("address"):
        return _problems.address(place, value, int(kind[-1]))
    if kind == "ports":
        found = _problems.ports(place, value)
        return list(found) if found else None
    low, high = {"port": (1, 65535), "length4": (1, 31), "length6": (1, 127), "mtu": (1280, 9000)}[kind]
    return _problems.whole_number(place, value, low, high)


def _secret(report: Report, given: Mapping[str, object]) -> str:
    """The fleet's secret. No message shows it."""
    value = given.get("warren_fleet_secret")
    if isinstance(value, str) and len(value) >= SECRET_LENGTH:
        return value
    place = Place(report, FLEET, "warren_fleet_secret")
    remedy = (
        "Make one with `openssl rand -base64 48` and keep it in group_vars/all/secret.yml, "
        "encrypted with `ansible-vault encrypt`."
    )
    if isinstance(value, _problems.Unreadable):
        place.bad(value, "", "")
    elif value is None:
        report.add(FLEET, place.variable, None, "missing", remedy)
    else:
        what = f"shorter than {SECRET_LENGTH} characters" if isinstance(value, str) else "not a text"
        report.add(FLEET, place.variable, None, what, remedy)
    return ""


def _recorded_keys(report: Report, given: Mapping[str, object], servers: Sequence[str]) -> dict[str, dict[str, str]]:
    """``warren_public_keys``, without hosts that no longer exist."""
    place = Place(report, FLEET, "warren_public_keys")
    recorded = _problems.mapping(place, given.get(place.variable))
    known = frozenset(servers)
    gone = [host for host in recorded if host not in known]
    if gone:
        report.warnings.append(
            f"{place.variable} has keys of {_problems.some(gone)}, not in group warren_servers. Remove the entry."
        )
    keys: dict[str, dict[str, str]] = {}
    for host in recorded:
        if host not in known:
            continue
        here = place.at(f"[{host}]")
        purposes = _problems.mapping(here, recorded[host])
        read_keys = {purpose: _problems.public_key(here.at(f".{purpose}"), key) for purpose, key in purposes.items()}
        keys[host] = {purpose: key for purpose, key in read_keys.items() if key}
    return keys


def _server(
    report: Report, name: str, given: Mapping[str, object], access: bool, keys: dict[str, str]
) -> dict[str, Any]:
    """One server. A wrong value is None or left out of its list."""

    def at(variable: str) -> Place:
        return Place(report, name, f"server_{variable}")

    before = len(report.problems)
    entries = _addresses(at("entry_addresses"), given)
    exits = _addresses(at("exit_addresses"), given)
    if len(report.problems) == before:  # an unreadable address is not a missing one too
        _checks.families(report, name, entries, exits)
    slug = _slug(at("slug"), given.get("server_slug", name), "server_slug" not in given)
    label = given.get("server_label", slug or name)
    region = given.get("server_region", "")
    return {
        "id": _server_id(at("id"), given),
        "slug": slug,
        "label": _problems.text(at("label"), label, "Write the name that people read, or remove it."),
        "region": region if region == "" else _problems.text(at("region"), region, "Write a text, or remove it."),
        "entry4": next((address for address in entries if ":" not in address), None),
        "entry6": next((address for address in entries if ":" in address), None),
        "exit4": [address for address in exits if ":" not in address],
        "exit6": [address for address in exits if ":" in address],
        "nat_ports": list(_problems.ports(at("nat_ports"), given.get("server_nat_ports", NAT_PORTS)) or ()),
        "access": access,
        "keys": keys,
    }


def _server_id(place: Place, given: Mapping[str, object]) -> int | None:
    if "server_id" not in given:
        place.report.add(place.host, place.variable, None, "missing", f"Give {place.host} a number of its own.")
        return None
    return _problems.whole_number(place, given["server_id"], 1, _addressing.HIGHEST_SERVER_ID)


def _slug(place: Place, value: object, is_name: bool) -> str | None:
    remedy = f"Set server_slug to 1-{SLUG_BYTES} characters of a-z, 0-9 and -, with no - at either end."
    slug = _problems.text(place, value, remedy)
    if slug is None or (len(slug) <= SLUG_BYTES and SLUG.fullmatch(slug)):
        return slug
    what = f"longer than {SLUG_BYTES} bytes" if len(slug) > SLUG_BYTES else "not a DNS label"
    place.bad(slug, f"the inventory name, and {what}" if is_name else what, remedy)
    return None


def _addresses(place: Place, given: Mapping[str, object]) -> list[str]:
    """The addresses that can be read."""
    if given.get(place.variable) is None:
        place.report.add(place.host, place.variable, None, "missing", "Set it to a list of addresses.")
        return []
    remedy = 'Write a list, such as ["198.51.100.11", "2001:db8:100::11"].'
    listed = _problems.items(place, given[place.variable], remedy) or []
    return [address for value in listed if (address := _problems.address(place, value))]


def _enrolment(report: Report, servers: Mapping[str, Mapping[str, Any]], run: frozenset[str]) -> list[str]:
    """The servers of the run that need a key made; a problem for those out of its reach."""
    unenrolled = []
    for name, server in servers.items():
        missing = [purpose for purpose in purposes(server["access"]) if purpose not in server["keys"]]
        if missing and name in run:
            unenrolled.append(name)
        elif missing:
            problem = f"no recorded public key for {' and '.join(missing)}, and {name} is not in this run"
            remedy = "Run site.yml once without --limit: it makes the key there and records its public half."
            report.add(name, "warren_public_keys", None, problem, remedy)
    return unenrolled
