# Copyright (c) 2026 the warren.vpn authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter warren.vpn.client_address."""

from __future__ import annotations

DOCUMENTATION = r"""
name: client_address
short_description: The tunnel address of a client
version_added: 1.0.0
author: the warren.vpn authors
description:
  - A hash of the client's name, so other clients do not change it.
  - A client whose entry in V(warren_clients) has an address keeps that one; this filter does not know it.
positional: prefix
options:
  _input:
    description: The name of the client.
    type: str
    required: true
  prefix:
    description: The network, IPv4 or IPv6.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Show the address of alice
  ansible.builtin.debug:
    msg: "{{ 'alice' | warren.vpn.client_address('10.96.0.0/11') }}"  # 10.99.162.68
"""

RETURN = r"""
_value:
  description: The address.
  type: str
"""

from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.warren.vpn.plugins.plugin_utils import _addressing


def client_address(name: str, prefix: str) -> str:
    """See DOCUMENTATION."""
    try:
        return _addressing.client_address(prefix, name)
    except (TypeError, ValueError) as error:
        raise AnsibleFilterError(f"warren.vpn.client_address: {error}") from error


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Any]:
        """The filter by its name."""
        return {"client_address": client_address}
