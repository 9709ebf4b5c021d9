# Copyright (c) 2026 the warren.vpn authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter warren.vpn.link_interface."""

from __future__ import annotations

DOCUMENTATION = r"""
name: link_interface
short_description: The name of the multihop link towards a server
version_added: 1.0.0
author: the warren.vpn authors
description:
  - C(wg0mh-r<id>), at most 15 bytes.
options:
  _input:
    description: The server_id.
    type: int
    required: true
"""

EXAMPLES = r"""
- name: Show the interface towards server 3
  ansible.builtin.debug:
    msg: "{{ 3 | warren.vpn.link_interface }}"  # wg0mh-r3
"""

RETURN = r"""
_value:
  description: The interface name.
  type: str
"""

from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.warren.vpn.plugins.plugin_utils import _addressing


def link_interface(server_id: int) -> str:
    """See DOCUMENTATION."""
    try:
        return _addressing.link_interface(server_id)
    except (TypeError, ValueError) as error:
        raise AnsibleFilterError(f"warren.vpn.link_interface: {error}") from error


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Any]:
        """The filter by its name."""
        return {"link_interface": link_interface}
