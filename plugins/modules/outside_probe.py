#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: outside_probe
short_description: Try to reach internal addresses of other hosts past their tunnels
version_added: 1.0.0
author:
  - The warren.vpn authors (@warren-vpn)
description:
  - Sends ICMP echo requests and TCP connection requests for an internal address in plain packets, handed straight to
    the next hop towards a public address of the same host, as a neighbour on its network could.
  - Fails, naming them, if any answer. Changes neither routes nor addresses.
attributes:
  check_mode:
    support: full
    description: Probes all the same, for it changes nothing.
  diff_mode:
    support: none
    description: Nothing changes.
  idempotent:
    support: full
    description: Nothing changes.
options:
  targets:
    description: What to try to reach, by the name that a message uses.
    type: dict
    required: true
  tcp_ports:
    description: TCP ports to try. Port 22 answers on most hosts, so silence means something.
    type: list
    elements: int
    default: [22, 80]
  timeout:
    description: Seconds to wait for an answer.
    type: float
    default: 2
"""

EXAMPLES = r"""
- name: Make sure that the mesh cannot be reached from outside
  warren.vpn.outside_probe:
    targets:
      fra:
        public: 198.51.100.12
        internal: 10.77.0.2
"""

RETURN = r"""
answers:
  description: What answered that should not.
  returned: always
  type: list
  elements: str
  sample: []
unreachable:
  description: Names whose public address has no next hop from here, so that nothing could be tried.
  returned: always
  type: list
  elements: str
  sample: []
"""

import ipaddress
import json
import os
import socket
import struct
import time
from dataclasses import dataclass

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.warren.vpn.plugins.module_utils import _host
from ansible_collections.warren.vpn.plugins.module_utils._ping import Pinger, checksum

ETHERTYPES = {4: 0x0800, 6: 0x86DD}
TCP = 6
ICMP = 1
ICMPV6 = 58
SYN = 0x02


@dataclass(frozen=True)
class Path:
    """How packets towards a host leave: device, own and next hop's MAC address, own source address."""

    device: str
    own_mac: bytes
    next_mac: bytes
    source: str


def path_to(public: str) -> Path | None:
    """The way to a public address, or None where the next hop does not answer."""
    Pinger({public: public}).run(timeout=1)  # makes the kernel ask for the next hop's MAC address
    route = json.loads(_host.run(["ip", "-json", "route", "get", public]))[0]
    device, hop = route["dev"], route.get("gateway", public)
    neighbours = json.loads(_host.run(["ip", "-json", "neighbour", "show", hop, "dev", device]) or "[]")
    macs = [neighbour["lladdr"] for neighbour in neighbours if "lladdr" in neighbour]
    own = json.loads(_host.run(["ip", "-json", "link", "show", "dev", device]))[0].get("address", "")
    if not macs or not own:
        return None
    return Path(device, bytes.fromhex(own.replace(":", "")), bytes.fromhex(macs[0].replace(":", "")), route["prefsrc"])


def packet(source: str, destination: str, protocol: int, payload: bytes, checksum_at: int) -> bytes:
    """An IP packet whose transport checksum stands at an offset of its payload."""
    one, other = ipaddress.ip_address(source), ipaddress.ip_address(destination)
    covered = b"" if protocol == ICMP else one.packed + other.packed + struct.pack("!II", len(payload), protocol)
    total = struct.pack("!H", checksum(covered + payload))
    payload = payload[:checksum_at] + total + payload[checksum_at + 2 :]
    if one.version == 6:
        return struct.pack("!IHBB", 6 << 28, len(payload), protocol, 64) + one.packed + other.packed + payload
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, 64, protocol, 0) + one.packed + other.packed
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def requests(source: str, destination: str, tcp_ports: list[int]) -> list[bytes]:
    """An echo request and a SYN to each port."""
    version = ipaddress.ip_address(destination).version
    echo = struct.pack("!BBHHH", 8 if version == 4 else 128, 0, 0, os.getpid() & 0xFFFF, 1) + b"warren  "
    packets = [packet(source, destination, ICMP if version == 4 else ICMPV6, echo, 2)]
    for port in tcp_ports:
        syn = struct.pack("!HHIIBBHHH", 40000, port, 1, 0, 5 << 4, SYN, 1024, 0, 0)
        packets.append(packet(source, destination, TCP, syn, 16))
    return packets


def sender_of(frame: bytes) -> str:
    """Where an Ethernet frame's IP packet comes from; empty for anything else."""
    kind = struct.unpack("!H", frame[12:14])[0]
    if kind == ETHERTYPES[4] and len(frame) >= 34:
        return str(ipaddress.ip_address(frame[26:30]))
    if kind == ETHERTYPES[6] and len(frame) >= 54:
        return str(ipaddress.ip_address(frame[22:38]))
    return ""


def probe(name: str, public: str, internal: str, tcp_ports: list[int], timeout: float) -> list[str] | None:
    """What a host answered; None where nothing could be sent."""
    path = path_to(public)
    if path is None:
        return None
    version = ipaddress.ip_address(internal).version
    head = path.next_mac + path.own_mac + struct.pack("!H", ETHERTYPES[version])
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003)) as wire:
        wire.bind((path.device, 0))
        for request in requests(path.source, internal, tcp_ports):
            wire.send(head + request)
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            wire.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                frame = wire.recv(2048)
            except OSError:
                break
            if sender_of(frame) == internal:
                return [f"{name} answers at {internal}, asked past its tunnel"]
    return []


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "targets": {"type": "dict", "required": True},
            "tcp_ports": {"type": "list", "elements": "int", "default": [22, 80]},
            "timeout": {"type": "float", "default": 2},
        },
        supports_check_mode=True,
    )
    answers, unreachable = [], []
    try:
        ports, timeout = module.params["tcp_ports"], module.params["timeout"]
        for name, target in module.params["targets"].items():
            found = probe(name, target["public"], target["internal"], ports, timeout)
            if found is None:
                unreachable.append(name)
            answers += found or []
    except _host.NetworkError as error:
        module.fail_json(msg=str(error))
    result = {"changed": False, "answers": answers, "unreachable": unreachable}
    if answers:
        module.fail_json(msg="; ".join(answers), **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
