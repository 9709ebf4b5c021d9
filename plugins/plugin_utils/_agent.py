# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# PRIVATE to the collection.
"""What the agent of a server is told, computed from the fleet that ``_inventory.read`` makes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from . import _addressing, _links, _services

# What agents take from each other: LEASES in exits.py of the agent.
LEASES = range(5, 3601)
HOST_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*", re.IGNORECASE)


def config(
    fleet: Mapping[str, Any], name: str, lease_seconds: int, idle_seconds: int, portal_names: Sequence[str] = ()
) -> dict[str, Any]:
    """The agent's configuration, but for the clients; it holds no secret.

    Args:
        fleet: from ``_inventory.read``.
        name: the server's inventory name.
        lease_seconds: how long this server, as an exit, keeps a session whose entry is silent.
        idle_seconds: how long this server, as an entry, keeps a session whose client is silent.
        portal_names: names, besides its addresses, by which clients open the portal.

    Raises:
        ValueError: what is given as a name is none, or a lease is not one that other servers take.
    """
    for each in portal_names:
        if not HOST_NAME.fullmatch(each):
            raise ValueError(f"agent_portal_names: {each!r} is no host name. Write names such as portal.example.net.")
    if lease_seconds not in LEASES:
        raise ValueError(
            f"agent_lease_seconds: {lease_seconds} is not from {LEASES[0]} to {LEASES[-1]}: other servers "
            "would not believe it. Leave it out for 60."
        )
    here = fleet["servers"][name]
    marks = {remote["name"]: remote["mark"] for remote in _links.remotes(fleet, name)}
    settings = fleet["settings"]
    low, high = settings["forward_ports"]
    return {
        "server": {
            "name": here["name"],
            "slug": here["slug"],
            "label": here["label"],
            "control4": here["control4"],
            "session4": here["session4"],
            "session6": here["session6"],
            "entry4": here["entry4"],
            "entry6": here["entry6"],
            "exit4": here["exit4"],
            "exit6": here["exit6"],
        },
        "clients_connect": here["access"],
        "portal": [settings["portal_address"], settings["portal_address6"]],
        "portal_names": [each.lower() for each in portal_names],
        "forward_ports": [low, high],
        "reserved_ports": [port for port in _services.ports(fleet, name) if low <= port <= high],
        "control_interface": _addressing.CONTROL_INTERFACE,
        "access_interfaces": [_addressing.ACCESS_INTERFACE],
        "multihop_interface": _addressing.MULTIHOP_INTERFACE,
        "backend_port": settings["backend_port"],
        "block_mark": _addressing.BLOCK_MARK,
        "hold_mark": _addressing.HOLD_MARK,
        "lease_seconds": lease_seconds,
        "idle_seconds": idle_seconds,
        "servers": [
            {
                "name": other["name"],
                "slug": other["slug"],
                "label": other["label"],
                "region": other["region"],
                "control4": other["control4"],
                "control6": other["control6"],
                "session4": other["session4"],
                "session6": other["session6"],
                "mark": marks.get(other["name"]),
                "interface": _addressing.link_interface(other["id"]),
                "public_key": other["keys"].get("multihop"),
                "exit4": other["exit4"],
                "exit6": other["exit6"],
            }
            for other in fleet["servers"].values()
            if other["name"] != name
        ],
    }


def clients(fleet: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What the agent is told of the clients, apart from the rest: a client comes or goes without a restart.

    Args:
        fleet: from ``_inventory.read``.
        name: the server's inventory name.
    """
    here = fleet["servers"][name]
    return {
        # While one of a client's ends, the next begins; and a fleet that is being tried out has few clients.
        "most_sessions": max(64, 2 * len(fleet["clients"])),
        "clients": [
            {
                "name": client["name"],
                "public_key": client["public_key"],
                "address4": client["address4"],
                "address6": client["address6"],
            }
            for client in (fleet["clients"] if here["access"] else [])
            if client["public_key"]
        ],
    }


def config_text(data: Mapping[str, Any]) -> str:
    """The text of one of the agent's files, a line for each server or client, so that a diff shows which differ."""
    encode = json.JSONEncoder(sort_keys=True).encode

    def value(item: object) -> str:
        if not isinstance(item, list):
            return encode(item)
        return "[\n" + ",\n".join(f"  {encode(each)}" for each in item) + "\n ]"

    return "{\n" + ",\n".join(f' "{key}": {value(item)}' for key, item in data.items()) + "\n}\n"
