# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: client_tunnels
short_description: Compute what stands in the files of all clients
version_added: 1.0.0
author:
  - The warren.vpn authors (@warren-vpn)
description:
  - Computes from the fleet what M(warren.vpn.client_files) needs to write the clients' files. It holds no secret.
options:
  _input:
    description: The fleet, as JSON, that the role P(warren.vpn.validate_inventory#role) makes.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Show the tunnel addresses of all clients
  ansible.builtin.debug:
    msg: "{{ (warren_fleet | warren.vpn.client_tunnels).clients | map(attribute='addresses') }}"
"""

RETURN = r"""
_value:
  description: The value for O(warren.vpn.client_files#module:tunnels).
  type: dict
"""

from typing import Any

from ansible_collections.warren.vpn.plugins.plugin_utils._client_files import tunnels
from ansible_collections.warren.vpn.plugins.plugin_utils._fleet import filters, load


def client_tunnels(fleet: str) -> dict[str, Any]:
    """What stands in the files of all clients."""
    return tunnels(load(fleet))


FilterModule = filters(client_tunnels=client_tunnels)
