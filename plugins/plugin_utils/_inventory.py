# Copyright (c) 2026 the warren.vpn authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads the whole inventory once, into a plain dict called the fleet, and reports all that is wrong with it.

Private to the collection. This file reads what the whole fleet shares; each kind of host reads and compares its own
(``_kinds.py``); ``_clients.py`` does both for clients; ``_problems.py`` says what a problem is. Nothing here contacts a
host or reads a file.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import _clients, _names, _problems
from ._kinds import KINDS, Groups, Kind, groups_of, hosts_of, purposes_of
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

SECRET_LENGTH = 32

FLEET_VARIABLES = frozenset(("warren_fleet_secret", "warren_public_keys", "warren_clients", "warren_client_keys"))
"""What the whole fleet shares, besides the settings."""

HANDED_ON = frozenset(("warren_enrolled", "warren_client_keys_made"))
"""Facts of a host, made earlier in this run."""

NOT_READ_HERE = frozenset(f"warren_{name}" for name in ("fleet", "unenrolled", "serial", "records_dir"))
"""Known, but nothing to read: facts that a host has once the inventory was read, and options of playbooks."""

Hosts = Mapping[str, Mapping[str, object]]


@dataclass
class Reading:
    """The result. ``fleet`` is empty when there are problems; ``unenrolled`` are hosts of the run without a key."""

    fleet: dict[str, Any] = field(default_factory=dict)
    problems: list[_problems.Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    unenrolled: list[str] = field(default_factory=list)


def variables(kinds: Sequence[Kind] = KINDS) -> frozenset[str]:
    """The variables that an inventory gives a value."""
    return FLEET_VARIABLES.union((f"warren_{name}" for name in _all_settings(kinds)), *(k.variables for k in kinds))


def read(
    hosts: Hosts,
    groups: Groups,
    run: Collection[str],
    options: Mapping[str, Collection[str]] | None = None,
    kinds: Sequence[Kind] = KINDS,
) -> Reading:
    """Read and check a fleet.

    ``hosts`` maps a host's name to the variables that its inventory gives it, ``groups`` a group to its members,
    ``run`` are the hosts of this run. ``options`` maps a role's name to the names of its options: a misspelt one is
    reported. ``kinds`` is what a host can be.
    """
    report = Report()
    members = hosts_of(groups, kinds)
    sets = {group: frozenset(names) for group, names in groups.items()}
    groups_by_host = {name: groups_of(sets, name, kinds) for name in members}
    _groups(report, groups, members, kinds)
    if not members:
        return Reading({}, report.problems)
    fleet_wide = _fleet_variables(report, hosts, members, kinds)
    settings = _settings(report, fleet_wide, kinds)
    secret = _secret(report, fleet_wide, any(kind.needs_secret for kind in kinds if groups.get(kind.group)))
    keys = _keys(report, hosts, fleet_wide, members, kinds)

    def host(kind: Kind, name: str) -> dict[str, Any]:
        return {**kind.read(report, name, hosts.get(name, {}), groups_by_host[name]), "keys": keys[name]}

    found = {kind.members: {name: host(kind, name) for name in groups.get(kind.group, ())} for kind in kinds}
    servers = found["servers"]
    made = next(
        (given["warren_client_keys_made"] for given in hosts.values() if "warren_client_keys_made" in given), {}
    )
    clients = _clients.read(report, fleet_wide, settings, servers, made)

    _unknown_variables(report, hosts, members, variables(kinds), options or {})
    for kind in kinds:
        if found[kind.members]:
            kind.check(report, settings, found[kind.members])
    _clients.check(report, settings, servers, clients)
    _clients.check_keys(report, keys, clients)
    unenrolled = _enrolment(report, groups_by_host, keys, frozenset(run), kinds)

    if report.problems:
        return Reading({}, report.problems, report.warnings, unenrolled)
    for kind in kinds:
        for name, read_host in found[kind.members].items():
            read_host.update(name=name, **kind.complete(settings, read_host))
    fleet = {"settings": settings, "secret": secret, **found, "clients": clients}
    return Reading(fleet, report.problems, report.warnings, unenrolled)


def _groups(report: Report, groups: Groups, members: Sequence[str], kinds: Sequence[Kind]) -> None:
    """The fleet has hosts, and those of a group within a kind are of that kind."""
    if not members:
        names, called = (
            " or ".join(each) for each in zip(*((kind.group, kind.members) for kind in kinds), strict=True)
        )
        problem = "the group is empty" if len(kinds) == 1 else "no host is in any of these groups"
        report.add(FLEET, names, None, problem, f"Put the {called} of the fleet in it.")
        return
    for kind in kinds:
        of_kind = frozenset(groups.get(kind.group, ()))
        for group in kind.subgroups:
            for name in groups.get(group, ()):
                if name not in of_kind:
                    problem = f"a member of this group, but not of {kind.group}"
                    report.add(
                        name, group, None, problem, f"Put {name} in {kind.group} too, or take it out of {group}."
                    )


def _unknown_variables(
    report: Report,
    hosts: Hosts,
    members: Sequence[str],
    known: frozenset[str],
    options: Mapping[str, Collection[str]],
) -> None:
    """No name that is ours is one that nobody reads, and none is nearly ours. One on many hosts is reported once."""
    wanted = known.union(*options.values())
    names = _names.Names(wanted)
    ours = wanted | HANDED_ON | NOT_READ_HERE | {f"{role}_part" for role in options}
    remedies: dict[str, str] = dict.fromkeys(ours, "")
    found: dict[str, list[str]] = {}
    for host in members:
        for name in hosts.get(host, {}):
            if name not in remedies:
                remedies[name] = _remedy(name, wanted, names)
            if remedies[name]:
                found.setdefault(name, []).append(host)
    for name, where in found.items():
        host = FLEET if len(where) == len(members) > 1 else where[0]
        more = "" if host == FLEET or len(where) == 1 else f" (also on {_problems.some(where[1:])})"
        report.add(host, name, None, f"unknown variable{more}", remedies[name])


def _remedy(name: str, wanted: Collection[str], names: _names.Names) -> str:
    """What to do about a variable that nobody of ours reads; empty for one of somebody else's."""
    if name.startswith("warren_"):
        return _problems.did_you_mean(name, wanted)
    meant = names.meant(name)
    return f"Did you mean {meant}?" if meant else ""


def _all_settings(kinds: Sequence[Kind]) -> dict[str, tuple[str, object]]:
    return {**SETTINGS, **{name: setting for kind in kinds for name, setting in kind.settings.items()}}


def _fleet_variables(report: Report, hosts: Hosts, members: Sequence[str], kinds: Sequence[Kind]) -> dict[str, object]:
    """The warren_* variables, which must be the same for every host."""
    first = hosts.get(members[0], {})
    names = sorted(FLEET_VARIABLES.union(f"warren_{name}" for name in _all_settings(kinds)))
    for name in names:
        expected = first.get(name)
        for host in members:
            value = hosts.get(host, {}).get(name)
            if value is not expected and value != expected:
                shown = None if name == "warren_fleet_secret" else value
                remedy = "It belongs to the whole fleet: set it once, in group_vars/all."
                report.add(host, name, shown, f"not the same as for {members[0]}", remedy)
    return {name: first[name] for name in names if name in first}


def _settings(report: Report, given: Mapping[str, object], kinds: Sequence[Kind]) -> dict[str, Any]:
    """Every setting, normalised; None where the given value is wrong, so that checks of it are left out."""
    return {
        name: _setting(Place(report, FLEET, f"warren_{name}"), kind, given.get(f"warren_{name}", default), default)
        for name, (kind, default) in _all_settings(kinds).items()
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


def _secret(report: Report, given: Mapping[str, object], needed: bool) -> str:
    """The fleet's secret, empty if there is none and none is needed. No message shows it."""
    value = given.get("warren_fleet_secret")
    if value is None and not needed:
        return ""
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


def _keys(
    report: Report, hosts: Hosts, fleet_wide: Mapping[str, object], members: Sequence[str], kinds: Sequence[Kind]
) -> dict[str, dict[str, str]]:
    """The public keys of each host: those on record, and those made in this very run."""
    recorded = _recorded_keys(report, fleet_wide, members, kinds)
    keys: dict[str, dict[str, str]] = {}
    for name in members:
        made = hosts.get(name, {}).get("warren_enrolled")
        fresh = {str(purpose): str(key) for purpose, key in made.items()} if isinstance(made, Mapping) else {}
        keys[name] = {**recorded.get(name, {}), **fresh}
    return keys


def _recorded_keys(
    report: Report, given: Mapping[str, object], members: Sequence[str], kinds: Sequence[Kind]
) -> dict[str, dict[str, str]]:
    """``warren_public_keys``, without hosts that no longer exist."""
    place = Place(report, FLEET, "warren_public_keys")
    recorded = _problems.mapping(place, given.get(place.variable))
    known = frozenset(members)
    gone = [host for host in recorded if host not in known]
    if gone:
        groups = " or ".join(kind.group for kind in kinds)
        report.warnings.append(
            f"{place.variable} has keys of {_problems.some(gone)}, not in group {groups}. Remove the entry."
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


def _enrolment(
    report: Report,
    groups_by_host: Mapping[str, Collection[str]],
    keys: Mapping[str, Mapping[str, str]],
    run: frozenset[str],
    kinds: Sequence[Kind],
) -> list[str]:
    """The hosts of the run that need a key made; a problem for those out of its reach."""
    unenrolled = []
    for name, groups in groups_by_host.items():
        missing = [purpose for purpose in purposes_of(groups, kinds) if purpose not in keys[name]]
        if missing and name in run:
            unenrolled.append(name)
        elif missing:
            problem = f"no recorded public key for {' and '.join(missing)}, and {name} is not in this run"
            remedy = "Run site.yml once without --limit: it makes the key there and records its public half."
            report.add(name, "warren_public_keys", None, problem, remedy)
    return unenrolled
