# Copyright (c) 2026 the warren.vpn authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters: values, and errors with the filter's name in front, as Ansible wants them."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import jinja2
import pytest
import yaml
from ansible.errors import AnsibleFilterError

from ansible_collections.warren.vpn.plugins.plugin_utils import _addressing

FLEET = json.dumps(
    {
        "servers": {
            name: {"id": number, "name": name, "entry4": f"198.51.100.{number}", "entry6": None}
            | {"control4": f"10.77.0.{number}", "control6": f"fd57::{number}"}
            for number, name in enumerate(("ams", "fra"), 1)
        }
    }
)
GROUPS = {"warren_servers": ["ams", "fra"], "warren_access": ["fra"], "warren_outside": ["web"], "db": ["x"]}
ROLES = ["control_mesh", "multihop", "packet_path", "agent"]
CASES = [
    ("control_address", (3, "10.77.0.0/24"), "10.77.0.3", (255, "10.77.0.0/24"), "server id 255 does not fit in"),
    ("link_interface", (3,), "wg0mh-r3", (0,), "server id 0 is not between"),
    ("link_port", (3, 21000), 21003, (3, "21000"), ""),
    ("control_addresses", (FLEET, ["fra"]), {"fra v4": "10.77.0.2", "fra v6": "fd57::2"}, ("{}", []), "no 'servers'"),
    (
        "neighbours", (FLEET, "ams"), {"fra v4": {"public": "198.51.100.2", "internal": "10.77.0.2"}},
        ("x", "ams"), "not a fleet as the role validate_inventory makes it",
    ),
    ("fleet_hosts", (GROUPS,), "warren_servers", (7,), ""),
    ("fleet_hosts", (GROUPS, ["warren_outside"]), "warren_servers:warren_outside", (7,), ""),
    ("fleet_hosts", ({"warren_outside": ["web"]}, ["warren_outside"]), "localhost", (None,), ""),
    ("key_purposes", (GROUPS, "ams"), ["control_mesh", "multihop"], (7, "ams"), ""),
    ("key_purposes", (GROUPS, "fra"), ["control_mesh", "multihop", "access"], (7,), ""),
    ("key_purposes", (GROUPS,), ["control_mesh", "multihop", "access"], (7,), ""),
    ("host_roles", (GROUPS, "ams"), ROLES, (7, "ams"), ""),
    ("host_roles", (GROUPS, "fra"), ["control_mesh", "access", *ROLES[1:]], (7, "ams"), ""),
    ("host_roles", (GROUPS, "fra", "verify"), ["control_mesh", "agent"], (7, "ams"), ""),
    ("host_roles", (GROUPS, "web"), [], (7, "ams"), ""),
    ("view", (), None, (FLEET, "old", "agent"), "old is not a server of the fleet"),
    ("view", (), None, (FLEET, "ams", "old"), "system = old: there are control_mesh, wireguard, packet_path, agent"),
    ("access_link", (), None, ("{}", "ams"), "ams is not a server of the fleet"),
]  # fmt: skip


def load(name: str):  # type: ignore[no-untyped-def]
    module = importlib.import_module(f"ansible_collections.warren.vpn.plugins.filter.{name}")
    return module.FilterModule().filters()[name]


@pytest.mark.parametrize(("name", "good", "expected", "bad", "message"), CASES)
def test_adapter(name: str, good: tuple, expected: object, bad: tuple, message: str) -> None:
    if good:
        assert load(name)(*good) == expected
    with pytest.raises(AnsibleFilterError, match=f"^warren.vpn.{name}: .") as caught:
        load(name)(*bad)
    assert message in str(caught.value)


def test_a_controller_without_netaddr_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_addressing, "HAS_NETADDR", False)
    with pytest.raises(AnsibleFilterError, match=r"^Failed to import the required Python library \(netaddr\) on "):
        load("control_address")(3, "10.77.0.0/24")


def test_the_readmes_template_for_a_monitoring_system_works() -> None:
    readme = (Path(__file__).parents[4] / "README.md").read_text()
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined)
    names = ("control_address", "link_interface", "link_port")
    environment.filters.update({f"warren.vpn.{name}": load(name) for name in names})
    template = environment.from_string(readme.split("```jinja\n")[1].split("```")[0])
    values = {"warren_control_prefix": "10.77.0.0/24", "warren_link_port_base": 21000}
    hosts = {name: {"server_id": number} for number, name in enumerate(("ams", "fra"), 1)}
    assert yaml.safe_load(template.render(**values, groups={"warren_servers": list(hosts)}, hostvars=hosts)) == [
        {"targets": ["10.77.0.1:9100"], "labels": {"server": "ams", "link": "wg0mh-r1", "link_port": "21001"}},
        {"targets": ["10.77.0.2:9100"], "labels": {"server": "fra", "link": "wg0mh-r2", "link_port": "21002"}},
    ]
