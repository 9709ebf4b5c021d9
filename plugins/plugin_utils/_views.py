# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection.
"""What each system's templates read of the fleet, and nothing else: a view for each.

A view takes the fleet from ``_inventory.read`` and a server's inventory name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from . import _addressing, _services

Fleet = Mapping[str, Any]
View = dict[str, Any]


def control_mesh(fleet: Fleet, _server: str) -> View:
    """For the firewall of the mesh."""
    return {
        "control_interface": _addressing.CONTROL_INTERFACE,
        "groups": _groups("mesh"),
        **_some(fleet["settings"], "control_prefix", "control_prefix6", "backend_port"),
    }


def wireguard(fleet: Fleet, server: str) -> View:
    """For the rules about WireGuard's own packets."""
    return {
        "groups": _groups("ours", "mask"),
        "wireguard_ports": _services.ports(fleet, server),
        **_some(fleet["servers"][server], "entry4", "entry6"),
    }


def packet_path(fleet: Fleet, server: str) -> View:
    """For the table that packets of clients and sessions pass."""
    settings = fleet["settings"]
    return {
        "groups": _groups(*_addressing.LINK_GROUPS, "ours", "mask"),
        "kind_mask": _hex(_addressing.KIND_MASK),
        "tracked_mask": _hex(_addressing.TRACKED_MASK),
        "clients_mask": _hex(_addressing.CLIENTS_MASK),
        "packet_marks": {name: _hex(mark) for name, mark in _addressing.PACKET_MARKS.items()},
        "flow_marks": {name: _hex(mark) for name, mark in _addressing.FLOW_MARKS.items()},
        "exit_seed": _addressing.EXIT_SEED,
        "mss4": _addressing.segment_size(settings["mtu"], 4),
        "mss6": _addressing.segment_size(settings["mtu"], 6),
        "wireguard_ports": _services.ports(fleet, server),
        **_some(settings, "access_port", "forward_ports", "client_prefix", "client_prefix6"),
        **_some(settings, "portal_address", "portal_address6"),
        **_some(fleet["servers"][server], "access", "entry4", "entry6", "exit4", "exit6", "nat_ports"),
        **_some(fleet["servers"][server], "session4", "session6"),
    }


def agent(fleet: Fleet, server: str) -> View:
    """For the units of the agent; what the agent itself is told is in ``_agent.py``."""
    return {
        **_some(fleet["settings"], "backend_port", "portal_address", "portal_address6"),
        **_some(fleet["servers"][server], "access", "control4", "control6"),
    }


VIEWS: Mapping[str, Callable[[Fleet, str], View]] = {
    "control_mesh": control_mesh,
    "wireguard": wireguard,
    "packet_path": packet_path,
    "agent": agent,
}
"""By system."""


def _some(values: Mapping[str, Any], *names: str) -> View:
    return {name: values[name] for name in names}


def _groups(*names: str) -> dict[str, str]:
    known = {
        **_addressing.LINK_GROUPS,
        "ours": _addressing.LINK_GROUPS_OURS,
        "mask": _addressing.LINK_GROUPS_MASK,
    }
    return {name: _hex(known[name]) for name in names}


def _hex(number: int) -> str:
    """A number as people read it in rules."""
    return f"{number:#010x}"
