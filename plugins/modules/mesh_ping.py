#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: mesh_ping
short_description: Ping many addresses from a host at once
version_added: 1.0.0
author:
  - The warren.vpn authors (@warren-vpn)
description:
  - Sends an ICMP echo request to every address, again every half second to those that have not answered, until all
    have or the time is up.
  - Fails, naming them, if any stay silent.
attributes:
  check_mode:
    support: full
    description: Pings all the same, for it changes nothing.
  diff_mode:
    support: none
    description: Nothing changes.
  idempotent:
    support: full
    description: Nothing changes.
options:
  addresses:
    description: Addresses by the name that a message uses for them.
    type: dict
    required: true
  timeout:
    description: Seconds after which an address counts as silent.
    type: float
    default: 10
"""

EXAMPLES = r"""
- name: Make sure that every server is there on the mesh
  warren.vpn.mesh_ping:
    addresses:
      fra: 10.77.0.2
      fra (v6): fd57:6172:7265:1::2
"""

RETURN = r"""
round_trip_ms:
  description: Milliseconds from the last request to its answer, by name.
  returned: always
  type: dict
  sample: {fra: 0.8}
silent:
  description: The names that did not answer.
  returned: always
  type: list
  elements: str
  sample: []
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.warren.vpn.plugins.module_utils._ping import Pinger


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={"addresses": {"type": "dict", "required": True}, "timeout": {"type": "float", "default": 10}},
        supports_check_mode=True,
    )
    pinger = Pinger({str(name): str(address) for name, address in module.params["addresses"].items()})
    pinger.run(module.params["timeout"])
    result = {"changed": False, "round_trip_ms": pinger.round_trip_ms, "silent": sorted(pinger.waiting.values())}
    if result["silent"]:
        module.fail_json(msg=f"no answer from {', '.join(result['silent'])}", **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
