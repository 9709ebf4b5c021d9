# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: neighbours
short_description: Give each server others to look at from outside
version_added: 1.0.0
author:
  - The warren.vpn authors (@warren-vpn)
description:
  - Arranges the servers in a ring by their numbers and returns, for one of them, the entry and control addresses of
    the next, for the option O(warren.vpn.outside_probe#module:targets) of M(warren.vpn.outside_probe). So every server
    is looked at by one other.
  - A host that is not a server looks at all of them.
positional: host
options:
  _input:
    description: The fleet, as JSON, that the role P(warren.vpn.validate_inventory#role) makes.
    type: str
    required: true
  host:
    description: Inventory name of the host that looks.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Try to reach a neighbour's control address past the mesh
  warren.vpn.outside_probe:
    targets: "{{ warren_fleet | warren.vpn.neighbours(inventory_hostname) }}"
"""

RETURN = r"""
_value:
  description: Public and internal addresses by the name that a message uses.
  type: dict
  sample: {fra v4: {public: 198.51.100.12, internal: 10.77.0.2}}
"""

from ansible_collections.warren.vpn.plugins.plugin_utils._fleet import filters, load


def neighbours(fleet: str, host: str) -> dict[str, dict[str, str]]:
    """The addresses to try."""
    ring = sorted(load(fleet)["servers"].values(), key=lambda server: server["id"])
    place = next((number for number, server in enumerate(ring) if server["name"] == host), None)
    seen = ring if place is None else [ring[(place + 1) % len(ring)]][: len(ring) - 1]
    return {
        f"{server['name']} v{family}": {"public": server[f"entry{family}"], "internal": server[f"control{family}"]}
        for server in seen
        for family in "46"
        if server[f"entry{family}"]
    }


FilterModule = filters(neighbours=neighbours)
