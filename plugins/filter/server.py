# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: server
short_description: Take one server out of the fleet
version_added: 1.0.0
author:
  - The warren.vpn authors (@warren-vpn)
description:
  - Returns what the fleet says of one server, together with the settings of the whole fleet, for templates.
positional: server
options:
  _input:
    description: The fleet, as JSON, that the role P(warren.vpn.validate_inventory#role) makes.
    type: str
    required: true
  server:
    description: Inventory name of the server.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Show where this server's traffic leaves from
  ansible.builtin.debug:
    msg: "{{ (warren_fleet | warren.vpn.server(inventory_hostname)).exit4 }}"
"""

RETURN = r"""
_value:
  description: The names of interfaces, the settings of the fleet and the values of the server, in one dictionary.
  type: dict
"""

from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.warren.vpn.plugins.plugin_utils._addressing import (
    ACCESS_INTERFACE,
    CONTROL_INTERFACE,
    FLOW_MARKS,
    LINK_GROUPS,
    LINK_GROUPS_MASK,
    LINK_GROUPS_OURS,
    MULTIHOP_INTERFACE,
    PACKET_MARKS,
    segment_size,
)
from ansible_collections.warren.vpn.plugins.plugin_utils._fleet import of_server
from ansible_collections.warren.vpn.plugins.plugin_utils._links import listen_ports


def view(fleet: dict[str, Any], server: str) -> dict[str, Any]:
    """The settings and the server's own values together; their names do not meet."""
    names: dict[str, Any] = {
        "control_interface": CONTROL_INTERFACE,
        "access_interface": ACCESS_INTERFACE,
        "multihop_interface": MULTIHOP_INTERFACE,
        "groups": _hex({**LINK_GROUPS, "ours": LINK_GROUPS_OURS, "mask": LINK_GROUPS_MASK}),
        "packet_marks": _hex(PACKET_MARKS),
        "flow_marks": _hex(FLOW_MARKS),
    }
    names["mss4"], names["mss6"] = (segment_size(fleet["settings"]["mtu"], version) for version in (4, 6))
    names["wireguard_ports"] = listen_ports(fleet, server)
    return {**names, **fleet["settings"], **fleet["servers"][server]}


def _hex(numbers: Mapping[str, int]) -> dict[str, str]:
    """Numbers as people read them in rules."""
    return {name: f"{number:#010x}" for name, number in numbers.items()}


class FilterModule:
    """The filter of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Map the filter's name to its function."""
        return {"server": of_server(view)}
