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
        "addresses": [f"{settings['portal_address']}/32", f"{settings['portal_address6']}/128"],
        "routes": [{"destination": settings["client_prefix"]}, {"destination": settings["client_prefix6"]}],
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


def _own_key(server: Mapping[str, Any], purpose: str) -> str:
    if purpose not in server["keys"]:
        raise ValueError(
            f"{server['name']} has no {purpose} key in warren_public_keys: run site.yml with this host to enrol it"
        )
    return str(server["keys"][purpose])
