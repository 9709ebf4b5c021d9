# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: link_interface
short_description: The name of the multihop link towards a server
version_added: 1.0.0
author:
  - The warren.vpn authors (@warren-vpn)
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

from ansible_collections.warren.vpn.plugins.plugin_utils._addressing import link_interface
from ansible_collections.warren.vpn.plugins.plugin_utils._fleet import filters

FilterModule = filters(link_interface=link_interface)
