# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# PRIVATE to the collection.
"""Pinging many addresses at once."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import struct
import time
from collections.abc import Mapping

INTERVAL = 0.5
# Type of an echo request, of its answer, and the protocol: RFC 792, RFC 4443.
ECHO: dict[int, tuple[int, int, int]] = {
    socket.AF_INET: (8, 0, socket.IPPROTO_ICMP),
    socket.AF_INET6: (128, 129, socket.IPPROTO_ICMPV6),
}


def checksum(packet: bytes) -> int:
    """The internet checksum (RFC 1071)."""
    packet += b"\0" * (len(packet) % 2)
    total: int = sum(struct.unpack(f"!{len(packet) // 2}H", packet))
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

    def __init__(self, addresses: Mapping[str, str]) -> None:
        """Take the addresses by name."""
        self.targets = dict(enumerate(addresses.items()))
        self.waiting = {number: name for number, (name, _address) in self.targets.items()}
        self.round_trip_ms: dict[str, float] = {}
        self._identifier = os.getpid() & 0xFFFF
        self._sent: dict[int, float] = {}
        self._selector = selectors.DefaultSelector()
        self._sockets: dict[int, socket.socket] = {}
        for family, (_request, _reply, protocol) in ECHO.items():
            self._sockets[family] = socket.socket(family, socket.SOCK_RAW, protocol)
            self._sockets[family].setblocking(False)
            self._selector.register(self._sockets[family], selectors.EVENT_READ, family)

    def run(self, timeout: float) -> dict[str, str]:
        """Ping until all have answered or the time is up.

        Args:
            timeout: seconds.

        Returns:
            The addresses that answered, by name.
        """
        deadline = time.monotonic() + timeout
        while self.waiting and time.monotonic() < deadline:
            for number in self.waiting:
                self._send(number)
            again = min(deadline, time.monotonic() + INTERVAL)
            while self.waiting and time.monotonic() < again:
                for key, _events in self._selector.select(max(0.0, again - time.monotonic())):
                    self._receive(key.data)
        return {name: address for name, address in self.targets.values() if name in self.round_trip_ms}

    def _send(self, number: int) -> None:
        address = self.targets[number][1]
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._sent[number] = time.monotonic()
        with contextlib.suppress(OSError):  # no route, or no session yet: it stays silent, and is asked again
            self._sockets[family].sendto(echo_request(family, self._identifier, number), (address, 0))

    def _receive(self, family: int) -> None:
        packet, sender = self._sockets[family].recvfrom(2048)
        if family == socket.AF_INET:
            packet = packet[(packet[0] & 0xF) * 4 :]
        if len(packet) < 8:
            return
        kind, _code, _checksum, identifier, number = struct.unpack("!BBHHH", packet[:8])
        if kind != ECHO[family][1] or identifier != self._identifier:
            return
        if number in self.waiting and self.targets[number][1] == sender[0]:
            elapsed = time.monotonic() - self._sent[number]
            self.round_trip_ms[self.waiting.pop(number)] = round(elapsed * 1000, 2)
