# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Note values in a variables file beside the inventory, on the controller."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.warren.vpn.plugins.module_utils import _host
from ansible_collections.warren.vpn.plugins.plugin_utils._hostvars import plain_data

ARGUMENTS = {
    "path": {"type": "path", "required": True},
    "variable": {"type": "str", "required": True},
    "values": {"type": "dict", "required": True},
    "prune": {"type": "list", "elements": "str", "default": []},
}

HEADER = "---\n# Written by warren.vpn. Public: commit it with the inventory.\n"


class ActionModule(ActionBase):
    """See the module ``record`` for the documentation."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Write the file unless it has the values already, or this is a check."""
        result = super().run(tmp, task_vars)
        _validation, arguments = self.validate_argument_spec(ARGUMENTS)
        path, variable = Path(arguments["path"]), str(arguments["variable"])
        _make_sure_that_ansible_reads(path)
        before = _host.read(path) or ""
        try:
            old = (yaml.safe_load(before) or {}).get(variable) or {}
            new = merged(old, plain_data(arguments["values"]), arguments["prune"])
        except (yaml.YAMLError, AttributeError, ValueError) as error:
            raise AnsibleActionFail(f"{path} is not what the collection writes, mend or remove it: {error}") from error
        after = HEADER + yaml.safe_dump({variable: new}, width=200)
        changed = before != after and bool(new or before)
        if changed and not self._task.check_mode:
            _host.write(path, after, 0o644)
        headers = {"before_header": str(path), "after_header": str(path)}
        diff = {"before": before, "after": after if changed else before, **headers}
        result.update(changed=changed, path=str(path), diff=diff)
        return result


def merged(old: Mapping[str, Any], values: Mapping[str, Any], prune: Collection[str]) -> dict[str, Any]:
    """The variable with the values in it; what it has of a key that both have as a dictionary stays."""
    new = dict(old)
    for key, value in values.items():
        both = isinstance(value, dict) and isinstance(old.get(key), dict)
        new[key] = {**old[key], **value} if both else value
    return {key: value for key, value in new.items() if key not in prune}


def _make_sure_that_ansible_reads(path: Path) -> None:
    for suffix in (".yml", ".yaml", ".json"):
        beside = path.parent.with_suffix(suffix)
        if beside.is_file():
            raise AnsibleActionFail(
                f"{beside} would be ignored by Ansible once {path.parent} exists. Move it to {path.parent}/main{suffix}"
            )
