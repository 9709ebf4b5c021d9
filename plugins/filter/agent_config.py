# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: agent_config
short_description: Write the configuration of a server's agent
version_added: 1.0.0
author:
  - The warren.vpn authors (@warren-vpn)
description:
  - Writes from the fleet what the agent of one server has to know, but for the clients. No secret is in it.
seealso:
  - plugin: warren.vpn.agent_clients
    plugin_type: filter
positional: server, lease_seconds, idle_seconds, portal_names
options:
  _input:
    description: The fleet, as JSON, that the role P(warren.vpn.validate_inventory#role) makes.
    type: str
    required: true
  server:
    description: Inventory name of the server.
    type: str
    required: true
  lease_seconds:
    description: How long the server, as an exit, keeps a session whose entry is silent.
    type: int
    required: true
  idle_seconds:
    description: How long the server, as an entry, keeps a session whose client is silent.
    type: int
    required: true
  portal_names:
    description: Names, besides its addresses, by which clients open the portal.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Show what this server's agent is told
  ansible.builtin.debug:
    msg: "{{ warren_fleet | warren.vpn.agent_config(inventory_hostname, 60, 1200) }}"
"""

RETURN = r"""
_value:
  description: The text of the agent's configuration file.
  type: str
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.warren.vpn.plugins.plugin_utils._agent import config, config_text
from ansible_collections.warren.vpn.plugins.plugin_utils._fleet import filters, of_server


def agent_config(
    fleet: Mapping[str, Any], server: str, lease_seconds: int, idle_seconds: int, portal_names: Sequence[str] = ()
) -> str:
    """The file's text."""
    return config_text(config(fleet, server, int(lease_seconds), int(idle_seconds), portal_names))


FilterModule = filters(agent_config=of_server(agent_config))
