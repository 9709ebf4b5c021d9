# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection.
"""Checks the options of the collection's roles for every host at once.

Ansible's own check is a task for each role and host, which costs more than all that a run without a change does.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ansible_collections.warren.vpn.plugins.plugin_utils import _problems

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
ROLES = Path(__file__).resolve().parents[2] / "roles"

Specs = dict[str, dict[str, Any]]


def role_options() -> Specs:
    """The options of every role of the collection, by role, from their argument specs."""
    options: Specs = {}
    for path in sorted(ROLES.glob("*/meta/argument_specs.yml")):
        specs = yaml.load(path.read_bytes(), LOADER) or {}  # noqa: S506 - safe, and written in C where there is one
        entries = (specs.get("argument_specs") or {}).values()
        options[path.parents[1].name] = {
            name: option for entry in entries for name, option in (entry.get("options") or {}).items()
        }
    return options


def check(hosts: Mapping[str, Mapping[str, object]], roles: Specs) -> list[_problems.Problem]:
    """The options that are not of the type, or among the choices, of their role's argument spec."""
    specs = {name: option for options in roles.values() for name, option in options.items()}
    found: dict[tuple[str, str, str], list[str]] = {}
    for host, variables in hosts.items():
        for name in specs.keys() & variables.keys():
            value = variables[name]
            for message in _messages(name, value, specs[name]):
                found.setdefault((name, _problems.show(value), message), []).append(host)
    return [
        _problems.Problem(
            _problems.FLEET if len(where) == len(hosts) > 1 else _problems.some(where),
            name,
            value,
            message.rstrip("."),
            "See the role's README for what that option takes.",
        )
        for (name, value, message), where in found.items()
    ]


def _messages(name: str, value: object, option: dict[str, Any]) -> list[str]:
    if isinstance(value, _problems.Unreadable):
        return []  # its template may need what only a play has
    return list(ArgumentSpecValidator({name: option}).validate({name: value}).error_messages)
