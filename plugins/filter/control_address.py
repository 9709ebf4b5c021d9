# Copyright (c) 2026 the warren.vpn authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter warren.vpn.control_address."""

from __future__ import annotations

DOCUMENTATION = r"""
name: control_address
short_description: The address of a server in the control mesh
version_added: 1.0.0
author: the warren.vpn authors
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

from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.warren.vpn.plugins.plugin_utils import _addressing


def control_address(server_id: int, prefix: str) -> str:
    """See DOCUMENTATION."""
    try:
        return _addressing.host_address(prefix, server_id)
    except (TypeError, ValueError) as error:
        raise AnsibleFilterError(f"warren.vpn.control_address: {error}") from error


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Any]:
        """The filter by its name."""
        return {"control_address": control_address}
