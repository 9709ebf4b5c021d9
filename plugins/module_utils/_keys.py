# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# PRIVATE to the collection, and installed on every server as part of the engine that restores its network at boot:
# standard library and relative imports only.
"""Private keys of this host, one for each purpose, and how they are held against the public keys on record."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from . import _host, _link

KEY_DIR = _host.STATE_DIR / "keys"


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


def check_keys(links: Iterable[_link.Link], adopt: bool) -> list[str]:
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
