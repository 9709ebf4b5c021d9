# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection.
"""What stands in a client's wg-quick file, as pure functions. The module ``client_files`` writes it."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import struct
import zlib
from collections.abc import Callable, Mapping
from typing import Any

from . import _links

OWN_KEY_LINE = "# PrivateKey = put yours here"
"""Stands for the private key of a client that made its own key pair."""

PRIVATE_KEY = re.compile(r"^[ \t]*PrivateKey[ \t]*=[ \t]*(.*?)[ \t\r]*$", re.IGNORECASE | re.MULTILINE)

PNG_HEADER = 33
"""Bytes of a PNG file's signature and its first chunk, which has to be IHDR: 8 + 4 + 4 + 13 + 4."""

STAMP_KEYWORD = b"warren.vpn 1"
"""Raise the number when QR codes are to be drawn in another way; those on disk are then drawn again."""


def tunnels(fleet: Mapping[str, Any]) -> dict[str, Any]:
    """All that the clients' files say, in the form of the parameter ``tunnels`` of the module ``client_files``."""
    settings = fleet["settings"]
    return {
        "mtu": settings["mtu"],
        "dns": settings["client_dns"],
        "portal": settings["portal_address"],
        "servers": [
            {
                "name": name,
                "slug": server["slug"],
                "label": server["label"],
                "public_key": server["keys"].get("access"),
                "endpoint": _links.endpoint(server["entry4"], settings["access_port"]),
            }
            for name, server in fleet["servers"].items()
            if server["access"]
        ],
        "clients": [
            {
                "name": client["name"],
                "public_key": client["public_key"],
                "own_key": client["own_key"],
                "addresses": [f"{client['address4']}/32", f"{client['address6']}/128"],
                "server": client["server"],
            }
            for client in fleet["clients"]
        ],
    }


def text(
    tunnel: Mapping[str, Any], client: Mapping[str, Any], server: Mapping[str, Any], private_key: str | None
) -> str:
    """The wg-quick file of a client for a server. Without a private key it has a comment in its place.

    AllowedIPs is everything in both families, for a server without IPv6 too: what it cannot carry stays in the tunnel
    and ends there, and does not leave the client beside the tunnel.
    """
    slug = server["slug"]
    label = " ".join(server["label"].split())
    start = f"# Start it on Linux with `wg-quick up ./{slug}.conf`"
    lines = [
        f"# warren.vpn: client {client['name']}, server {label}",
        f"{start}, or scan {slug}.png in the WireGuard app." if private_key else f"{start}.",
        f"# Once connected, open http://{tunnel['portal']}/",
        "[Interface]",
        f"PrivateKey = {private_key}" if private_key else OWN_KEY_LINE,
        f"Address = {', '.join(client['addresses'])}",
        *([f"DNS = {', '.join(tunnel['dns'])}"] if tunnel["dns"] else []),
        f"MTU = {tunnel['mtu']}",
        "",
        "[Peer]",
        f"PublicKey = {server['public_key']}",
        f"Endpoint = {server['endpoint']}",
        "AllowedIPs = 0.0.0.0/0, ::/0",
        f"PersistentKeepalive = {_links.KEEPALIVE_SECONDS}",
    ]
    return "\n".join(lines) + "\n"


def scanned(config: str) -> str:
    """What the QR code of a file says: the file without comments and empty lines, so that the code is coarser."""
    return "".join(f"{line}\n" for line in config.splitlines() if line and not line.startswith("#"))


def private_key_in(config: str) -> str:
    """The private key in a wg-quick file, or an empty text if there is none that can be one."""
    found = PRIVATE_KEY.search(config)
    try:
        whole = found and len(base64.b64decode(found[1], validate=True)) == 32
    except (binascii.Error, ValueError):
        whole = False
    return found[1] if found and whole else ""


def shown(config: str, public_key: Callable[[str], str]) -> str:
    """A wg-quick file with its private key hidden behind the public half, which tells one from another."""

    def hide(line: re.Match[str]) -> str:
        key = private_key_in(line[0])
        return f"PrivateKey = (hidden, its public key is {public_key(key)})" if key else "PrivateKey = (hidden)"

    return PRIVATE_KEY.sub(hide, config)


def stamped(png: bytes, terminal: str, config: str) -> bytes:
    """A QR code's PNG image with a stamp: a digest of the image, of the code for a terminal, and of what they say.

    Drawing a code takes 30 ms, comparing a digest some microseconds: a run that changes nothing draws nothing.
    """
    return png[:PNG_HEADER] + _stamp(png, terminal, config) + png[PNG_HEADER:]


def is_stamped(png: bytes, terminal: str, config: str) -> bool:
    """Whether image and terminal code are, byte for byte, what was once drawn for this file."""
    size = len(_stamp(b"", "", ""))
    bare = png[:PNG_HEADER] + png[PNG_HEADER + size :]
    return png[PNG_HEADER : PNG_HEADER + size] == _stamp(bare, terminal, config)


def _stamp(png: bytes, terminal: str, config: str) -> bytes:
    """A ``tEXt`` chunk of the PNG format: length, type, keyword NUL text, checksum."""
    parts = (png, terminal.encode(), scanned(config).encode())
    digest = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()
    body = b"tEXt" + STAMP_KEYWORD + b"\0" + digest.encode()
    return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
