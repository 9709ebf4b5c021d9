#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: print
short_description: Print text as it is
version_added: 1.0.0
author:
  - The warren.vpn authors (@warren-vpn)
description:
  - Prints text without quoting it, a table for people or a line of JSON for a program.
  - Runs on the controller.
attributes:
  check_mode:
    support: full
    description: Prints all the same.
  diff_mode:
    support: none
    description: Nothing changes.
  idempotent:
    support: full
    description: Nothing changes.
options:
  text:
    description: What to print.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Print a table
  warren.vpn.print:
    text: |
      server  mesh
      ams     3/3
"""

RETURN = r"""# """
