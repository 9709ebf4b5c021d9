# Copyright (c) 2026 the warren.vpn authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter warren.vpn.link_mark."""

from __future__ import annotations

DOCUMENTATION = r"""
name: link_mark
short_description: The firewall mark of packets that leave from a server
version_added: 1.0.0
author: the warren.vpn authors
description:
  - A packet with this mark is routed into the link towards the server.
options:
  _input:
    description: The server_id.
    type: int
    required: true
"""

EXAMPLES = r"""
- name: Show the mark of packets for server 3
  ansible.builtin.debug:
    msg: "{{ '0x%x' | format(3 | warren.vpn.link_mark) }}"  # 0x70000003
"""

RETURN = r"""
_value:
  description: The mark.
  type: int
"""

from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.warren.vpn.plugins.plugin_utils import _addressing


def link_mark(server_id: int) -> int:
    """See DOCUMENTATION."""
    try:
        return _addressing.link_mark(server_id)
    except (TypeError, ValueError) as error:
        raise AnsibleFilterError(f"warren.vpn.link_mark: {error}") from error


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Any]:
        """The filter by its name."""
        return {"link_mark": link_mark}
