# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: client_tunnels
short_description: Compute what stands in the files of all clients
version_added: 1.0.0
author:
  - The warren.vpn authors (@warren-vpn)
description:
  - Computes from the fleet what M(warren.vpn.client_files) needs to write the clients' files. It holds no secret.
options:
  _input:
    description: The fleet, as JSON, that the role P(warren.vpn.validate_inventory#role) makes.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Show the tunnel addresses of all clients
  ansible.builtin.debug:
    msg: "{{ (warren_fleet | warren.vpn.client_tunnels).clients | map(attribute='addresses') }}"
"""

RETURN = r"""
_value:
  description: The value for O(warren.vpn.client_files#module:tunnels).
  type: dict
"""

import json
from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.warren.vpn.plugins.plugin_utils._client_files import tunnels


def client_tunnels(fleet: str) -> dict[str, Any]:
    """See DOCUMENTATION."""
    try:
        return tunnels(json.loads(fleet))
    except (KeyError, TypeError, ValueError) as error:
        raise AnsibleFilterError(f"not a fleet as validate_inventory makes it: {error!r}") from error


class FilterModule:
    """The filter of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Map the filter's name to its function."""
        return {"client_tunnels": client_tunnels}
