# Copyright (c) 2026 the warren.vpn authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Forgets the flows of addresses, by netlink (linux/netfilter/nfnetlink_conntrack.h). Blocking.

In plain struct: pyroute2 takes 75 microseconds for each entry that a dump lists, and this 4; an exit that loses an
entry with its thousands of sessions lists all entries of the host.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable, Collection, Iterator

NETLINK_NETFILTER, SUBSYSTEM = 12, 1 << 8
GET, DELETE = SUBSYSTEM | 1, SUBSYSTEM | 2
REQUEST, ACK, DUMP, NESTED = 0x1, 0x4, 0x300, 0x8000
ERROR, DONE = 2, 3
# Attributes of an entry.
TUPLE_ORIG, MARK, ZONE, MARK_MASK = 1, 8, 18, 21

# The rules of role packet_path give each flow a mark: a digit for its kind, and a handle below it, which for a client
# and for a session follows from its IPv4 address and is the same for both families. The kernel finds entries by mark.
# By address it does not: its filter compares IPv6 addresses the wrong way round (in ctnetlink_filter_match_tuple, seen
# in 6.18) and would delete the flows of everybody else.
OURS, OURS_MASK = 0x4000_0000, 0xCFFF_FFFF
WHOLE_MASK = 0xFFFF_FFFF
FORWARD_KIND, SESSION_KIND, OWN_KIND, EXIT_KIND = 3, 5, 6, 7
# The kinds: by a forwarded port, whose handle is the port; of another server's session; of a client that
# leaves from here; of one that leaves by an exit. The first lacks the bit of the others: what came in by a port
# outlives a session. Of the others, `OURS_MASK` leaves out what tells them apart.
HANDLES = 0x1000_0000

MAX_WALKS = 16
"""For so many marks the kernel is asked to walk through all entries once each; for more, they are listed once."""


class Flows:
    """The connection tracking table."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self._socket.bind((0, 0))
        self._sequence = 0

    def forget(self, handles: Collection[int]) -> None:
        """Delete every flow of these clients and sessions.

        Raises:
            OSError: the kernel refused.
        """
        self._forget({OURS | number for number in handles}, OURS_MASK)

    def forget_forwards(self, ports: Collection[int]) -> None:
        """Delete every flow that came in by one of these forwarded ports.

        Raises:
            OSError: the kernel refused.
        """
        self._forget({forward_mark(port) for port in ports}, WHOLE_MASK)

    def _forget(self, marks: Collection[int], mask: int) -> None:
        if len(marks) <= MAX_WALKS:
            for mark in marks:
                # Of no family, the kernel goes through both at once.
                self._delete(socket.AF_UNSPEC, _number(MARK, mark) + _number(MARK_MASK, mask))
        else:
            for family, key in [(family, key) for mark, family, key in self._list() if mark & mask in marks]:
                self._delete(family, key)

    def sweep(self, wrong: Callable[[int], bool], delete: bool) -> int:
        """Count, and delete, the flows that should not be there.

        Args:
            wrong: tells from the mark of a flow whether it should not.
            delete: False only counts.
        """
        listed = [(family, key) for mark, family, key in self._list() if wrong(mark)]
        for family, key in listed if delete else ():
            self._delete(family, key)
        return len(listed)

    def close(self) -> None:
        self._socket.close()

    def _delete(self, family: int, attributes: bytes) -> None:
        self._send(DELETE, REQUEST | ACK, family, attributes)
        for kind, body in self._receive():
            if kind == ERROR:
                (code,) = struct.unpack_from("=i", body)
                if code not in (0, -errno.ENOENT):
                    raise OSError(-code, os.strerror(-code))
                return

    def _list(self) -> Iterator[tuple[int, int, bytes]]:
        """Mark, family, and the attributes that name the entry, of each entry that has a mark."""
        self._send(GET, REQUEST | DUMP, socket.AF_UNSPEC, b"")
        for kind, body in self._receive():
            if kind == DONE:
                return
            if kind == ERROR:
                (code,) = struct.unpack_from("=i", body)
                raise OSError(-code, os.strerror(-code))
            mark, key = 0, b""
            for attribute, start, end in _attributes(body, 4):
                if attribute == TUPLE_ORIG:
                    key += body[start - 4 : end]
                elif attribute == MARK:
                    (mark,) = struct.unpack_from(">I", body, start)
                elif attribute == ZONE:
                    key += body[start - 4 : end] + bytes(2)
            if mark:
                yield mark, body[0], key

    def _send(self, kind: int, flags: int, family: int, attributes: bytes) -> None:
        self._sequence += 1
        body = struct.pack("=BBH", family, 0, 0) + attributes
        self._socket.send(struct.pack("=IHHII", 16 + len(body), kind, flags, self._sequence, 0) + body)

    def _receive(self) -> Iterator[tuple[int, bytes]]:
        """Type and body of each message of the answer to the last request."""
        while True:
            data = self._socket.recv(1 << 20)
            offset = 0
            while offset + 16 <= len(data):
                length, kind, _flags, sequence = struct.unpack_from("=IHHI", data, offset)
                if sequence == self._sequence:
                    yield kind, data[offset + 16 : offset + length]
                offset += max(16, (length + 3) & ~3)


def _attributes(body: bytes, start: int, end: int | None = None) -> Iterator[tuple[int, int, int]]:
    """Type, start and end of each attribute's payload."""
    end = len(body) if end is None else end
    while start + 4 <= end:
        length, kind = struct.unpack_from("=HH", body, start)
        yield kind & 0x3FFF, start + 4, start + length
        start += max(4, (length + 3) & ~3)


def _number(kind: int, value: int) -> bytes:
    return struct.pack("=HH", 8, kind) + struct.pack(">I", value)


def handle(address4: str) -> int:
    """What the marks of a client's or a session's flows have below their kind: the end of its IPv4 address.

    It is another one for each in a prefix of 4 bits and more.
    """
    return int.from_bytes(socket.inet_aton(address4), "big") % HANDLES


def flow_mark(kind: int, address4: str) -> int:
    """The mark of the flows of a kind that a client or a session has."""
    return kind << 28 | handle(address4)


def forward_mark(port: int) -> int:
    """The mark of the flows that came in by a forwarded port."""
    return FORWARD_KIND << 28 | port


def jhash(data: bytes, seed: int) -> int:
    """Bob Jenkins' hash as the kernel has it (linux/jhash.h)."""

    def rotated(value: int, bits: int) -> int:
        return (value << bits | value >> (32 - bits)) & 0xFFFF_FFFF

    def mixed(one: int, other: int, added: int, bits: int) -> tuple[int, int]:
        return ((one - other) & 0xFFFF_FFFF) ^ rotated(other, bits), (other + added) & 0xFFFF_FFFF

    a = b = c = (0xDEAD_BEEF + len(data) + seed) & 0xFFFF_FFFF
    data += bytes(-len(data) % 4)
    words: list[int] = list(struct.unpack(f"<{len(data) // 4}I", data))
    while len(words) > 3:
        a, b, c = ((x + each) & 0xFFFF_FFFF for x, each in zip((a, b, c), words[:3], strict=True))
        del words[:3]
        a, c = mixed(a, c, b, 4)
        b, a = mixed(b, a, c, 6)
        c, b = mixed(c, b, a, 8)
        a, c = mixed(a, c, b, 16)
        b, a = mixed(b, a, c, 19)
        c, b = mixed(c, b, a, 4)
    a, b, c = ((x + each) & 0xFFFF_FFFF for x, each in zip((a, b, c), (words + [0] * 3)[:3], strict=True))
    for bits in ((14, 11, 25), (16, 4, 14), (24,)):
        c = ((c ^ b) - rotated(b, bits[0])) & 0xFFFF_FFFF
        if len(bits) > 1:
            a = ((a ^ c) - rotated(c, bits[1])) & 0xFFFF_FFFF
            b = ((b ^ a) - rotated(a, bits[2])) & 0xFFFF_FFFF
    return c
