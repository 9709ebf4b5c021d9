#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: network_info
short_description: Say how a server's WireGuard links are
version_added: 1.0.0
author:
  - The warren.vpn authors (@warren-vpn)
description:
  - Reads which links the last run of M(warren.vpn.network) wanted and how they are now.
attributes:
  check_mode:
    support: full
    description: Changes nothing.
  diff_mode:
    support: none
    description: Changes nothing.
  idempotent:
    support: full
    description: Changes nothing.
"""

EXAMPLES = r"""
- name: See how the links are
  warren.vpn.network_info:
  register: network
"""

RETURN = r"""
version:
  description: The version of the collection that was deployed last, empty if none was.
  returned: always
  type: str
  sample: 1.0.0
links:
  description: The links by name.
  returned: always
  type: dict
  contains:
    up:
      description: Whether the interface is there and up.
      type: bool
    peers:
      description: How many peers it is to have.
      type: int
    alive:
      description: How many of them have a session, that is, a handshake in the last 180 seconds.
      type: int
    silent:
      description: The names of the others.
      type: list
      elements: str
    oldest_handshake:
      description: Seconds since the handshake that is longest ago, of the peers with a session. Null if there are none.
      type: int
  sample: {wg0ctl: {up: true, peers: 3, alive: 3, silent: [], oldest_handshake: 87}}
"""

import time

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.warren.vpn.plugins.module_utils import _host, _interfaces, _link, _network, _record


def describe(wanted: _link.Link, live: _link.Link | None) -> dict:
    """What there is to say of one link."""
    here = live.peers if live else {}
    alive = {key: here[key] for key in wanted.peers if key in here and here[key].alive}
    oldest = min((peer.handshake for peer in alive.values()), default=None)
    return {
        "up": bool(live and live.up),
        "peers": len(wanted.peers),
        "alive": len(alive),
        "silent": sorted(peer.name for key, peer in wanted.peers.items() if key not in alive),
        "oldest_handshake": None if oldest is None else int(time.time()) - oldest,
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    try:
        last = _record.read()
        wanted = last.links if last else {}
        live = _network.live_links(_interfaces.routes_by_interface()) if wanted else {}
    except _host.NetworkError as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=False,
        version=last.version if last else "",
        links={name: describe(link, live.get(name)) for name, link in wanted.items()},
    )


if __name__ == "__main__":
    main()
