# Copyright (c) 2026 the warren.vpn authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter warren.vpn.session_prefix."""

from __future__ import annotations

DOCUMENTATION = r"""
name: session_prefix
short_description: The session addresses that a server gives out
version_added: 1.0.0
author: the warren.vpn authors
description:
  - The pool is cut in parts of one length, and the server_id counts them from 0.
positional: pool, prefix_length
options:
  _input:
    description: The server_id.
    type: int
    required: true
  pool:
    description: The network to cut, IPv4 or IPv6.
    type: str
    required: true
  prefix_length:
    description: The length of each part.
    type: int
    required: true
"""

EXAMPLES = r"""
- name: Show the session prefix of server 7
  ansible.builtin.debug:
    msg: "{{ 7 | warren.vpn.session_prefix('10.1.0.0/16', 24) }}"  # 10.1.7.0/24
"""

RETURN = r"""
_value:
  description: The network.
  type: str
"""

from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.warren.vpn.plugins.plugin_utils import _addressing


def session_prefix(server_id: int, pool: str, prefix_length: int) -> str:
    """See DOCUMENTATION."""
    try:
        return _addressing.session_prefix(pool, prefix_length, server_id)
    except (TypeError, ValueError) as error:
        raise AnsibleFilterError(f"warren.vpn.session_prefix: {error}") from error


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Any]:
        """The filter by its name."""
        return {"session_prefix": session_prefix}
