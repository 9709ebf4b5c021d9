# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: parts
short_description: Get what roles of this collection declare for the host
version_added: 1.0.0
author:
  - The warren.vpn authors (@warren-vpn)
description:
  - Returns the parts that roles declare, for the option O(warren.vpn.network#module:parts) of M(warren.vpn.network).
    Each has its role as owner. The play need not have the roles.
options:
  _terms:
    description: Roles, by their short names.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Show the kernel settings of a role
  ansible.builtin.debug:
    msg: "{{ lookup('warren.vpn.parts', 'packet_path').sysctl }}"
"""

RETURN = r"""
_raw:
  description: The parts, in the order of the terms.
  type: list
  elements: dict
"""

from typing import Any

from ansible.plugins.lookup import LookupBase

from ansible_collections.warren.vpn.plugins.plugin_utils._parts import part_of


class LookupModule(LookupBase):
    """See DOCUMENTATION."""

    def run(self, terms: list[str], variables: Any = None, **_options: Any) -> list[Any]:
        """Read the part of each role."""
        return [part_of(str(term), variables or {}, self._loader, self._templar) for term in terms]
