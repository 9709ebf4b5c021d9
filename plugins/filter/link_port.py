# Copyright (c) 2026 the warren.vpn authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter warren.vpn.link_port."""

from __future__ import annotations

DOCUMENTATION = r"""
name: link_port
short_description: The UDP port of the multihop link towards a server
version_added: 1.0.0
author: the warren.vpn authors
description:
  - The base plus the server_id.
positional: base
options:
  _input:
    description: The server_id.
    type: int
    required: true
  base:
    description: The variable V(warren_link_port_base).
    type: int
    required: true
"""

EXAMPLES = r"""
- name: Show the port of the link towards server 3
  ansible.builtin.debug:
    msg: "{{ 3 | warren.vpn.link_port(21000) }}"  # 21003
"""

RETURN = r"""
_value:
  description: The port.
  type: int
"""

from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.warren.vpn.plugins.plugin_utils import _addressing


def link_port(server_id: int, base: int) -> int:
    """See DOCUMENTATION."""
    try:
        return _addressing.link_port(base, server_id)
    except (TypeError, ValueError) as error:
        raise AnsibleFilterError(f"warren.vpn.link_port: {error}") from error


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Any]:
        """The filter by its name."""
        return {"link_port": link_port}
