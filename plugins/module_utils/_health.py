# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# PRIVATE to the collection.
"""Seeing to it that a change loses no server: those that answered through their link before must answer after it."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping

from . import _host, _network, _record
from ._ping import Pinger

# Servers that a change lost. It outlives the run, so that the next one, which finds nothing to change here, does not
# take the change for a good one and carry it to the other servers.
LOST_FILE = _host.STATE_DIR / "lost.json"

BEFORE_SECONDS = 1


def lost_before() -> set[str]:
    """What an earlier change lost and nobody has seen since."""
    return set(json.loads(_host.read(LOST_FILE) or "[]"))


def answering(alive: Mapping[str, str]) -> set[str]:
    """Which of the servers with a session answer now."""
    return set(Pinger(alive).run(BEFORE_SECONDS))


def lost(expected: Collection[str], wanted: _record.Network, seconds: float) -> list[str]:
    """Which of the servers do not answer at the address that they are to have, and note them for the next run.

    Args:
        expected: those that answered before, or that an earlier change lost.
        wanted: what is wanted on this host.
        seconds: how long they may take; 0 asks nobody.
    """
    addresses = {name: address for name, address in _network.watched_addresses(wanted).items() if name in expected}
    missing = sorted(set(addresses) - set(Pinger(addresses).run(seconds))) if seconds else []
    if missing:
        _host.write(LOST_FILE, json.dumps(missing))
    else:
        LOST_FILE.unlink(missing_ok=True)
    return missing
