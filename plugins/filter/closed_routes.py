# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: closed_routes
short_description: Compute the routes that stand for a fleet's links while they are away
version_added: 1.0.0
author:
  - The warren.vpn authors (@warren-vpn)
description:
  - Computes from the fleet the routes that lead nowhere, for the option O(warren.vpn.network#module:parts[].routes) of
    M(warren.vpn.network). What is meant for a link of the fleet never takes the default route.
options:
  _input:
    description: The fleet, as JSON, that the role P(warren.vpn.validate_inventory#role) makes.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Show the routes
  ansible.builtin.debug:
    msg: "{{ warren_fleet | warren.vpn.closed_routes }}"
"""

RETURN = r"""
_value:
  description: Elements of O(warren.vpn.network#module:parts[].routes).
  type: list
  elements: dict
  sample: [{destination: 10.96.0.0/11, type: blackhole, metric: 4294967295}]
"""

from typing import Any

from ansible_collections.warren.vpn.plugins.plugin_utils import _links
from ansible_collections.warren.vpn.plugins.plugin_utils._fleet import filters, load


def closed_routes(fleet: str) -> list[dict[str, Any]]:
    """See DOCUMENTATION."""
    return _links.closed_routes(load(fleet))


FilterModule = filters(closed_routes=closed_routes)
