# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is said to the kernel's WireGuard. That the kernel understands it, the scenario ``kernel`` shows."""

from __future__ import annotations

import base64
import errno
import struct

import pytest

from ansible_collections.warren.vpn.plugins.module_utils import _host, _netlink

KEY, PSK = (base64.b64encode(bytes([number]) * 32).decode() for number in (1, 2))
MOST = 65535  # of an attribute's length


class Kernel(_netlink.WireGuard):
    """A conversation whose other end is the test."""

    def __init__(self, refusal: int = 0) -> None:
        self._family, self.refusal, self.bodies = 30, refusal, []

    def _ask(self, family: int, command: int, body: bytes, flags: int) -> bytes:
        assert (family, command, flags) == (30, _netlink.WG_CMD_SET_DEVICE, _netlink.NLM_F_ACK)
        if self.refusal:
            raise OSError(self.refusal, "No such device")
        self.bodies.append(_netlink.attributes(body))
        return b""


def nested(data: bytes) -> list[bytes]:
    """The attributes of a list, whose kinds mean nothing."""
    found, at = [], 0
    while at < len(data):
        length = struct.unpack_from("=H", data, at)[0]
        found.append(data[at + 4 : at + length])
        at += (length + 3) & ~3
    return found


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        ("198.51.100.12:20001", b"\x02\0" + b"\x4e\x21" + bytes([198, 51, 100, 12]) + bytes(8)),
        ("[2001:db8::1]:9", b"\x0a\0" + b"\0\x09" + bytes(4) + b"\x20\x01\x0d\xb8" + bytes(11) + b"\1" + bytes(4)),
    ],
)
def test_a_peer(endpoint: str, expected: bytes) -> None:
    told = _netlink.attributes(_netlink.peer(KEY, PSK, endpoint, ["10.77.0.2/32", "fd57::/64"], 25))
    assert told[_netlink.WGPEER_A_PUBLIC_KEY] == bytes([1]) * 32
    assert told[_netlink.WGPEER_A_PRESHARED_KEY] == bytes([2]) * 32
    assert told[_netlink.WGPEER_A_ENDPOINT] == expected
    assert told[_netlink.WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL] == struct.pack("=H", 25)
    assert told[_netlink.WGPEER_A_FLAGS] == struct.pack("=I", _netlink.WGPEER_F_REPLACE_ALLOWEDIPS)
    networks = [_netlink.attributes(one) for one in nested(told[_netlink.WGPEER_A_ALLOWEDIPS])]
    assert [network[_netlink.WGALLOWEDIP_A_CIDR_MASK] for network in networks] == [b"\x20", b"\x40"]
    assert networks[0][_netlink.WGALLOWEDIP_A_IPADDR] == bytes([10, 77, 0, 2])


def test_no_key_takes_one_away_and_no_endpoint_leaves_it() -> None:
    told = _netlink.attributes(_netlink.peer(KEY, "", "", [], 0))
    assert told[_netlink.WGPEER_A_PRESHARED_KEY] == bytes(32)
    assert _netlink.WGPEER_A_ENDPOINT not in told


def test_many_peers_are_as_many_messages_as_it_takes_and_the_interfaces_own_is_in_the_first() -> None:
    kernel = Kernel()
    peers = [
        _netlink.peer(KEY, PSK, "198.51.100.12:20001", ["10.77.0.2/32", "fd57::2/128"], 25) for _number in range(1000)
    ]
    kernel.set_device("wg0ctl", private_key=f"{KEY}\n", listen_port=20000, peers=peers)
    lists = [body[_netlink.WGDEVICE_A_PEERS] for body in kernel.bodies]
    assert [one for listed in lists for one in nested(listed)] == peers
    assert 1 < len(lists) < 10
    assert max(map(len, lists)) < MOST
    assert {body[_netlink.WGDEVICE_A_IFNAME] for body in kernel.bodies} == {b"wg0ctl\0"}
    assert [_netlink.WGDEVICE_A_PRIVATE_KEY in body for body in kernel.bodies] == [True] + [False] * (len(lists) - 1)


def test_what_the_kernel_does_not_take_is_one_clear_error_without_a_secret() -> None:
    with pytest.raises(_host.NetworkError) as caught:
        Kernel(errno.ENODEV).set_device("wg0ctl", private_key=KEY)
    assert str(caught.value) == "WireGuard does not take the settings of wg0ctl: No such device"
