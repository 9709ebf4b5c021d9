# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: version
short_description: The version of this collection
version_added: 1.0.0
author:
  - The warren.vpn authors (@warren-vpn)
description:
  - Returns the version of the collection that the controller has.
"""

EXAMPLES = r"""
- name: Show the version
  ansible.builtin.debug:
    msg: "{{ lookup('warren.vpn.version') }}"
"""

RETURN = r"""
_raw:
  description: The version.
  type: list
  elements: str
  sample: [1.0.0]
"""

from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase

from ansible_collections.warren.vpn.plugins.plugin_utils import _version


class LookupModule(LookupBase):
    """See DOCUMENTATION."""

    def run(self, terms: list[str], variables: object = None, **kwargs: Any) -> list[str]:  # noqa: ARG002
        """The version alone."""
        try:
            return [_version.version()]
        except ValueError as error:
            raise AnsibleLookupError(str(error)) from error
