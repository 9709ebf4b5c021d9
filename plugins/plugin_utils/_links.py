# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# PRIVATE to the collection.
"""Which WireGuard links a server has, computed from the fleet that ``_inventory.read`` makes.

Each function returns plain data in the form of the parameter ``links`` of the module ``network``.
"""

from __future__ import annotations

import binascii
import hmac
from collections.abc import Mapping
from typing import Any

from . import _addressing

# Shorter than the 30 s after which routers and conntrack may forget a UDP flow; wg(8) names 25 as sensible.
KEEPALIVE_SECONDS = 25

EVERYWHERE = ("0.0.0.0/0", "::/0")

# WireGuard has checked where a packet comes from (AllowedIPs), so a link whose packets need approval needs no check of
# the source: it costs each packet a lookup in the routing table, which `accept_local` leaves out too. A host that has a
# strict one on all interfaces finds the way back. Of two values the kernel takes the higher (ip-sysctl).
GATED_SETTINGS = {"ipv4/rp_filter": "0", "ipv4/accept_local": "1"}

# What comes back from an exit is from everywhere, and the main table knows other ways there.
EXIT_SETTINGS = {"ipv4/rp_filter": "2"}

# Where the routing rules stand: after the kernel's own table of local addresses (0), before what others use (tailscale
# 5210, wg-quick 32764). The first sends every packet without a link's mark past those of links, so that their number
# costs only packets that have one.
PAST_LINKS, OF_LINKS, NO_LINK, APPROVED, NOT_APPROVED = range(4000, 4005)

# Of two routes to one network the kernel takes the one with the lower metric: this is the last.
LAST_METRIC = 0xFFFF_FFFF

Fleet = Mapping[str, Any]


def preshared_key(secret: str, purpose: str, one: int, other: int) -> str:
    """The pre-shared key of a pair of servers: HMAC-SHA256 of the pair under the fleet's secret, base64.

    Args:
        secret: the fleet's secret.
        purpose: which links it is for, so that two kinds of link never share a key.
        one, other: the two servers' ids, in either order.
    """
    low, high = (one, other) if one < other else (other, one)
    digest = hmac.digest(secret.encode(), f"warren.vpn {purpose} {low} {high}".encode(), "sha256")
    return binascii.b2a_base64(digest, newline=False).decode()


def endpoint(address: str, port: int) -> str:
    """An address and a port as WireGuard writes them."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def control_mesh_link(fleet: Fleet, name: str) -> dict[str, Any]:
    """The control mesh's link of a server: every other server with a key on record is a peer.

    Args:
        fleet: from ``_inventory.read``.
        name: the server's inventory name.

    Raises:
        ValueError: the server has no public key on record.
    """
    settings, servers, secret = fleet["settings"], fleet["servers"], fleet["secret"]
    here = servers[name]
    port = settings["control_port"]
    peers = [
        {
            "name": other["name"],
            "public_key": other["keys"]["control_mesh"],
            "preshared_key": preshared_key(secret, "control mesh", here["id"], other["id"]),
            "endpoint": endpoint(other["entry4"], port),
            "allowed_ips": [f"{other['control4']}/32", f"{other['control6']}/128"],
            "keepalive": KEEPALIVE_SECONDS,
            "watched": True,
        }
        for other in servers.values()
        if other["id"] != here["id"] and "control_mesh" in other["keys"]
    ]
    return {
        "name": _addressing.CONTROL_INTERFACE,
        "purpose": "control_mesh",
        "public_key": _own_key(here, "control_mesh"),
        "listen_port": port,
        "mtu": settings["mtu"],
        "group": _addressing.LINK_GROUPS["mesh"],
        "settings": GATED_SETTINGS,
        "addresses": [
            f"{here['control4']}/{settings['control_prefix'].partition('/')[2]}",
            f"{here['control6']}/{settings['control_prefix6'].partition('/')[2]}",
        ],
        "routes": [],
        "peers": peers,
    }


def access_link(fleet: Fleet, name: str) -> dict[str, Any]:
    """The link that clients connect to on a server: every client with a key is a peer on every server.

    Args:
        fleet: from ``_inventory.read``.
        name: the server's inventory name.

    Raises:
        ValueError: the server has no public key on record.
    """
    settings, here = fleet["settings"], fleet["servers"][name]
    return {
        "name": _addressing.ACCESS_INTERFACE,
        "purpose": "access",
        "public_key": _own_key(here, "access"),
        "listen_port": settings["access_port"],
        "mtu": settings["mtu"],
        "group": _addressing.LINK_GROUPS["access"],
        "settings": GATED_SETTINGS,
        "addresses": [f"{settings['portal_address']}/32", f"{settings['portal_address6']}/128"],
        "routes": [
            {"destination": settings["client_prefix"]},
            {"destination": settings["client_prefix6"]},
            # A strict reverse path filter looks for the client with the mark of its packet.
            *(
                {"destination": settings["client_prefix"], "table": str(_addressing.link_table(remote["id"]))}
                for remote in remotes(fleet, name)
            ),
        ],
        "peers": [
            {
                "name": client["name"],
                "public_key": client["public_key"],
                "allowed_ips": [f"{client['address4']}/32", f"{client['address6']}/128"],
            }
            for client in fleet["clients"]
            if client["public_key"]
        ],
    }


def remotes(fleet: Fleet, name: str) -> list[dict[str, Any]]:
    """The servers that clients of a server can leave from, each with what the way there is called on this server.

    Args:
        fleet: from ``_inventory.read``.
        name: the server's inventory name.
    """
    return [
        {
            "name": other["name"],
            "id": other["id"],
            "mark": _addressing.link_mark(other["id"]),
            "port": _addressing.link_port(fleet["settings"]["link_port_base"], other["id"]),
        }
        for other in _others(fleet, name)
        if fleet["servers"][name]["access"]
    ]


def multihop_links(fleet: Fleet, name: str) -> list[dict[str, Any]]:
    """The multihop links of a server: one on which all entries arrive, and one towards each exit.

    A server without clients is an exit only and has the first alone. One key serves all of them.

    Args:
        fleet: from ``_inventory.read``.
        name: the server's inventory name.

    Raises:
        ValueError: the server has no public key on record.
    """
    settings, secret = fleet["settings"], fleet["secret"]
    here, others = fleet["servers"][name], _others(fleet, name)
    common = {"purpose": "multihop", "public_key": _own_key(here, "multihop"), "mtu": settings["mtu"]}

    port = _addressing.link_port(settings["link_port_base"], here["id"])

    def peer(other: Mapping[str, Any], **more: Any) -> dict[str, Any]:
        key = preshared_key(secret, "multihop", here["id"], other["id"])
        return {"name": other["name"], "public_key": other["keys"]["multihop"], "preshared_key": key, **more}

    arriving = {
        **common,
        "name": _addressing.MULTIHOP_INTERFACE,
        "listen_port": settings["multihop_port"],
        "group": _addressing.LINK_GROUPS["session"],
        "settings": GATED_SETTINGS,
        "addresses": [],
        "routes": [{"destination": settings["session_pool"]}, {"destination": settings["session_pool6"]}],
        "peers": [
            peer(
                other,
                allowed_ips=[other["session4"], other["session6"]],
                # Entries come to us. But after a reboot only we know that their sessions are gone.
                **(
                    {"endpoint": endpoint(other["entry4"], port), "keepalive": KEEPALIVE_SECONDS}
                    if other["access"]
                    else {}
                ),
            )
            for other in others
        ],
    }
    if not here["access"]:
        return [arriving]
    return [
        arriving,
        *(
            {
                **common,
                "name": _addressing.link_interface(other["id"]),
                "listen_port": _addressing.link_port(settings["link_port_base"], other["id"]),
                "group": _addressing.LINK_GROUPS["exit"],
                "settings": EXIT_SETTINGS,
                # The loose reverse path filter drops all that comes in where there is no address at all.
                "addresses": [f"{settings['portal_address']}/32"],
                "routes": [
                    {"destination": everywhere, "table": str(_addressing.link_table(other["id"]))}
                    for everywhere in EVERYWHERE
                ],
                "peers": [
                    peer(
                        other,
                        endpoint=endpoint(other["entry4"], settings["multihop_port"]),
                        allowed_ips=list(EVERYWHERE),
                        keepalive=KEEPALIVE_SECONDS,
                    )
                ],
            }
            for other in others
        ),
    ]


def routing_rules(fleet: Fleet, name: str, role: str) -> list[dict[str, Any]]:
    """The routing rules of a role on a server, which say a second time what firewall rules say: what may be forwarded.

    What comes in by a link of the fleet goes on if a firewall rule has approved it by a mark; without that, or without
    any firewall, it goes nowhere. Packets with a link's mark take the routes of that link's table, or none at all.

    Args:
        fleet: from ``_inventory.read``.
        name: the server's inventory name.
        role: ``control_mesh``, ``access`` or ``multihop``.
    """
    interfaces = {
        "control_mesh": _addressing.CONTROL_INTERFACE,
        "access": _addressing.ACCESS_INTERFACE,
        "multihop": _addressing.MULTIHOP_INTERFACE,
    }
    interface = interfaces[role]
    gate = [
        {"priority": APPROVED, "iif": interface, "fwmark": _masked(_addressing.APPROVED_BIT), "table": "main"},
        {"priority": NOT_APPROVED, "iif": interface, "action": "unreachable"},
    ]
    exits = remotes(fleet, name) if role == "multihop" else []
    if not exits:
        return gate
    marks = _masked(_addressing.LINK_MARK_BASE, _addressing.KIND_MASK)
    return [
        *gate,
        {"priority": NO_LINK, "fwmark": marks, "action": "unreachable"},
        *(
            {"priority": OF_LINKS, "fwmark": f"{exit_['mark']:#x}", "table": str(_addressing.link_table(exit_["id"]))}
            for exit_ in exits
        ),
        {"priority": OF_LINKS, "fwmark": f"{_addressing.HOLD_MARK:#x}", "action": "blackhole"},
        {"priority": PAST_LINKS, "not": True, "fwmark": marks, "action": f"goto {APPROVED}"},
    ]


def closed_routes(fleet: Fleet) -> list[dict[str, Any]]:
    """Routes that lead nowhere, for all that goes by links only: while a link is away, what is meant for it must not
    take the default route, where it would show the internet a tunnel address.

    Args:
        fleet: from ``_inventory.read``.
    """
    prefixes = ("control_prefix", "control_prefix6", "client_prefix", "client_prefix6", "session_pool", "session_pool6")
    return [
        {"destination": fleet["settings"][prefix], "type": "blackhole", "metric": LAST_METRIC} for prefix in prefixes
    ]


def _masked(mark: int, mask: int | None = None) -> str:
    return f"{mark:#x}/{mask or mark:#x}"


def _others(fleet: Fleet, name: str) -> list[Mapping[str, Any]]:
    return [other for other in fleet["servers"].values() if other["name"] != name and "multihop" in other["keys"]]


def _own_key(server: Mapping[str, Any], purpose: str) -> str:
    if purpose not in server["keys"]:
        raise ValueError(
            f"{server['name']} has no {purpose} key in warren_public_keys: run site.yml with this host to enrol it"
        )
    return str(server["keys"][purpose])
