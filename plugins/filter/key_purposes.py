# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: key_purposes
short_description: What a host's WireGuard keys are for
version_added: 1.0.0
author:
  - The warren.vpn authors (@warren-vpn)
description:
  - Lists what a host of the fleet needs keys for, in the order in which they are reported.
  - Without a host, what any host of the fleet needs keys for.
positional: host
options:
  _input:
    description: The variable V(groups).
    type: dict
    required: true
  host:
    description: Inventory name of the host.
    type: str
"""

EXAMPLES = r"""
- name: Make the keys of a host
  warren.vpn.wireguard_keys:
    purposes: "{{ groups | warren.vpn.key_purposes(inventory_hostname) }}"
"""

RETURN = r"""
_value:
  description: The purposes.
  type: list
  elements: str
  sample: [control_mesh, multihop, access]
"""

from collections.abc import Collection, Mapping

from ansible_collections.warren.vpn.plugins.plugin_utils import _kinds
from ansible_collections.warren.vpn.plugins.plugin_utils._fleet import filters


def key_purposes(groups: Mapping[str, Collection[str]], host: str | None = None) -> list[str]:
    """The purposes of the groups of one host, or of all groups that have one."""
    return _kinds.purposes_of(
        [group for group in groups if groups[group]] if host is None else _kinds.groups_of(groups, host)
    )


FilterModule = filters(key_purposes=key_purposes)
