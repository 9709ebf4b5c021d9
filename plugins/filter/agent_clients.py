# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: agent_clients
short_description: Write the clients' file of a server's agent
version_added: 1.0.0
author:
  - The warren.vpn authors (@warren-vpn)
description:
  - Writes from the fleet which clients may connect to one server. The agent reads it again without a restart. No
    secret is in it.
seealso:
  - plugin: warren.vpn.agent_config
    plugin_type: filter
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
- name: Show which clients this server's agent knows
  ansible.builtin.debug:
    msg: "{{ warren_fleet | warren.vpn.agent_clients(inventory_hostname) }}"
"""

RETURN = r"""
_value:
  description: The text of the file.
  type: str
"""

from collections.abc import Mapping
from typing import Any

from ansible_collections.warren.vpn.plugins.plugin_utils._agent import clients, config_text
from ansible_collections.warren.vpn.plugins.plugin_utils._fleet import filters, of_server


def agent_clients(fleet: Mapping[str, Any], server: str) -> str:
    """The file's text."""
    return config_text(clients(fleet, server))


FilterModule = filters(agent_clients=of_server(agent_clients))
