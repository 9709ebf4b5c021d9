#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: render
short_description: Write what servers would be given to files of the controller
version_added: 1.0.0
author:
  - The warren.vpn authors (@warren-vpn)
description:
  - Writes, for each host, the files that M(warren.vpn.network) would write on it, as C(PATH/HOST/etc/...). No host is
    contacted. The playbook C(warren.vpn.render) uses it.
  - B(The files C(network.json) hold pre-shared keys). They have the mode 0600, as on a server. Nothing of them is
    shown.
  - A number that a server makes for itself stands as C(@secret:NAME@). The private keys are not in these files.
attributes:
  check_mode:
    support: full
    description: Renders everything, for the errors it may have, and writes nothing.
  diff_mode:
    support: none
    description: The files hold secrets.
  idempotent:
    support: none
    description: A directory that has something in it is refused, so that nothing of an earlier fleet is left in it.
options:
  path:
    description: A directory, new or empty.
    type: path
    required: true
  hosts:
    description: Inventory names of the hosts.
    type: list
    elements: str
    required: true
  variable:
    description: The variable that holds the options of M(warren.vpn.network). It is rendered for each host.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Write what each server would be given
  warren.vpn.render:
    path: /tmp/render
    hosts: "{{ ansible_play_hosts_all }}"
    variable: __server_network
  run_once: true
"""

RETURN = r"""
path:
  description: The directory.
  returned: always
  type: str
hosts:
  description: How many hosts there is a directory for.
  returned: always
  type: int
  sample: 250
"""
