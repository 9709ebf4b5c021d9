"""The inventory of a fleet that does not exist, for benches that contact no host."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path


def key() -> str:
    """Make up a public key."""
    return base64.b64encode(os.urandom(32)).decode()


def write(path: Path, data: object) -> None:
    """Write a JSON file, which Ansible reads as it reads YAML."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))


def generated(size: int, clients: int, directory: Path, own: dict[str, str] | None = None) -> Path:
    """Write the inventory, with its keys on record, and return where it is.

    Args:
        size: so many servers, ``s0001`` and on.
        clients: so many clients.
        directory: where to make a directory for it.
        own: the public keys of the first server, by purpose, where somebody has the private ones.
    """

    def addresses(first: int, number: int) -> list[str]:
        return [f"100.{first}.{number // 250}.{number % 250 + 1}", f"2001:db8:100::{first}:{number:x}"]

    hosts = {
        f"s{number:04}": {
            "server_id": number,
            "server_entry_addresses": addresses(80, number),
            "server_exit_addresses": addresses(81, number) + addresses(82, number),
        }
        for number in range(1, size + 1)
    }
    inventory = directory / f"inventory{size}"
    groups = {"warren_servers": {"hosts": hosts}, "warren_access": {"children": {"warren_servers": {}}}}
    write(inventory / "hosts.json", groups)
    shared = inventory / "group_vars/all"
    settings = {
        "warren_fleet_secret": key(),
        "warren_control_prefix": "10.64.0.0/16",
        "warren_session_prefix_length": 20,
        "warren_clients": [{"name": f"client{number}", "public_key": key()} for number in range(clients)],
    }
    write(shared / "fleet.json", settings)
    recorded = {name: {"control_mesh": key(), "access": key(), "multihop": key()} for name in hosts}
    recorded["s0001"] |= own or {}
    write(shared / "warren_public_keys.json", {"warren_public_keys": recorded})
    return inventory
