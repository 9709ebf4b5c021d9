"""Runs action plugins without a play."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail

Act = Callable[..., dict[str, Any]]


@pytest.fixture(name="act")
def _act() -> Act:
    """Calls an action plugin with the arguments of a task, and returns the result; what it raises is a failure."""

    def act(plugin: type, arguments: dict[str, Any], check: bool = False) -> dict[str, Any]:
        task = SimpleNamespace(args=arguments, check_mode=check, diff=True, async_val=0, action=plugin.__module__)
        connection = SimpleNamespace(_shell=SimpleNamespace(tmpdir="/nonexistent"))
        try:
            return dict(plugin(task, connection, None, None, None, None).run(task_vars={}))
        except AnsibleActionFail as error:
            return {"failed": True, "msg": str(error)}

    return act
