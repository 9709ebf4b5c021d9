"""Lets the tests import the agent, and what it imports that the package index does not have."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
AGENT = HERE.parents[2] / "roles/agent/files"
# python3-nftables: lab/bootstrap installs it.
NFTABLES = Path("/usr/lib/python3/dist-packages/nftables/__init__.py")

# `nox -s newest` runs what Ansible itself imports with the newest ansible-core, in a root directory that has no agent.
collect_ignore_glob = ["test_*.py"] if sys.prefix == "/opt/ansible" else []


def import_nftables() -> None:
    """Import the distribution's module by its path; nothing else of the distribution's Python."""
    if "nftables" in sys.modules:
        return
    if not NFTABLES.exists():
        raise pytest.UsageError(f"{NFTABLES} is missing: apt-get install python3-nftables, or make venv")
    spec = importlib.util.spec_from_file_location(
        "nftables", NFTABLES, submodule_search_locations=[str(NFTABLES.parent)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["nftables"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


if not collect_ignore_glob:
    sys.path[:0] = [str(AGENT), str(HERE)]
    import_nftables()


@pytest.fixture
def netns() -> Iterator[None]:
    """A fresh network namespace for this test, and for all threads and processes that it starts."""
    import namespaces  # noqa: PLC0415 - needs the path above

    with namespaces.fresh():
        yield
