#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: record
short_description: Note values in a variables file beside the inventory
version_added: 1.0.0
author:
  - The warren.vpn authors (@warren-vpn)
description:
  - Merges values into one variable of a YAML file that the collection writes and people may read, such as the public
    keys of servers. It runs where the inventory is, on the controller, whatever the host.
attributes:
  check_mode:
    support: full
    description: Writes nothing.
  diff_mode:
    support: full
    description: Shows the file before and after.
  idempotent:
    support: full
    description: The same values give the same file.
options:
  path:
    description:
      - The file, in a C(group_vars) directory.
      - An error if C(all.yml) stands beside its directory C(all), for Ansible would then ignore the former.
    type: path
    required: true
  variable:
    description: The variable in it.
    type: str
    required: true
  values:
    description: What to merge into the variable. Dictionaries in it are merged one level down as well.
    type: dict
    required: true
  prune:
    description: Keys that go.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Note a public key
  warren.vpn.record:
    path: "{{ inventory_dir }}/group_vars/all/warren_public_keys.yml"
    variable: warren_public_keys
    values:
      ams:
        control_mesh: 6uVDFz8bdfIYJzWWP6o4HtXuxFNqTBtTPYWxCzFSbRk=
  run_once: true
"""

RETURN = r"""
path:
  description: The file.
  returned: always
  type: str
"""
