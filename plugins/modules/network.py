#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: network
short_description: Put files, services, kernel settings, firewall, routing rules and links of a host in place
version_added: 1.0.0
author:
  - The warren.vpn authors (@warren-vpn)
description:
  - Compares everything that the collection looks after in a server's network with what is B(live), and changes what
    differs, in one call. The firewall is in force before the first link is up.
  - Every part has an owner, which is on record on the host with all that it has. What an owner declares no more, and
    all of an owner that is not named any more, is stopped, disabled and removed; a kernel setting goes back to what it
    was. What the module did not make is never touched.
  - Two parts that want the same file, table, link or port, or one kernel setting differently, are an error that names
    both.
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
    description:
      - What to place, in this order. Together they are all of it, unless O(only) is set.
      - Without any, all that earlier calls placed is taken away again. Packages are left to the caller.
    type: list
    elements: dict
    default: []
    suboptions:
      owner:
        description: Who declares it, in one word, such as a role. No two parts have the same.
        type: str
        required: true
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
      directories:
        description: Absolute paths of what its services write to. They are not made, and go when the part goes.
        type: list
        elements: path
        default: []
      users:
        description: Users that a file of it in C(/etc/sysusers.d) makes. They go when the part goes.
        type: list
        elements: str
        default: []
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
            description: Paths of files of the same part for which it is reloaded instead of restarted.
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
      rules:
        description:
          - Routing rules. A rule is placed for both families, unless it names one.
        type: list
        elements: dict
        default: []
        suboptions:
          priority:
            description: Where it stands.
            type: int
            required: true
          family:
            description: The only family that it is for.
            type: str
            choices: ['-4', '-6']
          not:
            description: Whether it is for the packets that the selector does not match.
            type: bool
          from:
            description: The network that packets come from.
            type: str
          to:
            description: The network that packets go to.
            type: str
          fwmark:
            description: The mark that packets have, a hexadecimal number, with C(/MASK) where only some bits count.
            type: str
          iif:
            description: The interface that packets come in by.
            type: str
          table:
            description: The routing table whose routes the packets take. Either this or O(parts[].rules[].action).
            type: str
          action:
            description: What else becomes of them, V(unreachable), V(blackhole), V(prohibit) or C(goto PRIORITY).
            type: str
      routes:
        description:
          - Routes that lead nowhere, and stand for those into a link while it is away. Without them what is meant for
            the link would take the host's default route.
        type: list
        elements: dict
        default: []
        suboptions:
          destination:
            description: A network.
            type: str
            required: true
          type:
            description: What becomes of packets.
            type: str
            choices: [blackhole, prohibit, unreachable]
            required: true
          table:
            description: The routing table.
            type: str
          metric:
            description: The lower of two goes first.
            type: int
      links:
        description:
          - Tunnel interfaces, each a map, or its JSON. A link has a peer for every server and every client. As text it
            is only handed on; as a structure Ansible would walk through it in every task.
          - C(name), at most 15 bytes, C(mtu) in bytes and C(addresses), with their prefix length. C(kind) is
            V(wireguard), the only one so far.
          - C(listen_port), a UDP port, any by default; C(fwmark), a number, the mark that the link's own packets have.
          - C(purpose) says which of the host's private keys it has, C(/etc/warren/keys/PURPOSE.key), and
            C(public_key) is the public key on record for it. Another private key on the host is an error.
          - C(routes) into the interface, besides those that its addresses bring, each with C(destination), a network,
            and as needed C(table), V(main) by default, C(gateway), C(source) and C(metric).
          - C(settings), kernel settings of the interface, such as C(ipv4/rp_filter).
          - C(group), the number of a device group, by which firewall rules know what kind of link it is.
          - C(peers), each with C(public_key), C(allowed_ips), the networks it may send from and is sent to, and as
            needed C(name) for people, C(preshared_key), C(endpoint) as C(address:port), C([address]:port) or
            C(name:port), none where the peer comes to us, C(keepalive) in seconds, and C(watched), whether it is a
            server whose answers a change must not end. A peer that is not named is removed.
          - A peer with a DNS name is where the name says when the call is made, stays there while it answers, and is
            looked for again each minute otherwise.
        type: list
        elements: json
        default: []
  only:
    description: Whether owners that are not named keep what they have, instead of having it taken away.
    type: bool
    default: false
  health_seconds:
    description:
      - How long watched peers that answered a ping through their link before a change may take to answer after it. One
        that does not answer fails the call.
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
      - owner: control_mesh
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
                watched: true

- name: Take all away again
  warren.vpn.network:
    version: 1.0.0
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

from ansible_collections.warren.vpn.plugins.module_utils import _health, _host, _install, _network, _record
from ansible_collections.warren.vpn.plugins.module_utils._plan import Plan

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
RULE = {
    "priority": {"type": "int", "required": True},
    "family": {"type": "str", "choices": ["-4", "-6"]},
    "not": {"type": "bool"},
    "from": {"type": "str"},
    "to": {"type": "str"},
    "fwmark": {"type": "str"},
    "iif": {"type": "str"},
    "table": {"type": "str"},
    "action": {"type": "str"},
}
ROUTE = {
    "destination": {"type": "str", "required": True},
    "type": {"type": "str", "choices": ["blackhole", "prohibit", "unreachable"], "required": True},
    "table": {"type": "str"},
    "metric": {"type": "int"},
}
TABLE = {"name": {"type": "str", "required": True}, "content": {"type": "str", "required": True}}
PART = {
    "owner": {"type": "str", "required": True},
    "packages": {"type": "list", "elements": "str", "default": []},
    "files": {"type": "list", "elements": "dict", "default": [], "options": FILE},
    "directories": {"type": "list", "elements": "path", "default": []},
    "users": {"type": "list", "elements": "str", "default": []},
    "services": {"type": "list", "elements": "dict", "default": [], "options": SERVICE},
    "sysctl": {"type": "dict", "default": {}},
    "tables": {"type": "list", "elements": "dict", "default": [], "options": TABLE},
    "rules": {"type": "list", "elements": "dict", "default": [], "options": RULE},
    "routes": {"type": "list", "elements": "dict", "default": [], "options": ROUTE},
    "links": {"type": "list", "elements": "json", "default": [], "no_log": True},
}
ARGUMENTS = {
    "version": {"type": "str", "required": True},
    "parts": {"type": "list", "elements": "dict", "default": [], "options": PART},
    "only": {"type": "bool", "default": False},
    "health_seconds": {"type": "int", "default": 30},
    "wireguard": {"type": "str", "choices": ["auto", "kernel", "userspace"], "default": "auto"},
}


class Module(AnsibleModule):
    """A module whose arguments do not go to the target's journal: they hold clients' addresses, and whole programs."""

    def _log_invocation(self) -> None:
        self.log("placing what the inventory has for this host")


class Run:
    """One call: what is missing, what differs, and what a change has lost."""

    def __init__(self, module: Module) -> None:
        """Take what is wanted."""
        self.parameters, self.check_mode = module.params, module.check_mode
        self.plan, self.services = Plan(), Plan()
        self.missing: list[str] = []
        self.lost: list[str] = []

    @property
    def actions(self) -> list[str]:
        """What was done, or would be."""
        return self.plan.actions + self.services.actions

    def run(self) -> None:
        """Compare, and put in place unless it is a check.

        Raises:
            NetworkError: something is in the way.
        """
        with _record.alone():
            wanted, expected = self.place()
        if self.missing or self.check_mode:
            return
        # A service that starts may have the network restored, and waits until nobody else is at work.
        self.services.carry_out()
        if expected and wanted.parts:
            self.lost = _health.lost(expected, wanted, self.parameters["health_seconds"])

    def place(self) -> tuple[_record.Network, set[str]]:
        """All but services. Returns what is wanted, and which servers must answer once it is there."""
        last = _record.read() or _record.EMPTY
        wanted = _record.network_from(_record.data_from(self.parameters, last))
        if not wanted.parts and last.is_of_before_owners:
            raise _host.NetworkError(
                "an earlier version of the collection placed this host's network, and noted no owners. "
                "Run site.yml once for this host, and then again what was to be removed."
            )
        missing = _network.missing_commands(wanted)
        if wanted.parts:
            self.missing = missing + _host.not_installed(wanted.named("packages"))
        if missing or self.missing:
            return wanted, set()  # without these commands there is nothing that could be taken away either
        alive = self.compare(wanted, last)
        expected = _health.lost_before()
        if self.actions and not self.check_mode:
            expected |= _health.answering(alive)
            self.plan.carry_out()
        return wanted, expected

    def compare(self, wanted: _record.Network, last: _record.Network) -> dict[str, str]:
        """Make the plans; see ``_network.compare``."""
        parts = self.parameters["parts"]
        _install.compare_surplus_services(wanted, last, self.plan)
        _install.compare(parts, wanted, self.plan)
        alive = _network.compare(wanted, self.plan, ask_names=True)
        _install.compare_endpoints(wanted, self.plan)
        _install.compare_surplus(wanted, last, self.plan)
        _network.note(wanted, self.plan)
        _install.compare_services(parts, self.services)
        return alive


def main() -> None:
    """Run the module."""
    module = Module(argument_spec=ARGUMENTS, supports_check_mode=True)
    run = Run(module)
    try:
        run.run()
    except _host.NetworkError as error:
        module.fail_json(msg=str(error), actions=run.actions)
    result = {
        "changed": bool(run.actions or run.missing),
        "actions": run.actions,
        "missing_packages": run.missing,
        "diff": run.plan.diff + run.services.diff,
    }
    if run.lost:
        module.fail_json(
            msg=f"answered on the mesh before a change to this server and does not any more: {', '.join(run.lost)}. "
            "Mend the inventory and run again; or, if that is for another reason, with -e server_health_seconds=0.",
            **result,
        )
    module.exit_json(**result)


if __name__ == "__main__":
    main()
