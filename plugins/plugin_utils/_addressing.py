# Copyright (c) 2026 the warren.vpn authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every name, port, address, table and mark of the fleet, as pure functions of one number per server.

Private to the collection. Nothing else computes an address (docs/architecture.md). Plain types in and out; every
function raises ``ValueError`` with a message that names the bad value. "The source document" is the one on server-side
multihop; with ids 1-254 and its prefixes the results are its own.
"""

from __future__ import annotations

import functools
import hashlib
from typing import TYPE_CHECKING

try:
    import netaddr
except ImportError:
    HAS_NETADDR = False  # what adapts these functions to Ansible says so
else:
    HAS_NETADDR = True

if TYPE_CHECKING:
    from netaddr import IPAddress as Address
    from netaddr import IPNetwork as Network

CONTROL_INTERFACE = "wg0ctl"
ACCESS_INTERFACE = "wg0access"
MULTIHOP_INTERFACE = "wg0mh"

INTERFACE_NAME_BYTES = 15
"""IFNAMSIZ of Linux without the closing NUL."""

LINK_TABLE_BASE = 100_000
"""Tables 100001 and up: far from the kernel's own (0, 253-255), from small numbers and from wg-quick's 51820."""

LINK_MARK_BASE = 0x7000_0000
"""Marks 0x70000001 and up, compared whole and never masked: the top digit tells them from the small marks that other
programs use and from wg-quick's 51820; the low 28 bits are the id."""

BLOCK_MARK = LINK_MARK_BASE + 0x0FFF_FFFE
"""The mark of a client whose exit is away. No table is for it, so the kernel says unreachable."""

HOLD_MARK = LINK_MARK_BASE + 0x0FFF_FFFF
"""The mark of a client whose exit is about to change: the milliseconds until then are silence."""

FLOW_MARKS = {
    "dead": 0x1000_0000,
    "forward": 0x3000_0000,
    "session": 0x5000_0000,
    "own": 0x6000_0000,
    "exit": 0x7000_0000,
}
"""Marks of tracked flows: what kind, and below it the handle by which the agent has the kernel forget them. A flow of a
forwarded port; of another server's session; of a client that leaves from here; of one that leaves by an exit; and one
that nothing passes by. The handles are in the agent's maps."""

PACKET_MARKS = {
    "answer": 0x4000_0000,
    "session": 0x5000_0000,
    "own": 0x6000_0000,
    "exit": 0x7000_0000,
    "back": 0xC000_0000,
}
"""What a packet has been approved for: an answer by a forwarded port, a session of another server, a client's way from
here or by an exit, and what comes back to either. All have the bit by which routing knows what was approved."""

APPROVED_BIT = 0x4000_0000
"""That bit."""

KIND_MASK = 0xF000_0000
"""The top digit of a mark of a packet or of a flow: what kind it is."""

TRACKED_MASK = 0x7000_0000
"""Bits of which every mark of ours on a flow has one."""

CLIENTS_MASK = FLOW_MARKS["own"] & FLOW_MARKS["exit"]
"""Bits that the marks of a client's own flows have in common, and no other mark has."""

EXIT_SEED = "@secret:access_exit_seed@"
"""Stands in rules for the number by which a server spreads clients over its exit addresses. Each makes its own."""

LINK_GROUPS_OURS, LINK_GROUPS_MASK = 0x5700_0000, 0xFF00_0000
"""The first byte of a device group is a W, and no other program's: one comparison tells all links of the fleet from the
rest."""

LINK_GROUPS = {
    name: LINK_GROUPS_OURS + number for number, name in enumerate(("access", "exit", "session", "mesh"), start=1)
}
"""Device groups: where clients are, the way to an exit, where other servers' sessions come in, the control mesh."""

ADDRESS_BITS = {4: 32, 6: 128}

TCP_HEADER, IP_HEADERS = 20, {4: 20, 6: 40}
"""Bytes, without options (RFC 9293, 791, 8200)."""

HIGHEST_SERVER_ID = 0x0FFF_FFFD
"""What fits in the mark. A control prefix, a port block or a session pool sets a lower limit in practice."""


@functools.lru_cache(maxsize=256)
def network(prefix: str, strict: bool = True) -> Network:
    """``prefix`` as a network. If ``strict``, its host bits must be zero."""
    try:
        found = netaddr.IPNetwork(prefix)
    except (netaddr.AddrFormatError, TypeError, ValueError) as error:
        raise ValueError(f"not a network prefix: {prefix!r} ({error})") from None
    if strict and found.value != found.first:
        raise ValueError(f"not a network prefix: {prefix!r} (an address inside {found.cidr})")
    return found


def address(text: str) -> Address:
    """``text`` as an address, without a prefix length."""
    try:
        return netaddr.IPAddress(text)
    except (netaddr.AddrFormatError, TypeError, ValueError) as error:
        raise ValueError(f"not an address: {text!r} ({error})") from None


def numbered(number: int, version: int) -> str:
    """The address of an IP version that has this number, in its shortest form."""
    return str(netaddr.IPAddress(number, version))


def overlap(one: str, other: str) -> bool:
    """Whether two prefixes share an address. Then one of them holds the other."""
    return bool(network(one) in network(other) or network(other) in network(one))


def parse_ports(ports: str) -> tuple[int, int]:
    """First and last port of ``30000-51000``, both included; a single number is a range of one."""
    first, dash, last = ports.partition("-")
    if not _is_number(first) or (dash and not _is_number(last)):
        raise ValueError(f"not a port range such as 30000-51000: {ports!r}")
    low, high = int(first), int(last if dash else first)
    if not 1 <= low <= high <= 65535:
        raise ValueError(f"not a range of ports between 1 and 65535, lowest first: {ports!r}")
    return low, high


def link_interface(server_id: int) -> str:
    """The multihop interface of an entry towards server ``server_id``: ``wg0mh-r<id>``, as in the source document."""
    name = f"{MULTIHOP_INTERFACE}-r{_id(server_id)}"
    if len(name) > INTERFACE_NAME_BYTES:
        raise ValueError(f"interface name {name} is longer than {INTERFACE_NAME_BYTES} bytes")
    return name


def link_port(base: int, server_id: int) -> int:
    """The UDP port on which an entry's link towards ``server_id`` listens: base + id, as in the source document."""
    port = base + _id(server_id)
    if base < 1 or port > 65535:
        raise ValueError(f"link port {port} (base {base} + id {server_id}) is not between 1 and 65535")
    return port


def link_table(server_id: int) -> int:
    """The routing table whose default route leads into the link towards ``server_id``."""
    return LINK_TABLE_BASE + _id(server_id)


def link_mark(server_id: int) -> int:
    """The firewall mark of packets that are to leave from server ``server_id``."""
    return LINK_MARK_BASE + _id(server_id)


def segment_size(mtu: int, version: int) -> int:
    """Bytes of the largest TCP segment (MSS, RFC 9293, 3.7.1) in a packet of an IP version that an MTU has room for."""
    return mtu - IP_HEADERS[version] - TCP_HEADER


def host_address(prefix: str, server_id: int) -> str:
    """The address of a server in ``prefix``: network + id, so ``10.77.0.0/24`` and 3 give 10.77.0.3.

    The network address and, on both families, the last address of the prefix belong to nobody.
    """
    inside = network(prefix)
    if _id(server_id) > inside.size - 2:
        raise ValueError(f"server id {server_id} does not fit in {prefix}: the highest is {inside.size - 2}")
    return numbered(inside.first + server_id, inside.version)


def highest_server_id(prefix: str) -> int:
    """The highest id that ``host_address`` takes for ``prefix``: 254 for a /24."""
    return max(0, min(int(network(prefix).size) - 2, HIGHEST_SERVER_ID))


def session_prefix(pool: str, prefix_length: int, server_id: int) -> str:
    """The part of ``pool`` from which server ``server_id`` gives session addresses to its clients.

    The pool is cut in parts of ``prefix_length`` and the id counts them from 0, so pool 10.1.0.0/16, length 24 and
    id 7 give 10.1.7.0/24, as in the source document.
    """
    if _id(server_id) > highest_session_id(pool, prefix_length):
        raise ValueError(
            f"server id {server_id} does not fit in {pool} cut in /{prefix_length}: "
            f"the highest is {highest_session_id(pool, prefix_length)}"
        )
    whole = network(pool)
    size = 1 << (ADDRESS_BITS[whole.version] - prefix_length)
    return f"{numbered(whole.first + server_id * size, whole.version)}/{prefix_length}"


def highest_session_id(pool: str, prefix_length: int) -> int:
    """The highest id that ``session_prefix`` takes for this pool and length: 255 for a /16 cut in /24."""
    whole = network(pool)
    if not whole.prefixlen <= prefix_length <= ADDRESS_BITS[whole.version]:
        raise ValueError(f"{pool} cannot be cut in /{prefix_length}")
    return min((1 << (prefix_length - int(whole.prefixlen))) - 1, HIGHEST_SERVER_ID)


def client_address(prefix: str, name: str) -> str:
    """The tunnel address of the client called ``name``: the name's SHA-256 folded into ``prefix``.

    It depends on no other client, so adding or removing one moves nobody. Two names can meet; the inventory check
    finds that. Never the network address, nor the one after it, nor the last address of the prefix.
    """
    if not name:
        raise ValueError(f"a client needs a name: {name!r}")
    inside = network(prefix)
    if inside.size < 4:
        raise ValueError(f"client prefix {prefix} has no room for a client")
    digest = int.from_bytes(hashlib.sha256(name.encode()).digest(), "big")
    return numbered(inside.first + 2 + digest % (inside.size - 3), inside.version)


def _id(server_id: int) -> int:
    if isinstance(server_id, bool) or not isinstance(server_id, int):
        raise ValueError(f"a server id is a whole number: {server_id!r}")
    if not 1 <= server_id <= HIGHEST_SERVER_ID:
        raise ValueError(f"server id {server_id} is not between 1 and {HIGHEST_SERVER_ID}")
    return server_id


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()
