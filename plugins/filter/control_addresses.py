# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: control_addresses
short_description: List the control mesh addresses of servers, to ping them
version_added: 1.0.0
author:
  - The warren.vpn authors (@warren-vpn)
description:
  - Lists the IPv4 and IPv6 addresses that servers have on the control mesh, for the option
    O(warren.vpn.mesh_ping#module:addresses) of M(warren.vpn.mesh_ping).
positional: servers
options:
  _input:
    description: The fleet, as JSON, that the role P(warren.vpn.validate_inventory#role) makes.
    type: str
    required: true
  servers:
    description: Inventory names of the servers. A name that is not in the fleet is left out.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Ping two servers over the mesh
  warren.vpn.mesh_ping:
    addresses: "{{ warren_fleet | warren.vpn.control_addresses(['fra', 'nyc']) }}"
"""

RETURN = r"""
_value:
  description: Addresses by what a message calls them, the server's name and the family.
  type: dict
  sample: {fra v4: 10.77.0.2, fra v6: "fd57:6172:7265:1::2"}
"""

from collections.abc import Sequence

from ansible_collections.warren.vpn.plugins.plugin_utils._fleet import filters, load


def control_addresses(fleet: str, servers: Sequence[str]) -> dict[str, str]:
    """The addresses by the server's name and the family."""
    known = load(fleet)["servers"]
    return {
        f"{name} v{family}": known[name][f"control{family}"] for name in servers if name in known for family in "46"
    }


FilterModule = filters(control_addresses=control_addresses)
