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
  - Sends an ICMP echo request to every address, again every half second to those that have not answered, until all have or
    the time is up.
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

import os
import selectors
import socket
import struct
import time
from typing import Dict

from ansible.module_utils.basic import AnsibleModule

INTERVAL = 0.5
ECHO = {socket.AF_INET: (8, 0, socket.IPPROTO_ICMP), socket.AF_INET6: (128, 129, socket.IPPROTO_ICMPV6)}


def checksum(packet: bytes) -> int:
    """The internet checksum (RFC 1071) of a packet of even length."""
    total = sum(struct.unpack(f"!{len(packet) // 2}H", packet))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def echo_request(family: int, identifier: int, sequence: int) -> bytes:
    """An ICMP or ICMPv6 echo request (RFC 792, RFC 4443); the kernel fills in the checksum of the latter."""
    kind = ECHO[family][0]
    packet = struct.pack("!BBHHH8s", kind, 0, 0, identifier, sequence, b"warren  ")
    return struct.pack("!BBHHH8s", kind, 0, checksum(packet), identifier, sequence, b"warren  ")


class Pinger:
    """Echo requests to many addresses over one raw socket for each family.

    Attributes:
        waiting: names by sequence number, of addresses that have not answered.
        round_trip_ms: by name, of those that have.
    """

    def __init__(self, addresses: Dict[str, str]) -> None:
        """Take the addresses by name."""
        self.targets = dict(enumerate(addresses.items()))
        self.waiting = {number: name for number, (name, _address) in self.targets.items()}
        self.round_trip_ms: Dict[str, float] = {}
        self._identifier = os.getpid() & 0xFFFF
        self._sent: Dict[int, float] = {}
        self._selector = selectors.DefaultSelector()
        self._sockets = {}
        for family, (_request, _reply, protocol) in ECHO.items():
            self._sockets[family] = socket.socket(family, socket.SOCK_RAW, protocol)
            self._sockets[family].setblocking(False)
            self._selector.register(self._sockets[family], selectors.EVENT_READ, family)

    def run(self, timeout: float) -> None:
        """Ping until all have answered or the time is up."""
        deadline = time.monotonic() + timeout
        while self.waiting and time.monotonic() < deadline:
            for number in self.waiting:
                self._send(number)
            again = min(deadline, time.monotonic() + INTERVAL)
            while self.waiting and time.monotonic() < again:
                for key, _events in self._selector.select(max(0.0, again - time.monotonic())):
                    self._receive(key.data)

    def _send(self, number: int) -> None:
        address = self.targets[number][1]
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._sent[number] = time.monotonic()
        try:
            self._sockets[family].sendto(echo_request(family, self._identifier, number), (address, 0))
        except OSError:
            pass  # No route, or no session yet: it stays silent, and is asked again.

    def _receive(self, family: int) -> None:
        packet, sender = self._sockets[family].recvfrom(2048)
        if family == socket.AF_INET:
            packet = packet[(packet[0] & 0xF) * 4 :]
        if len(packet) < 8:
            return
        kind, _code, _checksum, identifier, number = struct.unpack("!BBHHH", packet[:8])
        if kind != (0 if family == socket.AF_INET else ECHO[family][1]) or identifier != self._identifier:
            return
        if number in self.waiting and self.targets[number][1] == sender[0]:
            elapsed = time.monotonic() - self._sent[number]
            self.round_trip_ms[self.waiting.pop(number)] = round(elapsed * 1000, 2)


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
