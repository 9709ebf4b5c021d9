#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: wireguard_keys
short_description: Make a server's WireGuard private keys on it, and return their public keys
version_added: 1.0.0
author:
  - The warren.vpn authors (@warren-vpn)
description:
  - Makes a private key for each purpose that has none yet, in C(/etc/warren/keys/PURPOSE.key), mode 0600. It never
    leaves the host.
  - A rotation makes the next key beside the one in force, and the module M(warren.vpn.network) takes it once its public
    key is the one on record. A rotation that was begun and not finished goes on with the key it made.
attributes:
  check_mode:
    support: full
    description: Makes no key. A key that would be made has an empty public key.
  diff_mode:
    support: none
    description: There is nothing to show but secrets.
  idempotent:
    support: full
    description: A key that is there is not made again.
options:
  purposes:
    description: What the keys are for, V(control_mesh), V(multihop) and V(access).
    type: list
    elements: str
    required: true
  rotate:
    description: Make, and return the public keys of, the next keys instead of those in force.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Make the keys of a new server
  warren.vpn.wireguard_keys:
    purposes: [control_mesh, multihop, access]
"""

RETURN = r"""
public_keys:
  description: The public keys by purpose.
  returned: always
  type: dict
  sample: {control_mesh: 6uVDFz8bdfIYJzWWP6o4HtXuxFNqTBtTPYWxCzFSbRk=}
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.warren.vpn.plugins.module_utils import _host, _keys


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "purposes": {"type": "list", "elements": "str", "required": True},
            "rotate": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    path_of = _keys.next_key_path if module.params["rotate"] else _keys.key_path
    public_keys = {}
    changed = False
    try:
        for purpose in module.params["purposes"]:
            path = path_of(purpose)
            public_keys[purpose] = _keys.public_key_of(path)
            if not public_keys[purpose]:
                changed = True
                public_keys[purpose] = "" if module.check_mode else _keys.make_key(path)
    except _host.NetworkError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=changed, public_keys=public_keys)


if __name__ == "__main__":
    main()
