# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# PRIVATE to the collection, and installed on every server as part of the engine that restores its network at boot:
# standard library and relative imports only.
"""What a link is: the data that travels to a host, that is on record there, and that a live link is read into."""

from __future__ import annotations

import functools
import ipaddress
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from . import _host

WIREGUARD = "wireguard"

# What a link, a route and a peer consist of, as plain data.
LINK_KEYS = frozenset(
    (
        *("name", "kind", "purpose", "public_key", "listen_port", "fwmark", "mtu", "group", "settings"),
        *("addresses", "routes", "peers"),
    )
)
ROUTE_KEYS = frozenset(("destination", "table", "gateway", "source", "metric", "type"))
PEER_KEYS = frozenset(("name", "public_key", "preshared_key", "endpoint", "allowed_ips", "keepalive", "watched"))

# WireGuard gives up a session 180 s after its last handshake (whitepaper 6.1, Reject-After-Time).
ALIVE_SECONDS = 180


@dataclass(frozen=True)
class Peer:
    """One peer of a link.

    Attributes:
        name: who it is, for people; not known to WireGuard.
        public_key: base64.
        preshared_key: base64, or empty for none.
        endpoint: ``address:port``, ``[address]:port`` or, of a wanted peer, ``name:port``; empty where it comes to us.
        allowed_ips: networks in canonical form, sorted.
        keepalive: seconds, 0 for off.
        watched: whether it is a server that has to answer after a change as it did before.
        handshake: of a live peer, seconds since 1970 of the last handshake, 0 for never.
        may_roam: of a live peer, whether it may be elsewhere than wanted: not when another endpoint is wanted now.
    """

    name: str
    public_key: str
    preshared_key: str
    endpoint: str
    allowed_ips: tuple[str, ...]
    keepalive: int
    watched: bool = False
    handshake: int = 0
    may_roam: bool = True

    @property
    def alive(self) -> bool:
        """Whether the peer's session is in force."""
        return time.time() - self.handshake < ALIVE_SECONDS

    def like(self, wanted: Peer) -> bool:
        """Whether a live peer needs no change.

        A peer that roamed keeps its endpoint for as long as it answers there: taking it back would break the session.
        """
        here = (self.preshared_key, self.allowed_ips, self.keepalive)
        return here == (wanted.preshared_key, wanted.allowed_ips, wanted.keepalive) and (
            not wanted.endpoint or self.endpoint == wanted.endpoint or (self.alive and self.may_roam)
        )


@dataclass(frozen=True)
class Route:
    """A route, in the words of ip-route(8).

    Attributes:
        destination: a network in canonical form.
        table: the routing table, ``main`` or a number.
        gateway: the address of the next hop, or empty.
        source: the address that the host's own packets have there, or empty.
        metric: 0 for the kernel's own.
        type: what becomes of packets where it leads nowhere, such as ``blackhole``; empty for one into a link.
    """

    destination: str
    table: str = "main"
    gateway: str = ""
    source: str = ""
    metric: int = 0
    type: str = ""

    def __str__(self) -> str:
        """As ``ip route`` takes it, without the interface."""
        words = [
            *([self.type] if self.type else []),
            self.destination,
            *(["via", self.gateway] if self.gateway else []),
        ]
        words += ["table", self.table, *(["src", self.source] if self.source else [])]
        return " ".join(words + (["metric", str(self.metric)] if self.metric else []))


@dataclass(frozen=True)
class Link:
    """A tunnel interface of this host.

    Attributes:
        name: interface name.
        purpose: which private key it has: ``/etc/warren/keys/<purpose>.key``.
        public_key: the key that the inventory has on record for this host and purpose.
        listen_port: UDP port, 0 for any.
        mtu: bytes.
        addresses: ``address/length``, sorted.
        routes: routes into it besides those of its addresses.
        peers: by public key.
        up: of a live link, whether it is up.
        userspace: of a live link, whether a process of its own runs it, and not the kernel.
        group: device group (ip-link(8)), by which firewall rules know what kind of link this is; 0 for none.
        fwmark: the mark that the link's own packets leave with (wg(8)); 0 for none.
        settings: of a wanted link, the kernel settings of the interface, such as ``ipv4/rp_filter`` (ip-sysctl).
        kind: what makes it, one of the engine's kinds of link.
    """

    name: str
    purpose: str
    public_key: str
    listen_port: int
    mtu: int
    addresses: tuple[str, ...]
    routes: frozenset[Route]
    peers: Mapping[str, Peer] = field(default_factory=dict)
    up: bool = True
    userspace: bool = False
    group: int = 0
    fwmark: int = 0
    settings: Mapping[str, str] = field(default_factory=dict)
    kind: str = WIREGUARD


@functools.cache  # the same network is read from what is wanted, recorded and live
def network(text: str) -> str:
    """A network as ``wg`` and ``ip -json`` print it: host bits cleared, always with a length."""
    return str(ipaddress.ip_network(text, strict=False))


def address(value: object) -> str:
    """An address in canonical form; empty for none."""
    return str(ipaddress.ip_address(str(value))) if value else ""


def has_name(endpoint: str) -> bool:
    """Whether an endpoint has a DNS name and not an address."""
    host = endpoint.rpartition(":")[0].strip("[]")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return bool(host)
    return False


def addresses_of(endpoint: str) -> list[str]:
    """The endpoints that the name of one stands for now, as this host resolves it; none if it cannot."""
    host, _colon, port = endpoint.rpartition(":")
    try:
        found = socket.getaddrinfo(host, int(port), type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError):
        return []
    addresses = dict.fromkeys(str(address[0]) for _family, _kind, _protocol, _name, address in found)
    return [f"[{address}]:{port}" if ":" in address else f"{address}:{port}" for address in addresses]


def single_addresses(networks: Iterable[str]) -> list[str]:
    """The networks of one address, as addresses."""
    return [text.partition("/")[0] for text in networks if text.endswith("/128" if ":" in text else "/32")]


def link_from(data: Mapping[str, object]) -> Link:
    """A wanted link from the plain data that the module is given and that ``network.json`` holds.

    Raises:
        NetworkError: something is missing or of the wrong form.
    """
    try:
        _only(data, LINK_KEYS)
        peers = [_peer_from(peer) for peer in dicts(data.get("peers", []))]
        routes = [route_from(route) for route in dicts(data.get("routes", []))]
        return Link(
            name=str(data["name"]),
            purpose=str(data["purpose"]),
            public_key=str(data["public_key"]),
            listen_port=int(str(data.get("listen_port") or 0)),
            mtu=int(str(data["mtu"])),
            addresses=tuple(sorted(str(ipaddress.ip_interface(text)) for text in strings(data["addresses"]))),
            routes=frozenset(routes),
            peers={peer.public_key: peer for peer in peers},
            group=int(str(data.get("group") or 0)),
            fwmark=int(str(data.get("fwmark") or 0)),
            settings={str(key): str(value) for key, value in _map(data.get("settings")).items()},
            kind=str(data.get("kind") or WIREGUARD),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _host.NetworkError(f"link {data.get('name', '?')} is not as it should be: {error!r}") from error


def _only(data: Mapping[str, object], known: frozenset[str]) -> None:
    if data.keys() - known:
        raise ValueError(f"it has no {', '.join(sorted(data.keys() - known))}")


def route_from(data: Mapping[str, object]) -> Route:
    """A route from plain data.

    Raises:
        KeyError, TypeError, ValueError: something is missing or of the wrong form.
    """
    _only(data, ROUTE_KEYS)
    return Route(
        destination=network(str(data["destination"])),
        table=str(data.get("table") or "main"),
        gateway=address(data.get("gateway")),
        source=address(data.get("source")),
        metric=int(str(data.get("metric") or 0)),
        type=str(data.get("type") or ""),
    )


def _peer_from(data: Mapping[str, object]) -> Peer:
    _only(data, PEER_KEYS)
    return Peer(
        name=str(data.get("name") or ""),
        public_key=str(data["public_key"]),
        preshared_key=str(data.get("preshared_key") or ""),
        endpoint=str(data.get("endpoint") or ""),
        allowed_ips=tuple(sorted(network(text) for text in strings(data["allowed_ips"]))),
        keepalive=int(str(data.get("keepalive") or 0)),
        watched=bool(data.get("watched")),
    )


def _map(value: object) -> Mapping[str, object]:
    if not isinstance(value or {}, dict):
        raise TypeError("a map was expected")
    return value or {}  # type: ignore[return-value]


def dicts(value: object) -> Sequence[Mapping[str, object]]:
    """A value of unknown type as a list of maps.

    Raises:
        TypeError: it is something else. The message does not show it.
    """
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise TypeError("a list of maps was expected")
    return value


def strings(value: object) -> Sequence[str]:
    """A value of unknown type as a list of texts.

    Raises:
        TypeError: it is something else.
    """
    if not isinstance(value, list):
        raise TypeError(f"a list was expected, not {value!r}")
    return [str(item) for item in value]


def describe(link: Link, live: Link | None = None) -> list[str]:
    """A link as lines of text to show and to compare, without a secret.

    Args:
        link: a live link, or a wanted one.
        live: with a wanted link, the live one: a peer that needs no change is described as it is.
    """
    port = link.listen_port or (live.listen_port if live else 0)
    lines = [
        f"  public key {link.public_key}",
        f"  listening port {port or 'any'}",
        *([f"  mark of its own packets {link.fwmark:#x}"] if link.fwmark else []),
        f"  mtu {link.mtu}, group {link.group:#x}, {'up' if link.up else 'down'}",
        *(f"  address {address}" for address in link.addresses),
        *sorted(f"  route {route}" for route in link.routes),
    ]
    for key in sorted(link.peers, key=lambda key: (link.peers[key].name, key)):
        peer = link.peers[key]
        here = live.peers.get(key) if live else None
        endpoint = here.endpoint if here and here.like(peer) else peer.endpoint
        psk = "set" if peer.preshared_key else "none"
        if here and here.preshared_key != peer.preshared_key and here.preshared_key and peer.preshared_key:
            psk = "set, another one"
        lines += [
            f"  peer {key}{f' ({peer.name})' if peer.name else ''}",
            f"    pre-shared key {psk}",
            f"    endpoint {endpoint or 'any'}",
            f"    allowed {', '.join(peer.allowed_ips)}",
            f"    keepalive {peer.keepalive}",
        ]
    return lines
