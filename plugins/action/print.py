# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Print text as it is: what a person reads, or another program, in the middle of Ansible's own output."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display


class ActionModule(ActionBase):
    """See the module ``print`` for the documentation."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Print the text."""
        result = super().run(tmp, task_vars)
        _validation, arguments = self.validate_argument_spec({"text": {"type": "str", "required": True}})
        Display().display(arguments["text"].rstrip("\n"))
        result.update(changed=False)
        return result
