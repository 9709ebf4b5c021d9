# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection.
"""Key pairs and QR codes of clients. They are made on the controller, never on a server."""

from __future__ import annotations

import io
import multiprocessing
from base64 import b64decode, b64encode

from . import _client_files

MISSING = []
"""Libraries that are not there: the action says so."""

try:
    import segno
except ImportError:
    MISSING.append("segno")

try:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
except ImportError:
    MISSING.append("cryptography")

# A code must be dark on light for all phones to read it: its light parts are what is printed.
WHITE_ON_BLACK = "\x1b[38;5;231;48;5;16m"
PLAIN = "\x1b[0m"
MANY = 50  # QR codes from which on a process per CPU draws them


def make_key() -> str:
    """A new private key."""
    key = X25519PrivateKey.generate().private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
    return b64encode(key).decode()


def public_half(private_key: str) -> str:
    """The public key of a private key."""
    key = X25519PrivateKey.from_private_bytes(b64decode(private_key)).public_key()
    return b64encode(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()


def draw(config: str) -> tuple[bytes, str]:
    """The QR code of a file as a stamped PNG image and as text for a terminal, whatever the terminal's colours."""
    code = segno.make_qr(_client_files.scanned(config), error="l", boost_error=False)
    image, lines = io.BytesIO(), io.StringIO()
    code.save(image, kind="png", scale=6)
    code.terminal(lines, compact=True)
    terminal = "".join(f"{WHITE_ON_BLACK}{line}{PLAIN}\n" for line in lines.getvalue().splitlines())
    return _client_files.stamped(image.getvalue(), terminal, config), terminal


def draw_all(configs: list[str]) -> list[tuple[bytes, str]]:
    """The QR codes of many files."""
    if len(configs) < MANY:
        return [draw(config) for config in configs]
    with multiprocessing.get_context("fork").Pool() as pool:
        return pool.map(draw, configs)
