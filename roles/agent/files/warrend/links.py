# Copyright (c) 2026 the warren.vpn authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tells when somebody has taken links, addresses, routes or routing rules of the collection away (rtnetlink(7))."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Collection

from .tables import datagrams

# RTMGRP_LINK, and for both families addresses, routes and rules.
GROUPS = 0x1 | 0x10 | 0x40 | 0x80 | 0x100 | 0x400 | 1 << 18
NEWLINK, DELLINK, DELADDR, DELROUTE, DELRULE = 16, 17, 21, 25, 33
IFNAME, GROUP, RULE_PROTOCOL = 3, 27, 21
UP = 0x1

PROTOCOL = 119
"""Of the routes and rules that are the collection's (see ``_interfaces.py`` of the engine)."""

GROUP_BYTE = 0x57
"""The first byte of the device groups of its links."""


def watch() -> socket.socket:
    """A socket that becomes readable after a change."""
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
    sock.bind((0, GROUPS))
    return sock


def missing(names: Collection[str]) -> bool:
    """Whether any of these links is not there."""
    return not {name for _index, name in socket.if_nameindex()}.issuperset(names)


def damaged(sock: socket.socket, names: Collection[str]) -> bool:
    """Whether any of what a watching socket has to report took something of ours away.

    Args:
        sock: see :func:`watch`.
        names: of the collection's links.
    """
    found = False
    for data in datagrams(sock):
        offset = 0
        while data is not None and offset + 16 <= len(data):
            length, kind = struct.unpack_from("=IH", data, offset)
            found = found or _damages(kind, data[offset + 16 : offset + length], names)
            offset += max(16, (length + 3) & ~3)
        found = found or data is None
    return found


def _damages(kind: int, body: bytes, names: Collection[str]) -> bool:
    if kind in (NEWLINK, DELLINK):
        attributes = _attributes(body, 16)
        if attributes.get(IFNAME, b"").rstrip(b"\0").decode(errors="replace") not in names:
            return False
        (flags,) = struct.unpack_from("=I", body, 8)
        (group,) = struct.unpack("=I", attributes.get(GROUP, bytes(4)))
        return kind == DELLINK or not flags & UP or group >> 24 != GROUP_BYTE
    if kind == DELADDR:
        with contextlib.suppress(OSError):
            return socket.if_indextoname(struct.unpack_from("=I", body, 4)[0]) in names
        return False  # the link is gone too, and that is reported
    if kind == DELROUTE:
        return body[5] == PROTOCOL
    return kind == DELRULE and _attributes(body, 12).get(RULE_PROTOCOL, b"\0")[0] == PROTOCOL


def _attributes(body: bytes, start: int) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while start + 4 <= len(body):
        length, kind = struct.unpack_from("=HH", body, start)
        found[kind & 0x3FFF] = body[start + 4 : start + length]
        start += max(4, (length + 3) & ~3)
    return found
