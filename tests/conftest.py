"""Puts the checkout where Python and Ansible find it as the collection warren.vpn, wherever it was cloned to."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
if ROOT.parts[-3:] == ("ansible_collections", "warren", "vpn"):
    collections = ROOT.parents[2]
else:
    collections = ROOT / ".nox/collections"
    link = collections / "ansible_collections/warren/vpn"
    if not link.is_symlink():
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(ROOT)
sys.path.insert(0, str(collections))
