#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: client_files
short_description: Write the WireGuard files and QR codes of all clients
version_added: 1.0.0
author:
  - The warren.vpn authors (@warren-vpn)
description:
  - Writes C(CLIENT/SERVER.conf), a file for wg-quick, for each client and its server, with its QR code as C(SERVER.png)
    and, for a terminal, as C(SERVER.txt), which C(cat) shows. Files have mode 0600 in directories of mode 0700. A
    C(.gitignore) keeps them out of version control.
  - Makes a key pair for a client that has no public key. The private half is in the client's files only. Later calls
    take it from there, so the files stay the same.
  - A client that brings a public key of its own has a comment in place of the private key, and no QR code. Once the
    private key is put there, it stays, and there is a QR code.
  - A file that exists for a further server of the fleet is kept up to date as well.
  - No private key is in the result or the diff, which shows its public half instead.
  - The role P(warren.vpn.clients#role) runs the module on the controller.
requirements:
  - cryptography
  - segno
attributes:
  check_mode:
    support: full
    description: Writes nothing and makes no key. A key that would be made has an empty public key.
  diff_mode:
    support: full
    description: Shows the files with private keys hidden.
  idempotent:
    support: full
    description: The same clients give the same files. Files that were changed, and modes, are mended.
options:
  directory:
    description:
      - Where the clients' directories are.
      - Not inside a directory that is an inventory, unless below one whose name begins with a dot. Ansible takes every
        file there for an inventory, and shows the lines of those that it cannot read.
    type: path
    required: true
  tunnels:
    description: What stands in the files. The filter P(warren.vpn.client_tunnels#filter) computes it.
    type: dict
    required: true
    suboptions:
      mtu:
        description: Of the client's interface.
        type: int
        required: true
      dns:
        description: Addresses of resolvers. None leaves the client's own.
        type: list
        elements: str
        default: []
      portal:
        description: The address of the page for clients.
        type: str
        required: true
      servers:
        description: Those that accept clients.
        type: list
        elements: dict
        required: true
        suboptions:
          name:
            description: Inventory name.
            type: str
            required: true
          slug:
            description: Name of the files, and so of the interface, at most 15 bytes.
            type: str
            required: true
          label:
            description: What people read.
            type: str
            required: true
          public_key:
            description: Of its link for clients. No files are written for a server without one.
            type: str
          endpoint:
            description: Where it listens, C(address:port).
            type: str
            required: true
      clients:
        description: All clients.
        type: list
        elements: dict
        required: true
        suboptions:
          name:
            description: Name of the client and of its directory.
            type: str
            required: true
          public_key:
            description: Its public key. Without one, a key pair is made.
            type: str
          own_key:
            description: Whether the client made its key pair itself, so that the private half is not expected here.
            type: bool
            default: false
          addresses:
            description: Its addresses in the tunnel, with their prefix length.
            type: list
            elements: str
            required: true
          server:
            description: Inventory name of the server that it has files for.
            type: str
  servers:
    description: Inventory names of further servers that the clients get files for.
    type: list
    elements: str
    default: []
  only:
    description: Names of the clients to look after. All if empty.
    type: list
    elements: str
    default: []
  inventory_sources:
    description: The inventories of this run, V(ansible_inventory_sources). The directory may not be inside one of them.
    type: list
    elements: path
    default: []
"""

EXAMPLES = r"""
- name: Write the files of all clients
  warren.vpn.client_files:
    directory: /root/clients
    tunnels: "{{ warren_fleet | warren.vpn.client_tunnels }}"
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
public_keys:
  description: Public keys of the clients that had none. Empty ones, in check mode, would be made.
  returned: always
  type: dict
  sample: {alice: 6uVDFz8bdfIYJzWWP6o4HtXuxFNqTBtTPYWxCzFSbRk=}
changed_files:
  description: What was written, removed, or given another mode.
  returned: always
  type: list
  elements: str
  sample: [/root/clients/alice/ams.conf]
"""

import io
import multiprocessing
from base64 import b64decode, b64encode

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

from ansible_collections.warren.vpn.plugins.module_utils import _client_files, _client_folders

MISSING = []

try:
    import segno
except ImportError:
    MISSING.append("segno")

try:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
except ImportError:
    MISSING.append("cryptography")

# A code must be dark on light for all phones to read it: its light parts are what is printed.
WHITE_ON_BLACK = "\x1b[38;5;231;48;5;16m"
PLAIN = "\x1b[0m"
MANY = 50  # QR codes from which on a process per CPU draws them

SERVER = {
    "name": {"type": "str", "required": True},
    "slug": {"type": "str", "required": True},
    "label": {"type": "str", "required": True},
    "public_key": {"type": "str"},
    "endpoint": {"type": "str", "required": True},
}
CLIENT = {
    "name": {"type": "str", "required": True},
    "public_key": {"type": "str"},
    "own_key": {"type": "bool", "default": False},
    "addresses": {"type": "list", "elements": "str", "required": True},
    "server": {"type": "str"},
}
TUNNELS = {
    "mtu": {"type": "int", "required": True},
    "dns": {"type": "list", "elements": "str", "default": []},
    "portal": {"type": "str", "required": True},
    "servers": {"type": "list", "elements": "dict", "required": True, "options": SERVER},
    "clients": {"type": "list", "elements": "dict", "required": True, "options": CLIENT},
}


def make_key() -> str:
    """A new private key."""
    key = X25519PrivateKey.generate().private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
    return b64encode(key).decode()


def public_half(private_key: str) -> str:
    """The public key of a private key."""
    key = X25519PrivateKey.from_private_bytes(b64decode(private_key)).public_key()
    return b64encode(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()


def draw(config: str) -> tuple[bytes, str]:
    """The QR code of a file as a stamped PNG image and as text for a terminal, whatever the terminal's colours."""
    code = segno.make_qr(_client_files.scanned(config), error="l", boost_error=False)
    image, lines = io.BytesIO(), io.StringIO()
    code.save(image, kind="png", scale=6)
    code.terminal(lines, compact=True)
    terminal = "".join(f"{WHITE_ON_BLACK}{line}{PLAIN}\n" for line in lines.getvalue().splitlines())
    return _client_files.stamped(image.getvalue(), terminal, config), terminal


def draw_all(configs: list[str]) -> list[tuple[bytes, str]]:
    """The QR codes of many files."""
    if len(configs) < MANY:
        return [draw(config) for config in configs]
    with multiprocessing.get_context("fork").Pool() as pool:
        return pool.map(draw, configs)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "tunnels": {"type": "dict", "required": True, "options": TUNNELS},
            "servers": {"type": "list", "elements": "str", "default": []},
            "only": {"type": "list", "elements": "str", "default": []},
            "inventory_sources": {"type": "list", "elements": "path", "default": []},
        },
        supports_check_mode=True,
    )
    for library in MISSING:
        module.fail_json(msg=missing_required_lib(library, reason="to write the clients' files"))
    tools = _client_folders.Tools(make_key, public_half, draw_all)
    try:
        clients = _client_folders.Clients(module.params, tools, module.check_mode)
        clients.compare()
        if not module.check_mode:
            clients.writer.write()
    except (_client_folders.ClientError, OSError) as error:
        module.fail_json(msg=str(error))
    for warning in clients.warnings():
        module.warn(warning)
    diff = clients.writer.diff
    result = {
        "changed": bool(diff),
        "public_keys": clients.public_keys,
        "changed_files": list(dict.fromkeys(each["after_header"] for each in diff)),
    }
    if module._diff:  # noqa: SLF001 - there is no other way to ask; unasked, the diff of thousands of files is a burden
        result["diff"] = diff
    module.exit_json(**result)


if __name__ == "__main__":
    main()
