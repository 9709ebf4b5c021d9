# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: remotes
short_description: List the servers that a server's clients can leave from
version_added: 1.0.0
author:
  - The warren.vpn authors (@warren-vpn)
description:
  - Lists the other servers of the fleet with the names, marks and ports that the multihop links to them have on one
    server, for templates.
  - A server without clients has no such links.
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
- name: Show the links towards other servers
  ansible.builtin.debug:
    msg: "{{ warren_fleet | warren.vpn.remotes(inventory_hostname) }}"
"""

RETURN = r"""
_value:
  description: One dictionary for each of the other servers.
  type: list
  elements: dict
  sample: [{name: nyc, interface: wg0mh-r3, mark: 1879048195, port: 21003}]
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.warren.vpn.plugins.module_utils._links import remotes
from ansible_collections.warren.vpn.plugins.plugin_utils._fleet import of_server


class FilterModule:
    """The filter of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Map the filter's name to its function."""
        return {"remotes": of_server(remotes)}
