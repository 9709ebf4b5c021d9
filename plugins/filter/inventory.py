# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: inventory
short_description: Read and check the inventory of a fleet
version_added: 1.0.0
author:
  - The warren.vpn authors (@warren-vpn)
description:
  - Reads the variables of every host of the fleet, computes nothing that a host would have to be asked for, and reports
    all that is wrong at once.
  - Contacts no host. The role P(warren.vpn.validate_inventory#role) is what a playbook uses.
positional: groups, run
options:
  _input:
    description: The variable V(hostvars).
    type: dict
    required: true
  groups:
    description: The variable V(groups). The members of the groups of every kind of host are read.
    type: dict
    required: true
  run:
    description: The hosts of this run, V(ansible_play_hosts_all).
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Show what is wrong with the inventory
  ansible.builtin.debug:
    msg: "{{ (hostvars | warren.vpn.inventory(groups, ansible_play_hosts_all)).problems }}"
"""

RETURN = r"""
_value:
  description: The reading.
  type: dict
  contains:
    fleet:
      description:
        - The fleet as JSON text; a structure of this size is costly to hand from play to play. V({}) with problems.
        - It holds the fleet's secret.
      type: str
    problems:
      description: What is wrong, one sentence or two each, with host, variable, value and remedy.
      type: list
      elements: str
    warnings:
      description: What can stay as it is.
      type: list
      elements: str
    unenrolled:
      description: Hosts of the run that need a key made and recorded first.
      type: list
      elements: str
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.warren.vpn.plugins.plugin_utils import _hostvars, _inventory, _kinds, _options
from ansible_collections.warren.vpn.plugins.plugin_utils._fleet import filters


def inventory(hostvars: Any, groups: Mapping[str, Sequence[str]], run: Sequence[str]) -> dict[str, Any]:
    """What the inventory says, with the fleet as JSON."""
    roles = _options.role_options()
    members = _kinds.plain_groups(groups)
    wanted = _inventory.variables() | _inventory.HANDED_ON.union(*roles.values())
    hosts = _hostvars.host_variables(hostvars, _kinds.hosts_of(members), wanted)
    reading = _inventory.read(hosts, members, [str(name) for name in run], roles)
    reading.problems += _options.check(hosts, roles)
    return {
        "fleet": json.dumps(reading.fleet),
        "problems": [str(problem) for problem in reading.problems],
        "warnings": reading.warnings,
        "unenrolled": reading.unenrolled,
    }


FilterModule = filters(inventory=inventory)
