# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What templates are given of the fleet, and the ports that services of a server answer on."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.warren.vpn.plugins.plugin_utils import _inventory, _links, _services, _views

ROLES = Path(__file__).parents[4] / "roles"
PURPOSES = ("control_mesh", "multihop", "access")


def key(*what: object) -> str:
    return base64.b64encode(str(what).encode().ljust(32)[:32]).decode()


@pytest.fixture(name="fleet", scope="module")
def _fleet() -> dict[str, Any]:
    """Three servers, the last of which is an exit only."""
    names = ["s1", "s2", "s3"]
    shared = {
        "warren_fleet_secret": "a secret that is long enough, really",
        "warren_public_keys": {name: {purpose: key(name, purpose) for purpose in PURPOSES} for name in names},
    }
    hosts = {
        name: {
            **shared,
            "server_id": number,
            "server_entry_addresses": [f"198.51.100.{number}"],
            "server_exit_addresses": [f"198.51.100.{100 + number}"],
        }
        for number, name in enumerate(names, 1)
    }
    reading = _inventory.read(hosts, {"warren_servers": names, "warren_access": names[:2]}, names)
    assert not reading.problems
    return reading.fleet


@pytest.mark.parametrize("system", _views.VIEWS)
def test_a_view_holds_what_its_templates_read_and_nothing_else(system: str, fleet: dict[str, Any]) -> None:
    role = {"wireguard": "server"}.get(system, system)
    text = "".join(path.read_text() for path in (ROLES / role / "templates").rglob("*.j2"))
    assert set(_views.VIEWS[system](fleet, "s1")) == set(re.findall(r"\bserver\.(\w+)", text))


def test_the_ports_of_a_server_are_those_that_its_links_listen_on(fleet: dict[str, Any]) -> None:
    assert _services.ports(fleet, "s1") == [20000, 20001, 51820, 21002, 21003]
    assert _services.ports(fleet, "s3") == [20000, 20001]
    for name in ("s1", "s2"):
        links = [
            _links.control_mesh_link(fleet, name),
            _links.access_link(fleet, name),
            *_links.multihop_links(fleet, name),
        ]
        assert sorted(_services.ports(fleet, name)) == sorted(link["listen_port"] for link in links)


def test_every_port_is_in_the_block_that_is_kept_for_it(fleet: dict[str, Any]) -> None:
    settings = fleet["settings"]
    for service in _services.services(settings, True, [1, 2, 254]):
        block = settings[service.block] if isinstance(settings[service.block], list) else [settings[service.block]] * 2
        assert block[0] <= service.port <= block[1]
