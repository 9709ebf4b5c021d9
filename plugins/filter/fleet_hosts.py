# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: fleet_hosts
short_description: The pattern of all hosts of the fleet, for the hosts of a play
version_added: 1.0.0
author:
  - The warren.vpn authors (@warren-vpn)
description:
  - Names the groups of the kinds of hosts that the collection knows, such as V(warren_servers), as far as they have
    hosts.
  - V(localhost) if none has any. Ansible calls a play without hosts a success; one on V(localhost) can say what is
    missing.
positional: more
options:
  _input:
    description: The variable V(groups).
    type: dict
    required: true
  more:
    description: Further groups whose hosts take part, if the fleet has any host.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Ask all hosts of the fleet
  hosts: "{{ groups | warren.vpn.fleet_hosts }}"
"""

RETURN = r"""
_value:
  description: The pattern.
  type: str
  sample: warren_servers
"""

from collections.abc import Collection, Mapping, Sequence

from ansible_collections.warren.vpn.plugins.plugin_utils import _kinds
from ansible_collections.warren.vpn.plugins.plugin_utils._fleet import filters


def fleet_hosts(groups: Mapping[str, Collection[str]], more: Sequence[str] = ()) -> str:
    """The pattern."""
    return _kinds.pattern_of(groups, more)


FilterModule = filters(fleet_hosts=fleet_hosts)
