# Copyright (c) 2026 the warren.vpn authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sessions and choices on disk, so that they outlive the agent and the host."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from pathlib import Path

SCHEMA = """
CREATE TABLE IF NOT EXISTS session (
    client4 TEXT PRIMARY KEY, client6 TEXT NOT NULL, exit TEXT NOT NULL,
    session4 TEXT NOT NULL UNIQUE, session6 TEXT NOT NULL UNIQUE, since REAL NOT NULL);
CREATE TABLE IF NOT EXISTS choice (
    client4 TEXT PRIMARY KEY, client6 TEXT NOT NULL, exit4 TEXT, exit6 TEXT);
CREATE TABLE IF NOT EXISTS forward (
    port INTEGER PRIMARY KEY, client4 TEXT NOT NULL, client6 TEXT NOT NULL, since REAL NOT NULL);
"""


@dataclass(frozen=True)
class SessionRow:
    """A session: whose it is (tunnel addresses), by which exit (slug), as whom there, since when (Unix time)."""

    client4: str
    client6: str
    exit: str
    session4: str
    session6: str
    since: float


@dataclass(frozen=True)
class ChoiceRow:
    """Which of this server's own exit addresses a client leaves from; None where the family keeps its default."""

    client4: str
    client6: str
    exit4: str | None
    exit6: str | None


@dataclass(frozen=True)
class ForwardRow:
    """A port of the entry address, whose client's it is, and since when (Unix time)."""

    port: int
    client4: str
    client6: str
    since: float


DiskError = sqlite3.Error
"""What was to be written is not on the disk."""


class Store:
    """The database. Every method blocks until what it wrote is on the disk; one thread at a time.

    What is no more stays in the log beside the database until it is scrubbed.

    Attributes:
        dirty: whether there is something to scrub.
    """

    def __init__(self, path: Path) -> None:
        """Open or make it."""
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        # A session that a power cut forgets would let its client leave from the entry.
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        # What is deleted is overwritten, here and by `scrub`.
        self._db.execute("PRAGMA secure_delete = ON")
        self._db.executescript(SCHEMA)
        self.scrub()

    def sessions(self) -> list[SessionRow]:
        """All sessions."""
        return [SessionRow(*row) for row in self._db.execute("SELECT * FROM session")]

    def choices(self) -> list[ChoiceRow]:
        """All choices."""
        return [ChoiceRow(*row) for row in self._db.execute("SELECT * FROM choice")]

    def forwards(self) -> list[ForwardRow]:
        """All forwarded ports."""
        return [ForwardRow(*row) for row in self._db.execute("SELECT * FROM forward")]

    def put_sessions(self, rows: Iterable[SessionRow]) -> None:
        """Add sessions, or replace those of the same clients."""
        # Not OR REPLACE: that would drop the session of another client that has one of these addresses.
        others = "client6 = excluded.client6, exit = excluded.exit, session4 = excluded.session4, "
        others += "session6 = excluded.session6, since = excluded.since"
        statement = f"INSERT INTO session VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (client4) DO UPDATE SET {others}"
        listed = [astuple(row) for row in rows]
        marks = ", ".join("?" * len(listed))
        known = self._db.execute(f"SELECT 1 FROM session WHERE client4 IN ({marks})", [row[0] for row in listed])
        self._many(statement, listed, known.fetchone() is not None)

    def put_choice(self, row: ChoiceRow) -> None:
        """Add a choice, or replace that of the same client."""
        self._many("INSERT OR REPLACE INTO choice VALUES (?, ?, ?, ?)", [astuple(row)])

    def put_forward(self, row: ForwardRow) -> None:
        """Add a forwarded port, or replace it."""
        self._many("INSERT OR REPLACE INTO forward VALUES (?, ?, ?, ?)", [astuple(row)])

    def drop_sessions(self, clients: Iterable[str]) -> None:
        """Forget the sessions of clients, by IPv4 tunnel address."""
        self._many("DELETE FROM session WHERE client4 = ?", [(client,) for client in clients])

    def drop_choices(self, clients: Iterable[str]) -> None:
        """Forget the choices of clients, by IPv4 tunnel address."""
        self._many("DELETE FROM choice WHERE client4 = ?", [(client,) for client in clients])

    def drop_forwards(self, ports: Iterable[int]) -> None:
        """Forget forwarded ports."""
        self._many("DELETE FROM forward WHERE port = ?", [(port,) for port in ports])

    def scrub(self) -> None:
        """Empty the log beside the database: of what was deleted or replaced, nothing is on the disk any more."""
        self.dirty = False
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Close it."""
        self._db.close()

    def _many(self, statement: str, rows: list[tuple[object, ...]], ends: bool = True) -> None:
        """Do something with each row; ``ends`` says whether something that was there may be no more."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(statement, rows)
        self.dirty = self.dirty or ends
