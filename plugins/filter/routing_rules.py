# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: routing_rules
short_description: Compute the routing rules of a role on a server
version_added: 1.0.0
author:
  - The warren.vpn authors (@warren-vpn)
description:
  - Computes from the fleet what routing lets pass of what comes in by the links of a role, for the option
    O(warren.vpn.network#module:parts[].rules) of M(warren.vpn.network).
positional: server, role
options:
  _input:
    description: The fleet, as JSON, that the role P(warren.vpn.validate_inventory#role) makes.
    type: str
    required: true
  server:
    description: Inventory name of the server.
    type: str
    required: true
  role:
    description: The role whose links it is about.
    type: str
    choices: [control_mesh, access, multihop]
    required: true
"""

EXAMPLES = r"""
- name: Show the routing rules of this server's mesh
  ansible.builtin.debug:
    msg: "{{ warren_fleet | warren.vpn.routing_rules(inventory_hostname, 'control_mesh') }}"
"""

RETURN = r"""
_value:
  description: Elements of O(warren.vpn.network#module:parts[].rules).
  type: list
  elements: dict
  sample: [{priority: 4004, iif: wg0ctl, action: unreachable}]
"""

from ansible_collections.warren.vpn.plugins.plugin_utils import _links
from ansible_collections.warren.vpn.plugins.plugin_utils._fleet import filters, of_server

FilterModule = filters(routing_rules=of_server(_links.routing_rules))
