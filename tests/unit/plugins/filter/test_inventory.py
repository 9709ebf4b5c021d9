# Copyright (c) 2026 the warren.vpn authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter inventory: plain data out of hostvars, each host asked once, templates rendered."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager

from ansible_collections.warren.vpn.plugins.filter.inventory import FilterModule
from ansible_collections.warren.vpn.plugins.plugin_utils import _hostvars, _inventory, _options

INVENTORY = """
warren_servers:
  hosts:
    ams: {server_id: "{{ 1 + 0 }}", server_entry_addresses: ["198.51.100.{{ last }}"], last: 11,
          server_exit_addresses: [198.51.100.21]}
    fra: {server_id: 2, server_entry_addresses: [198.51.100.12], server_exit_addresses: [198.51.100.22]}
  vars:
    warren_fleet_secret: "{{ 'secret ' * 8 }}"
    warren_mtu: 1400
warren_access: {children: {warren_servers: }}
"""


class Counting(HostVars):
    """Real hostvars that count how often a host's variables are put together."""

    asked: list[str]

    def raw_get(self, host_name: str) -> Any:
        self.asked.append(host_name)
        return super().raw_get(host_name)


@pytest.fixture(name="hostvars")
def _hostvars_of(tmp_path: Any, request: pytest.FixtureRequest) -> Counting:
    path = tmp_path / "hosts.yml"
    path.write_text(getattr(request, "param", INVENTORY))
    loader = DataLoader()
    inventory = InventoryManager(loader, [str(path)])
    result = Counting(inventory, VariableManager(loader, inventory), loader)
    result.asked = []
    return result


GROUPS = {"warren_servers": ["ams", "fra"], "warren_access": ["ams", "fra"]}


def run(hostvars: Any) -> dict[str, Any]:
    return FilterModule().filters()["inventory"](hostvars, GROUPS, ["ams", "fra"])


def test_templates_are_rendered_and_the_fleet_is_json_text(hostvars: Counting) -> None:
    result = run(hostvars)
    assert result["problems"] == []
    assert result["unenrolled"] == ["ams", "fra"]
    fleet = json.loads(result["fleet"])
    assert fleet["servers"]["ams"]["id"] == 1
    assert fleet["servers"]["ams"]["entry4"] == "198.51.100.11"
    assert fleet["secret"] == "secret " * 8
    assert fleet["settings"]["mtu"] == 1400


def test_a_host_without_templates_of_its_own_is_asked_once(hostvars: Counting) -> None:
    run(hostvars)
    assert hostvars.asked.count("fra") == 1


@pytest.mark.parametrize("hostvars", [INVENTORY.replace("last: 11,", "")], indirect=True)
def test_an_undefined_name_is_a_problem_of_its_variable(hostvars: Counting) -> None:
    assert run(hostvars)["problems"] == [
        "ams: server_entry_addresses: cannot be read ('last' is undefined). Correct its template, or unlock its vault."
    ]


def test_only_plain_types_come_out(hostvars: Counting) -> None:
    def walk(value: object) -> None:
        assert type(value) in (str, int, float, bool, list, dict, type(None)), type(value)
        for inner in value.items() if isinstance(value, dict) else value if isinstance(value, list) else ():
            walk(list(inner) if isinstance(inner, tuple) else inner)

    walk(_hostvars.host_variables(hostvars, ["ams", "fra"], _inventory.variables()))


def test_every_role_has_its_options_known() -> None:
    assert "validate_inventory_run" in _options.role_options()["validate_inventory"]
