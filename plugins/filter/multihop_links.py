# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: multihop_links
short_description: Compute the multihop links of a server
version_added: 1.0.0
author:
  - The warren.vpn authors (@warren-vpn)
description:
  - Computes from the fleet the link on which one server, as an exit, receives from all entries, and, if it has clients,
    its links towards all exits, for the option O(warren.vpn.network#module:links) of M(warren.vpn.network).
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
- name: Show the links of this server
  ansible.builtin.debug:
    msg: "{{ warren_fleet | warren.vpn.multihop_links(inventory_hostname) }}"
"""

RETURN = r"""
_value:
  description: Elements of O(warren.vpn.network#module:links), as JSON each.
  type: list
  elements: str
"""

import json
from collections.abc import Mapping
from typing import Any

from ansible_collections.warren.vpn.plugins.plugin_utils import _links
from ansible_collections.warren.vpn.plugins.plugin_utils._fleet import filters, of_server


def multihop_links(fleet: Mapping[str, Any], server: str) -> list[str]:
    """Each link as JSON."""
    return [json.dumps(link) for link in _links.multihop_links(fleet, server)]


FilterModule = filters(multihop_links=of_server(multihop_links))
