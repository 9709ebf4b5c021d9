# Copyright (c) 2026 the warren.vpn authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter warren.vpn.access_address."""

from __future__ import annotations

DOCUMENTATION = r"""
name: access_address
short_description: The address of every server on its access interface
version_added: 1.0.0
author: the warren.vpn authors
description:
  - The first address of the client prefix, the same on every server.
options:
  _input:
    description: The network of the clients, IPv4 or IPv6.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Show the servers' address on the tunnel
  ansible.builtin.debug:
    msg: "{{ '10.96.0.0/11' | warren.vpn.access_address }}"  # 10.96.0.1
"""

RETURN = r"""
_value:
  description: The address.
  type: str
"""

from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.warren.vpn.plugins.plugin_utils import _addressing


def access_address(prefix: str) -> str:
    """See DOCUMENTATION."""
    try:
        return _addressing.access_address(prefix)
    except (TypeError, ValueError) as error:
        raise AnsibleFilterError(f"warren.vpn.access_address: {error}") from error


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Any]:
        """The filter by its name."""
        return {"access_address": access_address}
