# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: agent_view
short_description: Take from the fleet what the units of a server's agent need
version_added: 1.0.0
author:
  - The warren.vpn authors (@warren-vpn)
description:
  - Returns what the templates of the role P(warren.vpn.agent#role) read of the fleet, and nothing else.
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
- name: Show what the templates read
  ansible.builtin.debug:
    msg: "{{ warren_fleet | warren.vpn.agent_view(inventory_hostname) }}"
"""

RETURN = r"""
_value:
  description: Names of interfaces, marks, settings of the fleet and values of the server.
  type: dict
"""

from ansible_collections.warren.vpn.plugins.plugin_utils import _views
from ansible_collections.warren.vpn.plugins.plugin_utils._fleet import filters, of_server

FilterModule = filters(agent_view=of_server(_views.agent))
