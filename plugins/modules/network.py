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
  - A link or a table that an earlier call placed and that is not named any more is removed. What the module did not
    make is never touched.
  - A peer that needs no change keeps its session. An interface is never restarted.
  - Installs what restores all of it at boot, C(warren-network.service), and writes what it wants to C(/etc/warren)
    before it changes anything, so that a run that failed half way is finished by the next one.
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
  parts:
    description: What to place, in this order. Together they are all of it.
    type: list
    elements: dict
    default: []
    suboptions:
      packages:
        description: Debian packages that have to be installed first, see RV(missing_packages).
        type: list
        elements: str
        default: []
      files:
        description: Files to write, such as systemd units. A diff shows them, so nothing in them may be secret.
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
          mode:
            description: Permissions, as an octal number.
            type: str
            default: "644"
          group:
            description: The file's group. One that is missing is expected from a file in C(/etc/sysusers.d) before it.
            type: str
            default: root
      services:
        description: Systemd units that start at boot.
        type: list
        elements: dict
        default: []
        suboptions:
          name:
            description: The unit, with its suffix.
            type: str
            required: true
          running:
            description:
              - Whether it is to run now too. It is started once all else is in place, and restarted when a file of the
                same part is newer than the start.
            type: bool
            default: true
          reload:
            description: Files of the same part; a change of only these reloads the service instead of restarting it.
            type: list
            elements: path
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
        description:
          - WireGuard interfaces, each a map, or its JSON. A link has a peer for every server and every client. As
            text it is only handed on; as a structure Ansible would walk through it in every task.
          - C(name), at most 15 bytes, C(listen_port), a UDP port, C(mtu) in bytes and C(addresses), with their prefix
            length.
          - C(purpose) says which of the host's private keys it has, C(/etc/warren/keys/PURPOSE.key), and
            C(public_key) is the public key on record for it. Another private key on the host is an error.
          - C(routes) into the interface, besides those that its addresses bring, each with C(destination), a network,
            and C(table), V(main) by default.
          - C(mark), a number from 0x70000001 to 0x7ffffffd. Packets with this mark take the routes of the link's table,
            or none. What comes in is let through the reverse path filter.
          - C(gated), whether what comes in is forwarded only if a firewall rule has given it a mark with the bit
            0x40000000.
          - C(group), the number of a device group, by which firewall rules know what kind of link it is.
          - C(peers), each with C(public_key), C(allowed_ips), the networks it may send from and is sent to, and as
            needed C(name) for people, C(preshared_key), C(endpoint) as C(address:port) or C([address]:port), none
            where the peer comes to us, and C(keepalive) in seconds. A peer that is not named is removed.
        type: list
        elements: json
        default: []
  health_seconds:
    description:
      - How long servers that answered a ping through their link before a change may take to answer after it. One that
        does not answer fails the call.
      - V(0) for no such check.
    type: int
    default: 30
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
    parts:
      - links:
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
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.warren.vpn.plugins.module_utils import _health, _host, _install, _network

FILE = {
    "path": {"type": "path", "required": True},
    "content": {"type": "str", "required": True},
    "mode": {"type": "str", "default": "644"},
    "group": {"type": "str", "default": "root"},
}
SERVICE = {
    "name": {"type": "str", "required": True},
    "running": {"type": "bool", "default": True},
    "reload": {"type": "list", "elements": "path", "default": []},
}
PART = {
    "packages": {"type": "list", "elements": "str", "default": []},
    "files": {"type": "list", "elements": "dict", "default": [], "options": FILE},
    "services": {"type": "list", "elements": "dict", "default": [], "options": SERVICE},
    "sysctl": {"type": "dict", "default": {}},
    "tables": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {"name": {"type": "str", "required": True}, "content": {"type": "str", "required": True}},
    },
    "links": {"type": "list", "elements": "json", "default": [], "no_log": True},
}
ARGUMENTS = {
    "version": {"type": "str", "required": True},
    "parts": {"type": "list", "elements": "dict", "default": [], "options": PART},
    "health_seconds": {"type": "int", "default": 30},
    "wireguard": {"type": "str", "choices": ["auto", "kernel", "userspace"], "default": "auto"},
}


class Module(AnsibleModule):
    """A module whose arguments do not go to the target's journal: they hold clients' addresses, and whole programs."""

    def _log_invocation(self) -> None:
        self.log("placing what the inventory has for this server")


def place(module: AnsibleModule, wanted: _network.Network, apply: bool) -> _network.Report:
    """Compare, and apply if asked to."""
    report = _network.Report()
    _install.install(module.params["parts"], report, apply)
    _network.converge(wanted, apply, report)
    _install.run_services(module.params["parts"], report, apply)
    return report


def main() -> None:
    """Run the module."""
    module = Module(argument_spec=ARGUMENTS, supports_check_mode=True)
    report = _network.Report()
    lost: list[str] = []
    try:
        wanted = _network.network_from(_network.wanted_from(module.params))
        missing = _network.missing_commands(wanted) + _host.not_installed(wanted.packages)
        if not missing:
            report = place(module, wanted, apply=False)
        if not missing and not module.check_mode:
            expected = _health.lost_before()
            if report.actions:
                expected |= _health.answering(report.alive)
                report = place(module, wanted, apply=True)
            if expected:
                lost = _health.lost(expected, wanted, module.params["health_seconds"])
    except _host.NetworkError as error:
        module.fail_json(msg=str(error), actions=report.actions)
    result = {
        "changed": bool(report.actions or missing),
        "actions": report.actions,
        "missing_packages": missing,
        "diff": {
            "before": "".join(f"{line}\n" for line in report.before),
            "after": "".join(f"{line}\n" for line in report.after),
        },
    }
    if lost:
        module.fail_json(
            msg=f"answered on the mesh before a change to this server and does not any more: {', '.join(lost)}. "
            "Mend the inventory and run again; or, if that is for another reason, with -e server_health_seconds=0.",
            **result,
        )
    module.exit_json(**result)


if __name__ == "__main__":
    main()
