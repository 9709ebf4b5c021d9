# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: host_roles
short_description: The roles that declare what a host of the fleet gets
version_added: 1.0.0
author:
  - The warren.vpn authors (@warren-vpn)
description:
  - Lists the roles of the collection that declare a host's parts, in their order.
  - With O(tasks), those of them that have such tasks.
positional: host, tasks
options:
  _input:
    description: The variable V(groups).
    type: dict
    required: true
  host:
    description: Inventory name of the host.
    type: str
    required: true
  tasks:
    description: Name of a tasks file, without its ending.
    type: str
"""

EXAMPLES = r"""
- name: Prove what each role of this host promises
  ansible.builtin.include_role:
    name: "warren.vpn.{{ item }}"
    tasks_from: verify
  loop: "{{ groups | warren.vpn.host_roles(inventory_hostname, tasks='verify') }}"
"""

RETURN = r"""
_value:
  description: The roles' names, without the collection's.
  type: list
  elements: str
  sample: [control_mesh, access, multihop, packet_path, agent]
"""

from collections.abc import Collection, Mapping

from ansible_collections.warren.vpn.plugins.plugin_utils import _kinds
from ansible_collections.warren.vpn.plugins.plugin_utils._fleet import filters
from ansible_collections.warren.vpn.plugins.plugin_utils._options import ROLES


def host_roles(groups: Mapping[str, Collection[str]], host: str, tasks: str | None = None) -> list[str]:
    """The roles of the groups of a host."""
    roles = _kinds.roles_of(_kinds.groups_of(groups, host))
    return [role for role in roles if tasks is None or (ROLES / role / f"tasks/{tasks}.yml").is_file()]


FilterModule = filters(host_roles=host_roles)
