"""The version of the collection, in a checkout and where it is installed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from ansible_collections.warren.vpn.plugins.plugin_utils._version import COLLECTION, version


def test_a_checkout_has_it_in_galaxy_yml() -> None:
    assert version() == yaml.safe_load((COLLECTION / "galaxy.yml").read_text())["version"]


def test_an_installed_collection_has_it_in_its_manifest(tmp_path: Path) -> None:
    info = {"collection_info": {"namespace": "warren", "version": "2.3.4-rc.1", "readme": "README.md"}, "format": 1}
    (tmp_path / "MANIFEST.json").write_text(json.dumps(info, indent=1))
    assert version(tmp_path) == "2.3.4-rc.1"


def test_what_is_no_collection_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is no collection: neither MANIFEST\.json nor galaxy\.yml has a version"):
        version(tmp_path)
