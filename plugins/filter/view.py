# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: view
short_description: Take from the fleet what the templates of one system need
version_added: 1.0.0
author:
  - The warren.vpn authors (@warren-vpn)
description:
  - Returns what the templates of a system read of the fleet, and nothing else.
positional: server, system
options:
  _input:
    description: The fleet, as JSON, that the role P(warren.vpn.validate_inventory#role) makes.
    type: str
    required: true
  server:
    description: Inventory name of the server.
    type: str
    required: true
  system:
    description: A role; V(wireguard) is for the packets of WireGuard itself.
    type: str
    choices: [control_mesh, wireguard, packet_path, agent]
    required: true
"""

EXAMPLES = r"""
- name: Show what the templates of the packet path read
  ansible.builtin.debug:
    msg: "{{ warren_fleet | warren.vpn.view(inventory_hostname, 'packet_path') }}"
"""

RETURN = r"""
_value:
  description: Names of interfaces, marks, settings of the fleet and values of the server.
  type: dict
"""

from collections.abc import Mapping
from typing import Any

from ansible_collections.warren.vpn.plugins.plugin_utils._fleet import filters, of_server
from ansible_collections.warren.vpn.plugins.plugin_utils._views import VIEWS


def view(fleet: Mapping[str, Any], server: str, system: str) -> dict[str, Any]:
    """The view of a system."""
    if system not in VIEWS:
        raise ValueError(f"system = {system}: there are {', '.join(VIEWS)}")
    return VIEWS[system](fleet, server)


FilterModule = filters(view=of_server(view))
