# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The file beside the inventory, written by the action."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.warren.vpn.plugins.action.record import ActionModule

Record = Callable[..., dict[str, Any]]


@pytest.fixture(name="record")
def _record(act: Callable[..., dict[str, Any]]) -> Record:
    def record(path: Path, values: dict[str, Any], check: bool = False, **more: Any) -> dict[str, Any]:
        return act(ActionModule, {"path": str(path), "variable": "warren_public_keys", "values": values, **more}, check)

    return record


def test_values_are_merged_and_the_file_is_stable(record: Record, tmp_path: Path) -> None:
    path = tmp_path / "all" / "keys.yml"
    assert record(path, {"ams": {"control_mesh": "A"}})["changed"]
    assert record(path, {"ams": {"access": "B"}, "fra": {"control_mesh": "C"}})["changed"]
    assert not record(path, {"fra": {"control_mesh": "C"}})["changed"]
    assert yaml.safe_load(path.read_text()) == {
        "warren_public_keys": {"ams": {"control_mesh": "A", "access": "B"}, "fra": {"control_mesh": "C"}}
    }
    assert record(path, {}, prune=["ams"])["changed"]
    assert yaml.safe_load(path.read_text()) == {"warren_public_keys": {"fra": {"control_mesh": "C"}}}


def test_check_mode_writes_nothing_and_shows_the_same(record: Record, tmp_path: Path) -> None:
    path = tmp_path / "all" / "keys.yml"
    dry = record(path, {"ams": {"control_mesh": "A"}}, check=True)
    assert dry["changed"]
    assert not path.exists()
    assert record(path, {"ams": {"control_mesh": "A"}})["diff"] == dry["diff"]


def test_a_file_that_ansible_would_then_ignore(record: Record, tmp_path: Path) -> None:
    (tmp_path / "all.yml").write_text("a: 1\n")
    answer = record(tmp_path / "all" / "keys.yml", {"ams": {}})
    assert answer["failed"]
    assert answer["msg"] == (
        f"{tmp_path}/all.yml would be ignored by Ansible once {tmp_path}/all exists. Move it to {tmp_path}/all/main.yml"
    )
    assert not (tmp_path / "all").exists()


def test_a_file_that_is_not_ours(record: Record, tmp_path: Path) -> None:
    path = tmp_path / "keys.yml"
    path.write_text("- a list\n")
    answer = record(path, {"ams": {}})
    assert answer["failed"]
    assert answer["msg"].startswith(f"{path} is not what the collection writes, mend or remove it")
    assert path.read_text() == "- a list\n"
