# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write the clients' files on the controller."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.module_utils.basic import missing_required_lib
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.warren.vpn.plugins.plugin_utils import _client_codes, _client_folders

SERVER = {
    "name": {"type": "str", "required": True},
    "slug": {"type": "str", "required": True},
    "label": {"type": "str", "required": True},
    "public_key": {"type": "str"},
    "endpoint": {"type": "str", "required": True},
}
CLIENT = {
    "name": {"type": "str", "required": True},
    "public_key": {"type": "str"},
    "own_key": {"type": "bool", "default": False},
    "addresses": {"type": "list", "elements": "str", "required": True},
    "server": {"type": "str"},
}
TUNNELS = {
    "mtu": {"type": "int", "required": True},
    "dns": {"type": "list", "elements": "str", "default": []},
    "portal": {"type": "str", "required": True},
    "servers": {"type": "list", "elements": "dict", "required": True, "options": SERVER},
    "clients": {"type": "list", "elements": "dict", "required": True, "options": CLIENT},
}
ARGUMENTS = {
    "directory": {"type": "path", "required": True},
    "tunnels": {"type": "dict", "required": True, "options": TUNNELS},
    "servers": {"type": "list", "elements": "str", "default": []},
    "only": {"type": "list", "elements": "str", "default": []},
    "inventory_sources": {"type": "list", "elements": "path", "default": []},
}


class ActionModule(ActionBase):
    """See the module ``client_files`` for the documentation."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Compare the files with what they should be, and write them unless this is a check."""
        result = super().run(tmp, task_vars)
        _validation, arguments = self.validate_argument_spec(ARGUMENTS)
        for library in _client_codes.MISSING:
            raise AnsibleActionFail(missing_required_lib(library, reason="to write the clients' files"))
        check_mode = bool(self._task.check_mode)
        try:
            clients = _client_folders.Clients(arguments, check_mode)
            clients.compare()
            if not check_mode:
                clients.writer.write()
        except (_client_folders.ClientError, OSError) as error:
            raise AnsibleActionFail(str(error)) from error
        for warning in clients.warnings():
            Display().warning(warning)
        diff = clients.writer.diff
        result.update(
            changed=bool(diff),
            public_keys=clients.public_keys,
            changed_files=list(dict.fromkeys(each["after_header"] for each in diff)),
        )
        if self._task.diff:  # unasked, the diff of thousands of files is a burden
            result["diff"] = diff
        return result
