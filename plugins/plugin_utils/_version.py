# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection.
"""The version of the collection, which stands in galaxy.yml and nowhere else."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

COLLECTION = Path(__file__).resolve().parents[2]


@lru_cache(maxsize=1)
def version(collection: Path = COLLECTION) -> str:
    """From what `ansible-galaxy` made of galaxy.yml when it built the collection; in a checkout, from galaxy.yml."""
    for name in ("MANIFEST.json", "galaxy.yml"):
        path = collection / name
        found = (
            re.search(r'^ *"?version"?: "?([^",\s]+)', path.read_text("utf-8"), re.MULTILINE) if path.exists() else None
        )
        if found:
            return found[1]
    raise ValueError(f"{collection} is no collection: neither MANIFEST.json nor galaxy.yml has a version")
