# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: access_link
short_description: Compute the link that clients connect to of a server
version_added: 1.0.0
author:
  - The warren.vpn authors (@warren-vpn)
description:
  - Computes the link that clients connect to of one server from the fleet, for the option
    O(warren.vpn.network#module:links) of M(warren.vpn.network).
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
- name: Show the link of this server
  ansible.builtin.debug:
    msg: "{{ warren_fleet | warren.vpn.access_link(inventory_hostname) }}"
"""

RETURN = r"""
_value:
  description: One element of O(warren.vpn.network#module:links), as JSON.
  type: str
"""

from ansible_collections.warren.vpn.plugins.plugin_utils._fleet import filters, link_of_server
from ansible_collections.warren.vpn.plugins.plugin_utils._links import access_link

FilterModule = filters(access_link=link_of_server(access_link))
