# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Notes each result of a run as a line of JSON in the file RESULTS, beside what the run prints."""

from __future__ import annotations

import json
import os
from pathlib import Path

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = r"""
name: results
type: notification
short_description: Note results for the integration tests
description: One line of JSON for each result, in the file that the environment variable RESULTS names.
requirements: [enabled in configuration]
"""


class CallbackModule(CallbackBase):
    """Writes the file."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "results"
    CALLBACK_NEEDS_ENABLED = True

    def _note(self, state, result):
        data = result._result  # noqa: SLF001 - ansible-core 2.19 has no public name
        line = {
            "state": state,
            "host": result._host.get_name(),  # noqa: SLF001
            "task": result._task.get_name(),  # noqa: SLF001
            "changed": bool(data.get("changed")),
            "actions": data.get("actions", []),
            "msg": str(data.get("msg", "")),
        }
        with Path(os.environ["RESULTS"]).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def v2_runner_on_ok(self, result):
        """Note it."""
        self._note("ok", result)

    def v2_runner_on_failed(self, result, ignore_errors=False):
        """Note it."""
        self._note("ignored" if ignore_errors else "failed", result)

    def v2_runner_on_unreachable(self, result):
        """Note it."""
        self._note("unreachable", result)
