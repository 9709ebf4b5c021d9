#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: network
short_description: Put all of a server's WireGuard links, nftables tables and kernel settings in place
version_added: 1.0.0
author:
  - The warren.vpn authors (@warren-vpn)
description:
  - Compares everything that the collection looks after in a server's network with what is B(live), and changes what
    differs, in one call. The firewall is in force before the first link is up.
  - A link or a table that an earlier call placed and that is not named any more is removed. What the module did not make
    is never touched.
  - A peer that needs no change keeps its session. An interface is never restarted.
  - Installs what restores all of it at boot, C(warren-network.service), and writes what it wants to C(/etc/warren) before it
    changes anything, so that a run that failed half way is finished by the next one.
  - Uses the kernel's WireGuard, or wireguard-go under systemd where the kernel has none.
  - The role P(warren.vpn.server#role) calls it; playbooks rarely do.
attributes:
  check_mode:
    support: full
    description: Says what would change, from the live state, and changes nothing.
  diff_mode:
    support: full
    description: Shows what differs. Private keys, pre-shared keys and host secrets are never shown.
  idempotent:
    support: full
    description: A second call changes nothing unless the host changed in between.
extends_documentation_fragment: []
options:
  version:
    description: The collection's version, noted on the host.
    type: str
    required: true
  files:
    description: World-readable files to write, such as systemd units.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Absolute path.
        type: path
        required: true
      content:
        description: The whole text.
        type: str
        required: true
  enable:
    description: Systemd units that start at boot.
    type: list
    elements: str
    default: []
  sysctl:
    description: Kernel settings, by name. They are set now and at boot.
    type: dict
    default: {}
  tables:
    description:
      - nftables tables of the family C(inet), loaded in this order, each in one transaction.
      - A set or map declared without elements belongs to a running program. Its elements survive.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: The table's name.
        type: str
        required: true
      content:
        description:
          - The table in nftables' language, C(table inet NAME { ... }).
          - C(@secret:NAME@) stands for a number that the host makes for itself once and never tells.
        type: str
        required: true
  links:
    description: WireGuard interfaces.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Interface name, at most 15 bytes.
        type: str
        required: true
      purpose:
        description: Which of the host's private keys it has, C(/etc/warren/keys/PURPOSE.key).
        type: str
        required: true
      public_key:
        description: The public key on record for that private key. Another private key on the host is an error.
        type: str
        required: true
      listen_port:
        description: UDP port.
        type: int
        required: true
      mtu:
        description: In bytes.
        type: int
        required: true
      addresses:
        description: Addresses of the interface, with their prefix length.
        type: list
        elements: str
        required: true
      routes:
        description: Routes into the interface, besides those that its addresses bring.
        type: list
        elements: dict
        default: []
        suboptions:
          destination:
            description: A network.
            type: str
            required: true
          table:
            description: Routing table.
            type: str
            default: main
      peers:
        description: WireGuard peers. One that is not named here is removed.
        type: list
        elements: dict
        default: []
        suboptions:
          name:
            description: Who it is, for people.
            type: str
            default: ''
          public_key:
            description: Base64.
            type: str
            required: true
          preshared_key:
            description: Base64.
            type: str
          endpoint:
            description: C(address:port) or C([address]:port). None where the peer comes to us.
            type: str
          allowed_ips:
            description: Networks the peer may send from and is sent to.
            type: list
            elements: str
            required: true
          keepalive:
            description: Seconds between keepalives, 0 for none.
            type: int
            default: 0
  wireguard:
    description: Which WireGuard to use. V(auto) takes the kernel's where it has one.
    type: str
    choices: [auto, kernel, userspace]
    default: auto
"""

EXAMPLES = r"""
- name: Place one link
  warren.vpn.network:
    version: 1.0.0
    links:
      - name: wg0ctl
        purpose: control_mesh
        public_key: 6uVDFz8bdfIYJzWWP6o4HtXuxFNqTBtTPYWxCzFSbRk=
        listen_port: 20000
        mtu: 1420
        addresses: [10.77.0.1/24]
        peers:
          - name: fra
            public_key: E0gQ1eCjVTz3vW6G9VCvmhdbVTWZGgrwTMNmVqGLSB0=
            endpoint: 198.51.100.12:20000
            allowed_ips: [10.77.0.2/32]
            keepalive: 25
"""

RETURN = r"""
actions:
  description: What was done, or would be in check mode.
  returned: always
  type: list
  elements: str
  sample: [set kernel settings, load nftables table warren_control_mesh, make link wg0ctl]
missing_packages:
  description: Debian packages that have to be installed first. Nothing was done if there are any.
  returned: always
  type: list
  elements: str
  sample: [wireguard-tools]
was_alive:
  description: By link, the names of the peers that had a session when the call began.
  returned: always
  type: dict
  sample: {wg0ctl: [fra, nyc]}
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.warren.vpn.plugins.module_utils import _host, _install, _network

PEER = {
    "name": {"type": "str", "default": ""},
    "public_key": {"type": "str", "required": True, "no_log": False},
    "preshared_key": {"type": "str", "no_log": True},
    "endpoint": {"type": "str"},
    "allowed_ips": {"type": "list", "elements": "str", "required": True},
    "keepalive": {"type": "int", "default": 0},
}
LINK = {
    "name": {"type": "str", "required": True},
    "purpose": {"type": "str", "required": True},
    "public_key": {"type": "str", "required": True, "no_log": False},
    "listen_port": {"type": "int", "required": True},
    "mtu": {"type": "int", "required": True},
    "addresses": {"type": "list", "elements": "str", "required": True},
    "routes": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {"destination": {"type": "str", "required": True}, "table": {"type": "str", "default": "main"}},
    },
    "peers": {"type": "list", "elements": "dict", "default": [], "options": PEER},
}
ARGUMENTS = {
    "version": {"type": "str", "required": True},
    "files": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {"path": {"type": "path", "required": True}, "content": {"type": "str", "required": True}},
    },
    "enable": {"type": "list", "elements": "str", "default": []},
    "sysctl": {"type": "dict", "default": {}},
    "tables": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {"name": {"type": "str", "required": True}, "content": {"type": "str", "required": True}},
    },
    "links": {"type": "list", "elements": "dict", "default": [], "options": LINK},
    "wireguard": {"type": "str", "choices": ["auto", "kernel", "userspace"], "default": "auto"},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    wanted = {name: module.params[name] for name in ("version", "sysctl", "tables", "links")}
    wanted["userspace"] = {"auto": None, "kernel": False, "userspace": True}[module.params["wireguard"]]
    apply = not module.check_mode
    report = _network.Report()
    try:
        missing = _network.missing_packages(wanted)
        if not missing:
            _install.install(module.params["files"], module.params["enable"], report, apply)
            _network.converge(wanted, apply, report)
    except _host.NetworkError as error:
        module.fail_json(msg=str(error), actions=report.actions)
    module.exit_json(
        changed=bool(report.actions),
        actions=report.actions,
        missing_packages=missing,
        was_alive=report.was_alive,
        diff={
            "before": "".join(f"{line}\n" for line in report.before),
            "after": "".join(f"{line}\n" for line in report.after),
        },
    )


if __name__ == "__main__":
    main()
