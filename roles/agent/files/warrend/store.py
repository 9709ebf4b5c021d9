# Copyright (c) 2026 the warren.vpn authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sessions and choices on disk, so that they outlive the agent and the host."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TypeVar

VERSION = 1
"""Of the schema, in ``PRAGMA user_version``. Version 0 has the same tables: it is of agents that noted none."""

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


Row = TypeVar("Row", SessionRow, ChoiceRow, ForwardRow)

DiskError = sqlite3.Error
"""What was to be written is not on the disk."""


class NewerStoreError(Exception):
    """The database is of a newer agent."""


def _columns(kind: type[SessionRow | ChoiceRow | ForwardRow]) -> tuple[str, str]:
    """The columns that a row has, by their names, and the parameters that stand for them."""
    names = [field.name for field in fields(kind)]
    return ", ".join(names), ", ".join(f":{name}" for name in names)


class Store:
    """The database. Every method blocks until what it wrote is on the disk; one thread at a time.

    What is no more stays in the log beside the database until it is scrubbed.

    Attributes:
        dirty: whether there is something to scrub.
    """

    def __init__(self, path: Path) -> None:
        """Open or make it.

        Raises:
            NewerStoreError: a newer agent has written it. It is left as it is.
        """
        _refuse_newer(path)
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.row_factory = sqlite3.Row
        # A session that a power cut forgets would let its client leave from the entry.
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        # What is deleted is overwritten, here and by `scrub`.
        self._db.execute("PRAGMA secure_delete = ON")
        self._db.executescript(f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version = {VERSION}; COMMIT")
        self.scrub()

    def sessions(self) -> list[SessionRow]:
        """All sessions."""
        return self._all("session", SessionRow)

    def choices(self) -> list[ChoiceRow]:
        """All choices."""
        return self._all("choice", ChoiceRow)

    def forwards(self) -> list[ForwardRow]:
        """All forwarded ports."""
        return self._all("forward", ForwardRow)

    def _all(self, table: str, kind: type[Row]) -> list[Row]:
        names, _parameters = _columns(kind)
        return [kind(**row) for row in self._db.execute(f"SELECT {names} FROM {table}")]

    def put_sessions(self, rows: Iterable[SessionRow]) -> None:
        """Add sessions, or replace those of the same clients."""
        # Not OR REPLACE: that would drop the session of another client that has one of these addresses.
        names, parameters = _columns(SessionRow)
        others = "client6 = excluded.client6, exit = excluded.exit, session4 = excluded.session4, "
        others += "session6 = excluded.session6, since = excluded.since"
        statement = f"INSERT INTO session ({names}) VALUES ({parameters}) ON CONFLICT (client4) DO UPDATE SET {others}"
        listed = list(rows)
        marks = ", ".join("?" * len(listed))
        clients = [row.client4 for row in listed]
        known = self._db.execute(f"SELECT 1 FROM session WHERE client4 IN ({marks})", clients)
        self._many(statement, [vars(row) for row in listed], known.fetchone() is not None)

    def put_choice(self, row: ChoiceRow) -> None:
        """Add a choice, or replace that of the same client."""
        names, parameters = _columns(ChoiceRow)
        self._many(f"INSERT OR REPLACE INTO choice ({names}) VALUES ({parameters})", [vars(row)])

    def put_forward(self, row: ForwardRow) -> None:
        """Add a forwarded port, or replace it."""
        names, parameters = _columns(ForwardRow)
        self._many(f"INSERT OR REPLACE INTO forward ({names}) VALUES ({parameters})", [vars(row)])

    def drop_sessions(self, clients: Iterable[str]) -> None:
        """Forget the sessions of clients, by IPv4 tunnel address."""
        self._many("DELETE FROM session WHERE client4 = :client4", [{"client4": client} for client in clients])

    def drop_choices(self, clients: Iterable[str]) -> None:
        """Forget the choices of clients, by IPv4 tunnel address."""
        self._many("DELETE FROM choice WHERE client4 = :client4", [{"client4": client} for client in clients])

    def drop_forwards(self, ports: Iterable[int]) -> None:
        """Forget forwarded ports."""
        self._many("DELETE FROM forward WHERE port = :port", [{"port": port} for port in ports])

    def scrub(self) -> None:
        """Empty the log beside the database: of what was deleted or replaced, nothing is on the disk any more."""
        self.dirty = False
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        self._db.close()

    def _many(self, statement: str, rows: Sequence[dict[str, object]], ends: bool = True) -> None:
        """Do something with each row; ``ends`` says whether something that was there may be no more."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(statement, rows)
        self.dirty = self.dirty or ends


def _refuse_newer(path: Path) -> None:
    if not path.exists():
        return
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
        (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        raise NewerStoreError(
            f"{path} is of a newer agent: its version is {version}, and this agent knows {VERSION} at most. Deploy the "
            "newer collection again; or, to begin without the sessions, choices and forwarded ports in it, remove it"
        )
