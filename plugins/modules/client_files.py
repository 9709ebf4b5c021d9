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
  - It runs on the controller, whatever the host. The role P(warren.vpn.clients#role) uses it.
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
