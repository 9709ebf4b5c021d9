# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: control_address
short_description: The address of a server in the control mesh
version_added: 1.0.0
author:
  - The warren.vpn authors (@warren-vpn)
description:
  - The network address plus the server_id, IPv4 or IPv6.
  - The first and the last address of the prefix belong to nobody.
positional: prefix
options:
  _input:
    description: The server_id.
    type: int
    required: true
  prefix:
    description: The network, IPv4 or IPv6.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Show the control address of server 3
  ansible.builtin.debug:
    msg: "{{ 3 | warren.vpn.control_address('10.77.0.0/24') }}"  # 10.77.0.3
"""

RETURN = r"""
_value:
  description: The address.
  type: str
"""

from ansible_collections.warren.vpn.plugins.plugin_utils._addressing import host_address
from ansible_collections.warren.vpn.plugins.plugin_utils._fleet import filters


def control_address(server_id: int, prefix: str) -> str:
    """The number leads, as the value that is filtered."""
    return host_address(prefix, server_id)


FilterModule = filters(control_address=control_address)
