"""A fleet as an inventory gives it, and what its agents are told."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from warrend import clients as clients_module
from warrend.clients import Client, Clients
from warrend.config import Config, parse

from ansible_collections.warren.vpn.plugins.plugin_utils import _agent, _inventory

LEASE_SECONDS, IDLE_SECONDS = 8, 240
CITIES = {"ams": "Amsterdam", "nyc": "New York", "fra": "Frankfurt"}
# The source document's: 253 addresses for each server.
SMALL_POOL = {"warren_session_pool": "10.1.0.0/16", "warren_session_prefix_length": 24}


def key(number: int) -> str:
    """A WireGuard key."""
    return base64.b64encode(number.to_bytes(32, "big")).decode()


def fleet(
    clients: int = 3, servers: int = 3, changes: dict[str, dict[str, Any]] | None = None, **fleet_wide: Any
) -> dict[str, Any]:
    """Servers host-ams, host-nyc and host-fra, whose slugs lack the "host-", and clients c1, c2, ...

    Args:
        clients, servers: how many.
        changes: other variables of servers, by slug.
        fleet_wide: other variables of the whole fleet.
    """
    names = {f"host-{slug}": slug for slug in list(CITIES)[:servers]}
    common = {
        "warren_fleet_secret": "a secret that is long enough, really",
        "warren_clients": [
            {
                "name": f"c{n}",
                "public_key": key(9000 + n),
                "address": f"10.100.{n // 200}.{n % 200}",
                "address6": f"fd57:6172:7265:2::c{n}",
            }
            for n in range(1, clients + 1)
        ],
        "warren_public_keys": {
            name: {"control_mesh": key(number), "access": key(5000 + number), "multihop": key(7000 + number)}
            for number, name in enumerate(names, 1)
        },
        **fleet_wide,
    }
    hosts = {
        name: {
            **common,
            "server_id": number,
            "server_slug": slug,
            "server_label": CITIES[slug],
            "server_entry_addresses": [f"198.51.100.{number}", f"2001:db8::{number}"],
            "server_exit_addresses": [f"203.0.113.{number}{n}" for n in (1, 2, 3)]
            + [f"2001:db8:e::{number}{n}" for n in (1, 2, 3)],
            **(changes or {}).get(slug, {}),
        }
        for number, (name, slug) in enumerate(names.items(), 1)
    }
    reading = _inventory.read(hosts, {"warren_servers": list(names), "warren_access": list(names)}, list(names))
    assert not reading.problems, reading.problems
    return reading.fleet


def data(read: dict[str, Any], slug: str, lease_seconds: int = 60) -> dict[str, Any]:
    """The plain data of a server's agent."""
    text = _agent.config_text(_agent.config(read, f"host-{slug}", lease_seconds, IDLE_SECONDS))
    return dict(json.loads(text))


def clients_of(read: dict[str, Any], slug: str = "ams") -> Clients:
    """The clients of a server."""
    return clients_module.parse(json.loads(_agent.config_text(_agent.clients(read, f"host-{slug}"))))


def config(slug: str = "ams", read: dict[str, Any] | None = None, lease_seconds: int = 60) -> Config:
    """The configuration of a server's agent."""
    read = read or fleet()
    return parse(data(read, slug, lease_seconds), clients_of(read, slug))


def other(
    told: Config, clients: Mapping[str, Client] | None = None, most_sessions: int | None = None, **changes: Any
) -> Config:
    """A configuration with changes, and clients of its own, which another agent's reload does not change."""
    listed = told.clients if clients is None else clients
    most = told.clients.most_sessions if most_sessions is None else most_sessions
    return replace(told, clients=Clients(listed.values(), most), **changes)


def configs(read: dict[str, Any] | None = None, lease_seconds: int = LEASE_SECONDS) -> list[Config]:
    """The configurations of all agents, with leases so short that much happens in little time."""
    read = read or fleet()
    return [config(server["slug"], read, lease_seconds) for server in read["servers"].values()]
