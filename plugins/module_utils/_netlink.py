# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# PRIVATE to the collection, and installed on every server as part of the engine that restores its network at boot:
# standard library and relative imports only.
"""The kernel's WireGuard over generic netlink: any number of links and peers in one conversation.

``wg`` would be a process for each link. Message and attribute numbers are those of include/uapi/linux/wireguard.h,
genetlink.h and netlink.h; the framing is netlink(7)'s.
"""

from __future__ import annotations

import binascii
import os
import socket
import struct
from collections.abc import Iterable

from . import _host

NETLINK_GENERIC = 16
NLM_F_REQUEST, NLM_F_ACK = 1, 4
NLMSG_ERROR = 2
NLA_F_NESTED = 0x8000
GENL_ID_CTRL, CTRL_CMD_GETFAMILY, CTRL_ATTR_FAMILY_ID, CTRL_ATTR_FAMILY_NAME = 16, 3, 1, 2

WG_CMD_SET_DEVICE = 1
WGDEVICE_A_IFNAME, WGDEVICE_A_PRIVATE_KEY, WGDEVICE_A_LISTEN_PORT, WGDEVICE_A_FWMARK, WGDEVICE_A_PEERS = 2, 3, 6, 7, 8
WGPEER_A_PUBLIC_KEY, WGPEER_A_PRESHARED_KEY, WGPEER_A_FLAGS, WGPEER_A_ENDPOINT = 1, 2, 3, 4
WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL, WGPEER_A_ALLOWEDIPS = 5, 9
WGPEER_F_REMOVE_ME, WGPEER_F_REPLACE_ALLOWEDIPS = 1, 2
WGALLOWEDIP_A_FAMILY, WGALLOWEDIP_A_IPADDR, WGALLOWEDIP_A_CIDR_MASK = 1, 2, 3

# All peers of a message are in one attribute, whose length is a 16-bit number.
MAX_PEERS_BYTES = 60000


class WireGuard:
    """A conversation with the kernel's WireGuard."""

    def __init__(self) -> None:
        """Open the conversation.

        Raises:
            NetworkError: the kernel has no WireGuard.
        """
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_GENERIC)
        self._number = 0
        name = attribute(CTRL_ATTR_FAMILY_NAME, b"wireguard\0")
        self._family = 0
        try:
            answer = self._ask(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, name, 0)
        except OSError as error:
            self._socket.close()
            raise _host.NetworkError(f"the kernel has no WireGuard: {error.strerror}") from error
        self._family = struct.unpack("=H", attributes(answer)[CTRL_ATTR_FAMILY_ID])[0]

    def close(self) -> None:
        """End the conversation."""
        self._socket.close()

    def set_device(
        self,
        interface: str,
        private_key: str | None = None,
        listen_port: int | None = None,
        peers: Iterable[bytes] = (),
        fwmark: int | None = None,
    ) -> None:
        """Change a WireGuard interface; what is not given stays.

        Args:
            interface: its name.
            private_key: base64.
            listen_port: UDP port.
            peers: from :func:`peer` and :func:`no_peer`; the others stay as they are.
            fwmark: the mark of the interface's own packets, 0 for none.

        Raises:
            NetworkError: the kernel refuses; the message has the interface and the reason.
        """
        own = b""
        if private_key is not None:
            own += attribute(WGDEVICE_A_PRIVATE_KEY, key(private_key))
        if listen_port is not None:
            own += attribute(WGDEVICE_A_LISTEN_PORT, struct.pack("=H", listen_port))
        if fwmark is not None:
            own += attribute(WGDEVICE_A_FWMARK, struct.pack("=I", fwmark))
        for batch in _batches(peers):
            name = attribute(WGDEVICE_A_IFNAME, f"{interface}\0".encode())
            listed = attribute(WGDEVICE_A_PEERS | NLA_F_NESTED, batch) if batch else b""
            try:
                self._ask(self._family, WG_CMD_SET_DEVICE, name + own + listed, NLM_F_ACK)
            except OSError as error:
                raise _host.NetworkError(
                    f"WireGuard does not take the settings of {interface}: {error.strerror}"
                ) from error
            own = b""

    def _ask(self, family: int, command: int, body: bytes, flags: int) -> bytes:
        """Send one message and return the attributes of the answer, empty for an acknowledgement.

        Raises:
            OSError: the kernel's answer is an error.
        """
        self._number += 1
        header = struct.pack("=IHHII", 20 + len(body), family, NLM_F_REQUEST | flags, self._number, 0)
        self._socket.send(header + struct.pack("=BBH", command, 1, 0) + body)
        answer = self._socket.recv(65536)
        if struct.unpack_from("=H", answer, 4)[0] == NLMSG_ERROR:
            number = -struct.unpack_from("=i", answer, 16)[0]
            if number:
                raise OSError(number, os.strerror(number))
            return b""
        return answer[20:]


def attribute(kind: int, value: bytes) -> bytes:
    """A netlink attribute, padded to a multiple of 4."""
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def attributes(data: bytes) -> dict[int, bytes]:
    """Netlink attributes by kind."""
    found, at = {}, 0
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        found[kind & 0x3FFF] = data[at + 4 : at + length]
        at += max((length + 3) & ~3, 4)
    return found


def key(text: str) -> bytes:
    """The 32 bytes of a key in base64."""
    return binascii.a2b_base64(text)


def no_peer(public_key: str) -> bytes:
    """A peer to remove."""
    return attribute(WGPEER_A_PUBLIC_KEY, key(public_key)) + attribute(
        WGPEER_A_FLAGS, struct.pack("=I", WGPEER_F_REMOVE_ME)
    )


def peer(public_key: str, preshared_key: str, endpoint: str, allowed_ips: Iterable[str], keepalive: int) -> bytes:
    """A peer with all that is wanted of it; its session goes on.

    Args:
        public_key, preshared_key: base64; an empty pre-shared key takes the one it has away.
        endpoint: ``address:port`` or ``[address]:port``; empty leaves it where it is.
        allowed_ips: networks, instead of those it has.
        keepalive: seconds, 0 for off.
    """
    secret = key(preshared_key) if preshared_key else bytes(32)
    networks = b"".join(attribute(NLA_F_NESTED, _allowed(text)) for text in allowed_ips)
    return b"".join(
        (
            attribute(WGPEER_A_PUBLIC_KEY, key(public_key)),
            attribute(WGPEER_A_FLAGS, struct.pack("=I", WGPEER_F_REPLACE_ALLOWEDIPS)),
            attribute(WGPEER_A_PRESHARED_KEY, secret),
            attribute(WGPEER_A_ENDPOINT, _socket_address(endpoint)) if endpoint else b"",
            attribute(WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL, struct.pack("=H", keepalive)),
            attribute(WGPEER_A_ALLOWEDIPS | NLA_F_NESTED, networks),
        )
    )


def _allowed(text: str) -> bytes:
    address, length = text.split("/")
    family, packed = _packed(address)
    return (
        attribute(WGALLOWEDIP_A_FAMILY, struct.pack("=H", family))
        + attribute(WGALLOWEDIP_A_IPADDR, packed)
        + attribute(WGALLOWEDIP_A_CIDR_MASK, struct.pack("=B", int(length)))
    )


def _socket_address(endpoint: str) -> bytes:
    """A sockaddr_in or sockaddr_in6 (ip(7), ipv6(7))."""
    address, _colon, port = endpoint.rpartition(":")
    family, packed = _packed(address.strip("[]"))
    start = struct.pack("=H", family) + struct.pack("!H", int(port))
    return start + packed + bytes(8) if family == socket.AF_INET else start + bytes(4) + packed + bytes(4)


def _packed(address: str) -> tuple[int, bytes]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return family, socket.inet_pton(family, address)


def _batches(peers: Iterable[bytes]) -> Iterable[bytes]:
    """The peers as nested attributes, as many to a message as fit; one empty message for none."""
    batch = b""
    for one in peers:
        nested = attribute(NLA_F_NESTED, one)
        if batch and len(batch) + len(nested) > MAX_PEERS_BYTES:
            yield batch
            batch = b""
        batch += nested
    yield batch
