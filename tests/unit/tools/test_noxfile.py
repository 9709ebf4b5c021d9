"""What the gates do that start at the same moment."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def test_gates_that_start_at_once_all_find_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each may see that the link is not there, and another put it there before it does."""
    monkeypatch.syspath_prepend(ROOT)
    # Once a process: nox takes a second module for sessions that are defined twice.
    noxfile = importlib.import_module("noxfile")
    checkout = tmp_path / "collections/ansible_collections/warren/vpn"
    monkeypatch.setattr(noxfile, "STATE", tmp_path)
    monkeypatch.setattr(noxfile, "CHECKOUT", checkout)
    monkeypatch.setattr(Path, "is_symlink", lambda _path: False)
    monkeypatch.setenv("ANSIBLE_COLLECTIONS_PATH", "")
    for _gate in range(2):
        noxfile.use_checkout()
    assert checkout.readlink() == ROOT
    assert list(tmp_path.iterdir()) == [tmp_path / "collections"]
