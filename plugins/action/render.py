# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write the files that each host would be given. One process does it for all of them: one for each would cost more than
the work itself."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.template import trust_as_template

from ansible_collections.warren.vpn.plugins.module_utils import _host
from ansible_collections.warren.vpn.plugins.plugin_utils._contents import contents

ARGUMENTS = {
    "path": {"type": "path", "required": True},
    "hosts": {"type": "list", "elements": "str", "required": True},
    "variable": {"type": "str", "required": True},
}


class ActionModule(ActionBase):
    """See the module ``render`` for the documentation."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Write the files of every host."""
        result = super().run(tmp, task_vars)
        _validation, arguments = self.validate_argument_spec(ARGUMENTS)
        top = Path(arguments["path"])
        if top.exists() and (not top.is_dir() or any(top.iterdir())):
            raise AnsibleActionFail(f"{top} is there already. Name a directory that is new or empty.")
        for host, parameters in self._rendered(arguments["hosts"], arguments["variable"], task_vars or {}):
            try:
                files = contents(parameters)
            except _host.NetworkError as error:
                raise AnsibleActionFail(f"{host}: {error}") from error
            if not self._task.check_mode:
                _write(top / host, files)
        result.update(changed=True, path=str(top), hosts=len(arguments["hosts"]))
        return result

    def _rendered(self, hosts: list[str], variable: str, task_vars: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        """A variable as a task of each host would see it."""
        play = self._task.get_play()
        manager = play.get_variable_manager()
        # No public interface of Ansible leads from a host's name to it, or to the compiler of its templates.
        inventory = task_vars["hostvars"]._inventory  # noqa: SLF001
        templar = self._templar.copy_with_new_env()
        environment = templar._engine.environment  # noqa: SLF001
        environment.compile = cache(environment.compile)  # the same few templates for every host: half of the time
        template = trust_as_template(f"{{{{ {variable} }}}}")
        for host in hosts:
            templar.available_variables = manager.get_vars(play=play, host=inventory.get_host(host), task=self._task)
            yield host, templar.template(template)


def _write(top: Path, files: dict[Path, tuple[str, int]]) -> None:
    """Make files that nobody else could read in between."""
    top.mkdir(parents=True)
    directories = {parent for path in files for parent in path.parents if parent != parent.parent}
    for directory in sorted(directories):  # the upper ones first
        (top / directory.relative_to("/")).mkdir()
    for path, (text, mode) in files.items():
        descriptor = os.open(top / path.relative_to("/"), os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(descriptor, mode)  # whatever the umask is
            file.write(text)
