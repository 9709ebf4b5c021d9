# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection.
"""What a host of the inventory can be. All that differs from kind to kind follows from this table."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import _server_checks, _servers
from ._problems import Report

NO_HOST = "localhost"
"""The pattern for a play when no group of the fleet has a host: a play without hosts would be a success."""


def _nothing_follows(_settings: Mapping[str, Any], _host: Mapping[str, Any]) -> dict[str, Any]:
    return {}


def _nothing_to_compare(_report: Report, _settings: Mapping[str, Any], _hosts: Mapping[str, Any]) -> None:
    pass


@dataclass(frozen=True)
class Kind:
    """A kind of host. A host may be of several: it has the variables, keys and roles of all of them."""

    name: str
    """What one host is called."""
    group: str
    """Its members are the hosts of this kind. ``warren_relays`` are ``relays`` in the fleet."""
    variables: frozenset[str]
    """The variables of a host that ``read`` takes."""
    read: Callable[[Report, str, Mapping[str, object], Collection[str]], dict[str, Any]]
    """Turns one host's variables into plain values: called with a report for what is wrong, the host's inventory name,
    its variables and its groups. A value that is wrong is reported, and None."""
    roles: Mapping[str, str]
    """The roles that declare what a host gets, in order, each with the group whose members have it."""
    purposes: Mapping[str, str] = field(default_factory=dict)
    """What a host's WireGuard keys are for, each with the group whose members need it. The first is the one that is
    rotated when nothing else is said."""
    settings: Mapping[str, tuple[str, object]] = field(default_factory=dict)
    """Settings of the fleet that only this kind needs: like ``SETTINGS`` of ``_inventory.py``."""
    needs_secret: bool = False
    """Whether something of it derives from ``warren_fleet_secret``."""
    complete: Callable[[Mapping[str, Any], Mapping[str, Any]], dict[str, Any]] = _nothing_follows
    """What follows from the settings and from what ``read`` returned, when the inventory has no problem."""
    check: Callable[[Report, Mapping[str, Any], Mapping[str, Any]], None] = _nothing_to_compare
    """Compares the settings and all hosts of the kind with each other. A value that is None is left out."""

    @property
    def members(self) -> str:
        """What its hosts are called, and the key under which the fleet has them."""
        return self.group.removeprefix("warren_")

    @property
    def subgroups(self) -> list[str]:
        """The groups whose members have to be members of the kind's own group."""
        return [each for each in dict.fromkeys((*self.roles.values(), *self.purposes.values())) if each != self.group]


KINDS = (
    Kind(
        name="server",
        group="warren_servers",
        variables=_servers.VARIABLES,
        read=_servers.read,
        complete=_servers.complete,
        check=_server_checks.check,
        needs_secret=True,
        purposes={
            "control_mesh": "warren_servers",
            "multihop": "warren_servers",
            "access": _servers.ACCESS_GROUP,
        },
        roles={
            "control_mesh": "warren_servers",
            "access": _servers.ACCESS_GROUP,
            "multihop": "warren_servers",
            "packet_path": "warren_servers",
            "agent": "warren_servers",
        },
    ),
)

Groups = Mapping[str, Collection[str]]
"""The members of groups by name, as in Ansible's variable ``groups``."""


def groups_of(groups: Groups, host: str, kinds: Sequence[Kind] = KINDS) -> list[str]:
    """The groups of the table that a host is in."""
    return [group for group in _named(kinds) if host in groups.get(group, ())]


def _named(kinds: Sequence[Kind]) -> list[str]:
    return list(dict.fromkeys(group for kind in kinds for group in (kind.group, *kind.subgroups)))


def roles_of(group_names: Collection[str], kinds: Sequence[Kind] = KINDS) -> list[str]:
    """The roles that declare what a host of these groups gets, in order, each once."""
    return _asked_for([kind.roles for kind in kinds if kind.group in group_names], group_names)


def purposes_of(group_names: Collection[str], kinds: Sequence[Kind] = KINDS) -> list[str]:
    """What a host of these groups needs keys for, in order, each once."""
    return _asked_for([kind.purposes for kind in kinds if kind.group in group_names], group_names)


def _asked_for(tables: Sequence[Mapping[str, str]], group_names: Collection[str]) -> list[str]:
    return list(dict.fromkeys(name for table in tables for name, group in table.items() if group in group_names))


def plain_groups(groups: Groups, kinds: Sequence[Kind] = KINDS) -> dict[str, list[str]]:
    """The groups of the table, with their members as plain text."""
    return {group: [str(host) for host in groups[group]] for group in _named(kinds) if group in groups}


def hosts_of(groups: Groups, kinds: Sequence[Kind] = KINDS) -> list[str]:
    """The hosts of the fleet, of whatever kind, each once."""
    return list(dict.fromkeys(str(host) for kind in kinds for host in groups.get(kind.group, ())))


def pattern_of(groups: Groups, more: Sequence[str] = (), kinds: Sequence[Kind] = KINDS) -> str:
    """A pattern for ``hosts:`` of a play: the fleet's hosts and those of ``more`` groups that are there.

    It is ``localhost`` when the fleet has no host, so that the play can say so.
    """
    fleet = [kind.group for kind in kinds if groups.get(kind.group)]
    return ":".join([*fleet, *(group for group in more if groups.get(group))]) if fleet else NO_HOST
