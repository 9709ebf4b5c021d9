# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection.
"""On which ports services of a server answer: the one place that says so, for rules, checks and the agent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from . import _addressing, _links


class Service(NamedTuple):
    """One that answers on a UDP port of the entry address."""

    port: int
    block: str
    """The setting with the ports that are kept for it and its like, so that nothing else is given one of them."""


def services(settings: Mapping[str, Any], access: bool, remotes: Iterable[int] = ()) -> Iterator[Service]:
    """The services of a server.

    Args:
        settings: of the fleet. The service of a port that is None is left out.
        access: whether clients connect to the server.
        remotes: the ids of the servers that it has links towards.
    """
    named = {"control_port": "fleet_ports", "multihop_port": "fleet_ports"}
    if access:
        named["access_port"] = "access_port"
    for name, block in named.items():
        if settings[name]:
            yield Service(settings[name], block)
    for remote in remotes:
        yield Service(_addressing.link_port(settings["link_port_base"], remote), "fleet_ports")


def ports(fleet: Mapping[str, Any], name: str) -> list[int]:
    """The ports on which services of a server answer.

    Args:
        fleet: from ``_inventory.read``.
        name: the server's inventory name.
    """
    remotes = [remote["id"] for remote in _links.remotes(fleet, name)]
    return [service.port for service in services(fleet["settings"], fleet["servers"][name]["access"], remotes)]
