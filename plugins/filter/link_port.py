# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: link_port
short_description: The UDP port of the multihop link towards a server
version_added: 1.0.0
author:
  - The warren.vpn authors (@warren-vpn)
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

from ansible_collections.warren.vpn.plugins.plugin_utils._addressing import link_port as port
from ansible_collections.warren.vpn.plugins.plugin_utils._fleet import filters


def link_port(server_id: int, base: int) -> int:
    """The number leads, as the value that is filtered."""
    return port(base, server_id)


FilterModule = filters(link_port=link_port)
