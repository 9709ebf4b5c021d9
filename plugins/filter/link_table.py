# Copyright (c) 2026 the warren.vpn authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter warren.vpn.link_table."""

from __future__ import annotations

DOCUMENTATION = r"""
name: link_table
short_description: The routing table of the multihop link towards a server
version_added: 1.0.0
author: the warren.vpn authors
description:
  - Its default route leads into the link.
options:
  _input:
    description: The server_id.
    type: int
    required: true
"""

EXAMPLES = r"""
- name: Show the table of the link towards server 3
  ansible.builtin.debug:
    msg: "{{ 3 | warren.vpn.link_table }}"  # 100003
"""

RETURN = r"""
_value:
  description: The number of the table.
  type: int
"""

from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.warren.vpn.plugins.plugin_utils import _addressing


def link_table(server_id: int) -> int:
    """See DOCUMENTATION."""
    try:
        return _addressing.link_table(server_id)
    except (TypeError, ValueError) as error:
        raise AnsibleFilterError(f"warren.vpn.link_table: {error}") from error


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Any]:
        """The filter by its name."""
        return {"link_table": link_table}
