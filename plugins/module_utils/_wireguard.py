# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# PRIVATE to the collection, and installed on every server as part of the engine that restores its network at boot:
# standard library and relative imports only.
"""WireGuard links of this host: what is live, and the steps from there to what is wanted.

``wg`` speaks to the kernel and to userspace WireGuard alike (wg(8)), and reads all links in one process. To change them
it takes one or two for each link, so the kernel is spoken to directly. Userspace WireGuard is a process a link anyway.
"""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import json
import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from . import _host, _netlink

KEY_DIR = _host.STATE_DIR / "keys"

# Marks an interface as ours, whatever becomes of our files (ip-link(8): alias).
ALIAS = "warren.vpn"

# Marks a route as ours. 0-4 are the kernel's, the rest is free to use (rtnetlink(7): rtm_protocol).
ROUTE_PROTOCOL = "119"

# What a link, a route and a peer consist of, as plain data.
LINK_KEYS = frozenset(
    ("name", "purpose", "public_key", "listen_port", "mtu", "group", "mark", "gated", "addresses", "routes", "peers")
)
ROUTE_KEYS = frozenset(("destination", "table"))
PEER_KEYS = frozenset(("name", "public_key", "preshared_key", "endpoint", "allowed_ips", "keepalive"))

# WireGuard gives up a session 180 s after its last handshake (whitepaper 6.1, Reject-After-Time).
ALIVE_SECONDS = 180


@dataclass(frozen=True)
class Peer:
    """One peer of a link.

    Attributes:
        name: who it is, for people; not known to WireGuard.
        public_key: base64.
        preshared_key: base64, or empty for none.
        endpoint: ``address:port`` or ``[address]:port``, or empty where the peer comes to us.
        allowed_ips: networks in canonical form, sorted.
        keepalive: seconds, 0 for off.
        handshake: of a live peer, seconds since 1970 of the last handshake, 0 for never.
        may_roam: of a live peer, whether it may be elsewhere than wanted: not when another endpoint is wanted now.
    """

    name: str
    public_key: str
    preshared_key: str
    endpoint: str
    allowed_ips: tuple[str, ...]
    keepalive: int
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
    """A route into a link.

    Attributes:
        destination: a network in canonical form.
        table: the routing table, ``main`` or a number.
    """

    destination: str
    table: str = "main"


@dataclass(frozen=True)
class Link:
    """A WireGuard interface.

    Attributes:
        name: interface name.
        purpose: which private key it has: ``/etc/warren/keys/<purpose>.key``.
        public_key: the key that the inventory has on record for this host and purpose.
        listen_port: UDP port.
        mtu: bytes.
        addresses: ``address/length``, sorted.
        routes: routes into it besides those of its addresses.
        peers: by public key.
        up: of a live link, whether it is up.
        userspace: of a live link, whether a process of its own runs it, and not the kernel.
        group: device group (ip-link(8)), by which firewall rules know what kind of link this is; 0 for none.
        mark: of a wanted link, the mark of the packets that take the routes of its table; 0 for none.
        gated: of a wanted link, whether what comes in goes on to another host only if a firewall rule has approved it.
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
    mark: int = 0
    gated: bool = False


@functools.cache  # the same network is read from what is wanted, recorded and live
def network(text: str) -> str:
    """A network as ``wg`` and ``ip -json`` print it: host bits cleared, always with a length."""
    return str(ipaddress.ip_network(text, strict=False))


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
        routes = [_route_from(route) for route in dicts(data.get("routes", []))]
        return Link(
            name=str(data["name"]),
            purpose=str(data["purpose"]),
            public_key=str(data["public_key"]),
            listen_port=int(str(data["listen_port"])),
            mtu=int(str(data["mtu"])),
            addresses=tuple(sorted(str(ipaddress.ip_interface(text)) for text in strings(data["addresses"]))),
            routes=frozenset(routes),
            peers={peer.public_key: peer for peer in peers},
            group=int(str(data.get("group") or 0)),
            mark=int(str(data.get("mark") or 0)),
            gated=bool(data.get("gated")),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _host.NetworkError(f"link {data.get('name', '?')} is not as it should be: {error!r}") from error


def _only(data: Mapping[str, object], known: frozenset[str]) -> None:
    if data.keys() - known:
        raise ValueError(f"it has no {', '.join(sorted(data.keys() - known))}")


def _route_from(data: Mapping[str, object]) -> Route:
    _only(data, ROUTE_KEYS)
    return Route(network(str(data["destination"])), str(data.get("table") or "main"))


def _peer_from(data: Mapping[str, object]) -> Peer:
    _only(data, PEER_KEYS)
    return Peer(
        name=str(data.get("name") or ""),
        public_key=str(data["public_key"]),
        preshared_key=str(data.get("preshared_key") or ""),
        endpoint=str(data.get("endpoint") or ""),
        allowed_ips=tuple(sorted(network(text) for text in strings(data["allowed_ips"]))),
        keepalive=int(str(data.get("keepalive") or 0)),
    )


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


# --- keys ----------------------------------------------------------------------------------------------------------


def key_path(purpose: str) -> Path:
    """The file of the private key for a purpose."""
    return KEY_DIR / f"{purpose}.key"


def next_key_path(purpose: str) -> Path:
    """The file of the private key that a rotation has made, and that takes over once its public key is on record."""
    return KEY_DIR / f"{purpose}.key.next"


def public_key_of(path: Path) -> str:
    """The public key of a private key's file; empty where there is no such file."""
    private_key = _host.read(path)
    return _host.run(["wg", "pubkey"], private_key).strip() if private_key else ""


def make_key(path: Path) -> str:
    """Make a private key in a file and return its public key."""
    KEY_DIR.mkdir(parents=True, exist_ok=True, mode=0o700)
    _host.write(path, _host.run(["wg", "genkey"]))
    return public_key_of(path)


def check_keys(links: Iterable[Link], adopt: bool) -> list[str]:
    """Hold the private keys of this host against the public keys on record.

    Args:
        links: the wanted links.
        adopt: put a rotated key in its place where the record names it; False only looks.

    Returns:
        The purposes whose key a rotation replaces.

    Raises:
        NetworkError: a key on record is not this host's.
    """
    adopted = []
    for purpose, public_key in sorted({(link.purpose, link.public_key) for link in links}):
        path, successor = key_path(purpose), next_key_path(purpose)
        if public_key_of(path) == public_key:
            continue
        if public_key_of(successor) != public_key:
            raise _host.NetworkError(
                f"the public key on record for {purpose}, warren_public_keys = {public_key}, is not that of {path}. "
                "If the host was set up anew, take it out of warren_public_keys and run site.yml again to enrol it; "
                "otherwise put its old key back."
            )
        adopted.append(purpose)
        if adopt:
            successor.replace(path)
    return adopted


# --- the live side -------------------------------------------------------------------------------------------------


def live_links() -> dict[str, Link]:
    """The WireGuard links of this host that are ours, as they are now, by name."""
    found = _interfaces()
    routes = _routes()
    peers, ports, keys = _dump()
    return {
        name: Link(
            name=name,
            purpose=str(data["ifalias"]).partition(" ")[2],
            public_key=keys.get(name, ""),
            listen_port=ports.get(name, 0),
            mtu=int(str(data["mtu"])),
            addresses=_addresses(data),
            routes=frozenset(routes.get(name, ())),
            peers=peers.get(name, {}),
            up="UP" in str(data["flags"]),
            userspace=_kind(data) != "wireguard",
            group=_group(data),
        )
        for name, data in found.items()
        if str(data.get("ifalias", "")).startswith(ALIAS)
    }


def foreign_interfaces() -> set[str]:
    """The names of all interfaces of this host that are not ours."""
    return {name for name, data in _interfaces().items() if not str(data.get("ifalias", "")).startswith(ALIAS)}


def _interfaces() -> dict[str, Mapping[str, object]]:
    return {str(data["ifname"]): data for data in json.loads(_host.run(["ip", "-json", "-details", "address"]) or "[]")}


def _kind(data: Mapping[str, object]) -> str:
    details = data.get("linkinfo")
    return str(details.get("info_kind", "")) if isinstance(details, dict) else ""


def _group(data: Mapping[str, object]) -> int:
    """The number of an interface's group; that of a name that somebody gave it (/etc/iproute2/group) is not ours."""
    text = str(data.get("group", ""))
    return int(text) if text.isdigit() else 0


def _addresses(data: Mapping[str, object]) -> tuple[str, ...]:
    return tuple(
        sorted(
            f"{address['local']}/{address['prefixlen']}"
            for address in dicts(data.get("addr_info", []))
            if address.get("scope") != "link" and "local" in address
        )
    )


def _routes() -> dict[str, set[Route]]:
    routes: dict[str, set[Route]] = {}
    for family in ("-4", "-6"):
        listing = _host.run(["ip", family, "-json", "route", "show", "table", "all", "proto", ROUTE_PROTOCOL])
        for route in json.loads(listing or "[]"):
            destination = {"-4": "0.0.0.0/0", "-6": "::/0"}[family] if route["dst"] == "default" else route["dst"]
            found = Route(network(destination), str(route.get("table", "main")))
            routes.setdefault(str(route.get("dev")), set()).add(found)
    return routes


def _dump() -> tuple[dict[str, dict[str, Peer]], dict[str, int], dict[str, str]]:
    """What ``wg show all dump`` prints (wg(8)): one line of 5 fields an interface, one of 9 a peer."""
    peers: dict[str, dict[str, Peer]] = {}
    ports: dict[str, int] = {}
    keys: dict[str, str] = {}
    for line in _host.run(["wg", "show", "all", "dump"]).splitlines():
        fields = [("" if text in ("(none)", "off") else text) for text in line.split("\t")]
        if len(fields) == 5:
            keys[fields[0]], ports[fields[0]] = fields[2], int(fields[3])
            continue
        link, public_key, preshared_key, endpoint, allowed_ips, handshake = fields[:6]
        peers.setdefault(link, {})[public_key] = Peer(
            name="",
            public_key=public_key,
            preshared_key=preshared_key,
            endpoint=endpoint,
            allowed_ips=tuple(sorted(network(text) for text in allowed_ips.split(",") if text)),
            keepalive=int(fields[8] or 0),
            handshake=int(handshake),
        )
    return peers, ports, keys


# --- making and changing -------------------------------------------------------------------------------------------


def kernel_has_wireguard() -> bool:
    """Whether this host's kernel makes WireGuard interfaces, found out by making one in an empty network namespace."""
    if Path("/sys/module/wireguard").is_dir():
        return True
    if _host.missing_packages({"ip": "iproute2"}):
        # To be installed first. Until then the module on disk has to do as a sign.
        modules = Path("/lib/modules", os.uname().release)
        listed = [_host.read(modules / name) or "" for name in ("modules.dep", "modules.builtin")]
        return any("/wireguard.ko" in text for text in listed)
    return not _host.attempt(["unshare", "--net", "ip", "link", "add", "probe", "type", "wireguard"]).returncode


def create(links: Sequence[Link], userspace: bool) -> None:
    """Make links' interfaces, without address or peer."""
    lines = []
    for link in links:
        if userspace:
            _start(link.name)
        else:
            lines.append(f"link add dev {link.name} type wireguard")
        lines.append(f'link set dev {link.name} alias "{ALIAS} {link.purpose}"')
    batch({"-4": lines})


def _start(name: str) -> None:
    _host.run(["systemctl", "start", unit(name)])
    if not _answers(name):
        # Seen on a busy machine: it hangs, and the next one does not.
        _host.run(["systemctl", "restart", unit(name)])
        if not _answers(name):
            raise _host.NetworkError(f"{unit(name)} did not bring up {name}: see journalctl --unit {unit(name)}")


def unit(name: str) -> str:
    """The systemd unit that runs a link's userspace WireGuard."""
    return f"warren-wireguard-go@{name}.service"


def _answers(name: str, seconds: float = 10) -> bool:
    """Wait until userspace WireGuard answers for an interface; whether it does."""
    deadline = time.monotonic() + seconds
    while _host.attempt(["wg", "show", name, "listen-port"]).returncode:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def remove(name: str) -> None:
    """Remove a link and all it has."""
    if not _host.attempt(["systemctl", "is-active", "--quiet", unit(name)]).returncode:
        _host.run(["systemctl", "stop", unit(name)])
    _host.attempt(["ip", "link", "delete", "dev", name])


def configure(pairs: Sequence[tuple[Link, Link]]) -> None:
    """Change what differs in links' keys, ports and peers; every other peer keeps its session.

    Args:
        pairs: of each link, what is wanted and what is live.
    """
    in_kernel = [(wanted, here) for wanted, here in pairs if not here.userspace]
    if in_kernel:
        with contextlib.closing(_netlink.WireGuard()) as kernel:
            for wanted, here in in_kernel:
                _configure(kernel, wanted, here)
    for wanted, here in pairs:
        if here.userspace:
            _configure_userspace(wanted, here)


def _own_side_differs(wanted: Link, here: Link) -> bool:
    return here.public_key != wanted.public_key or here.listen_port != wanted.listen_port


def _peers_gone(wanted: Link, here: Link) -> list[str]:
    return [key for key in here.peers if key not in wanted.peers]


def _peers_due(wanted: Link, here: Link) -> list[Peer]:
    return [peer for key, peer in wanted.peers.items() if key not in here.peers or not here.peers[key].like(peer)]


def _configure(kernel: _netlink.WireGuard, wanted: Link, here: Link) -> None:
    peers = [_netlink.no_peer(key) for key in _peers_gone(wanted, here)]
    for peer in _peers_due(wanted, here):
        settings = (peer.preshared_key, peer.endpoint, peer.allowed_ips, peer.keepalive)
        peers.append(_netlink.peer(peer.public_key, *settings))
    if _own_side_differs(wanted, here):
        private_key = _host.read(key_path(wanted.purpose)) or ""
        kernel.set_device(wanted.name, private_key, wanted.listen_port, peers)
    elif peers:
        kernel.set_device(wanted.name, peers=peers)


def _configure_userspace(wanted: Link, here: Link) -> None:
    if _own_side_differs(wanted, here):
        key = str(key_path(wanted.purpose))
        _host.run(["wg", "set", wanted.name, "listen-port", str(wanted.listen_port), "private-key", key])
    gone = _peers_gone(wanted, here)
    for some in (gone[start : start + 100] for start in range(0, len(gone), 100)):
        _host.run(["wg", "set", wanted.name, *(word for key in some for word in ("peer", key, "remove"))])
    due = _peers_due(wanted, here)
    if due:
        _host.run(["wg", "addconf", wanted.name, "/dev/stdin"], "".join(_stanza(peer) for peer in due))


def _stanza(peer: Peer) -> str:
    """A peer in wg(8)'s configuration format. Zeros take a pre-shared key away, which leaving it out would not."""
    lines = [
        "[Peer]",
        f"PublicKey = {peer.public_key}",
        f"PresharedKey = {peer.preshared_key or 'A' * 43 + '='}",
        f"AllowedIPs = {', '.join(peer.allowed_ips)}",
        f"PersistentKeepalive = {peer.keepalive or 'off'}",
    ]
    if peer.endpoint:
        lines.append(f"Endpoint = {peer.endpoint}")
    return "\n".join(lines) + "\n"


def address_steps(wanted: Link, here: Link) -> list[str]:
    """The lines for ``ip -batch`` that change what differs in a link's MTU, addresses and routes."""
    steps = []
    for address in sorted(set(here.addresses) - set(wanted.addresses)):
        steps.append(f"address delete {address} dev {wanted.name}")
    if here.mtu != wanted.mtu:
        steps.append(f"link set dev {wanted.name} mtu {wanted.mtu}")
    for address in sorted(set(wanted.addresses) - set(here.addresses)):
        steps.append(f"address add {address} dev {wanted.name}{' nodad' if ':' in address else ''}")
    if here.group != wanted.group:
        steps.append(f"link set dev {wanted.name} group {wanted.group}")
    if not here.up:
        steps.append(f"link set dev {wanted.name} up")
    for route in sorted(here.routes - wanted.routes, key=str):
        steps.append(f"route delete {_spec(wanted.name, route)}")
    # Taking an interface down, or its last address, takes its routes along unseen: what differs is asked for again.
    for route in sorted(wanted.routes - (here.routes if here.up else frozenset()), key=str):
        steps.append(f"route replace {_spec(wanted.name, route)}")
    return steps


def _spec(name: str, route: Route) -> str:
    return f"{route.destination} dev {name} table {route.table} proto {ROUTE_PROTOCOL}"


def apply_steps(steps: Sequence[str]) -> None:
    """Run lines for ``ip -batch``: routes of IPv6 need the family said, the rest goes by its address."""
    batch({"-4": [step for step in steps if not _is_v6(step)], "-6": [step for step in steps if _is_v6(step)]})


def batch(lines_of: Mapping[str, Sequence[str]]) -> None:
    """Run lines by family, with one ``ip -batch`` each."""
    for family, lines in lines_of.items():
        if lines:
            _host.run(["ip", family, "-batch", "-"], "\n".join(lines) + "\n")


def _is_v6(step: str) -> bool:
    return bool(re.match(r"(address|route) \w+ \S*:", step))
