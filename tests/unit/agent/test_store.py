"""Sessions and choices on disk."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import AGENT
from warrend.store import VERSION, ChoiceRow, ForwardRow, NewerStoreError, SessionRow, Store

ALICE = SessionRow("10.100.0.1", "fd57::c1", "nyc", "10.128.128.7", "fd57:8001::7", 1_700_000_000.25)
BOB = SessionRow("10.100.0.2", "fd57::c2", "nyc", "10.128.128.8", "fd57:8001::8", 1_700_000_001.0)
CHOICE = ChoiceRow("10.100.0.3", "fd57::c3", "203.0.113.12", None)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "sessions.db")
    yield opened
    opened.close()


def test_what_was_put_is_there_when_it_is_opened_again(store: Store, tmp_path: Path) -> None:
    store.put_sessions([ALICE, BOB])
    store.put_choice(CHOICE)
    store.close()
    again = Store(tmp_path / "sessions.db")
    assert again.sessions() == [ALICE, BOB]
    assert again.choices() == [CHOICE]
    again.drop_sessions([ALICE.client4, "10.100.0.9"])
    again.drop_choices([CHOICE.client4])
    again.close()
    last = Store(tmp_path / "sessions.db")
    assert last.sessions() == [BOB]
    assert last.choices() == []
    last.close()


def test_what_was_put_outlives_a_process_that_is_killed(tmp_path: Path) -> None:
    """Durable when the call returns: a session that is forgotten would let its client leave from the entry."""
    script = f"""
import os, pathlib, signal, sys
sys.path.insert(0, {str(AGENT)!r})
from warrend.store import SessionRow, Store
store = Store(pathlib.Path({str(tmp_path / "sessions.db")!r}))
store.put_sessions([SessionRow{tuple(vars(ALICE).values())!r}])
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    store = Store(tmp_path / "sessions.db")
    assert store.sessions() == [ALICE]
    store.close()


def test_a_power_cut_forgets_nothing(store: Store, tmp_path: Path) -> None:
    """What SQLite promises with this setting, which is each connection's own."""
    assert store.sessions() == []
    settings = {name: [] for name in ("journal_mode", "synchronous")}
    with pytest.MonkeyPatch.context() as patched:
        opened = sqlite3.connect(":memory:", isolation_level=None)
        patched.setattr(sqlite3, "connect", lambda *_arguments, **_more: opened)
        Store(tmp_path / "other.db")
        settings["synchronous"] = tuple(opened.execute("PRAGMA synchronous").fetchone())
        opened.close()
    with sqlite3.connect(tmp_path / "sessions.db") as other:
        settings["journal_mode"] = other.execute("PRAGMA journal_mode").fetchone()
    other.close()
    assert settings == {"journal_mode": ("wal",), "synchronous": (2,)}


def test_a_client_has_one_session_and_one_choice(store: Store) -> None:
    store.put_sessions([ALICE])
    switched = replace(
        ALICE, exit="fra", session4="10.128.128.9", session6="fd57:8001::9", since=5.0, client6="fd57::d1"
    )
    store.put_sessions([switched])
    assert store.sessions() == [switched]
    store.put_choice(CHOICE)
    store.put_choice(replace(CHOICE, exit4=None, exit6="2001:db8:e::12"))
    assert store.choices() == [replace(CHOICE, exit4=None, exit6="2001:db8:e::12")]


@pytest.mark.parametrize("taken", [{"session4": ALICE.session4}, {"session6": ALICE.session6}])
def test_no_session_takes_the_address_of_another(store: Store, taken: dict[str, str]) -> None:
    store.put_sessions([ALICE, BOB])
    carol = SessionRow("10.100.0.4", "fd57::c4", "nyc", "10.128.128.11", "fd57:8001::11", 2.0)
    for thief in (replace(carol, **taken), replace(BOB, **taken)):
        with pytest.raises(sqlite3.IntegrityError, match="UNIQUE constraint failed"):
            store.put_sessions([carol, thief] if thief.client4 == BOB.client4 else [thief])
        assert store.sessions() == [ALICE, BOB], "all or nothing"


def test_another_thread_may_write(store: Store) -> None:
    """The agent writes in a thread of its own; it made the connection in another."""
    with ThreadPoolExecutor(1) as executor:
        executor.submit(store.put_sessions, [ALICE]).result()
        assert executor.submit(store.sessions).result() == [ALICE]


def test_nothing_of_what_is_no_more_is_on_the_disk(store: Store, tmp_path: Path) -> None:
    """Neither in the database nor in the log beside it."""

    def said() -> bytes:
        return b"".join(path.read_bytes() for path in tmp_path.iterdir())

    assert not store.dirty
    store.put_sessions([ALICE, BOB])
    assert not store.dirty, "nothing ended"
    assert ALICE.session4.encode() in said()
    store.put_sessions([replace(ALICE, exit="fra", session4="10.128.128.9", session6="fd57:8001::9")])
    store.put_choice(CHOICE)
    store.put_forward(ForwardRow(40000, "10.100.0.5", "fd57::c5", 3.0))
    assert store.dirty
    store.scrub()
    assert not store.dirty
    assert not any(word in said() for word in (b"10.128.128.7", b"fd57:8001::7"))
    for drop in (
        lambda: store.drop_sessions([ALICE.client4, BOB.client4]),
        lambda: store.drop_choices([CHOICE.client4]),
        lambda: store.drop_forwards([40000]),
    ):
        drop()
        assert store.dirty
        store.scrub()
    assert not any(word in said() for word in (b"10.100.", b"10.128.", b"fd57:", b"203.0.113."))


def test_what_a_killed_agent_left_is_scrubbed_at_the_next_start(tmp_path: Path) -> None:
    killed = Store(tmp_path / "sessions.db")
    killed.put_sessions([ALICE])
    killed.drop_sessions([ALICE.client4])
    assert any(b"10.128.128.7" in path.read_bytes() for path in tmp_path.iterdir())
    Store(tmp_path / "sessions.db").close()
    assert not any(b"10.128.128.7" in path.read_bytes() for path in tmp_path.iterdir())
    killed.close()


# --- databases of other agents

# What an agent did that noted no version; by position, as it did. The last of it is in the log beside the database.
BEFORE = """
PRAGMA journal_mode = WAL;
CREATE TABLE IF NOT EXISTS session (
    client4 TEXT PRIMARY KEY, client6 TEXT NOT NULL, exit TEXT NOT NULL,
    session4 TEXT NOT NULL UNIQUE, session6 TEXT NOT NULL UNIQUE, since REAL NOT NULL);
CREATE TABLE IF NOT EXISTS choice (
    client4 TEXT PRIMARY KEY, client6 TEXT NOT NULL, exit4 TEXT, exit6 TEXT);
CREATE TABLE IF NOT EXISTS forward (
    port INTEGER PRIMARY KEY, client4 TEXT NOT NULL, client6 TEXT NOT NULL, since REAL NOT NULL);
INSERT INTO session VALUES ('10.100.0.1', 'fd57::c1', 'nyc', '10.128.128.7', 'fd57:8001::7', 1700000000.25);
PRAGMA wal_checkpoint(TRUNCATE);
INSERT INTO session VALUES ('10.100.0.2', 'fd57::c2', 'nyc', '10.128.128.8', 'fd57:8001::8', 1700000001.0);
INSERT INTO choice VALUES ('10.100.0.3', 'fd57::c3', '203.0.113.12', NULL);
INSERT INTO forward VALUES (40000, '10.100.0.1', 'fd57::c1', 3.0);
"""


def version_of(path: Path) -> int:
    with closing(sqlite3.connect(path)) as opened:
        return int(opened.execute("PRAGMA user_version").fetchone()[0])


@pytest.mark.parametrize("killed", [False, True])
def test_a_database_without_a_version_is_taken_over_whole(tmp_path: Path, killed: bool) -> None:
    path = tmp_path / "sessions.db"
    before = sqlite3.connect(path, isolation_level=None)
    before.executescript(BEFORE)
    if killed:
        path = tmp_path / "killed/sessions.db"
        shutil.copytree(tmp_path, path.parent, ignore=shutil.ignore_patterns("killed", "*-shm"))
        assert path.with_name("sessions.db-wal").stat().st_size > 0
    before.close()
    assert version_of(path) == 0
    for _time in range(2):
        store = Store(path)
        assert (store.sessions(), store.choices()) == ([ALICE, BOB], [CHOICE])
        assert store.forwards() == [ForwardRow(40000, "10.100.0.1", "fd57::c1", 3.0)]
        store.close()
    assert version_of(path) == VERSION == 1


def test_a_database_of_a_newer_agent_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as newer:
        newer.executescript(BEFORE + "PRAGMA user_version = 2; PRAGMA wal_checkpoint(TRUNCATE)")
    content, changed = path.read_bytes(), path.stat().st_mtime_ns
    with pytest.raises(NewerStoreError) as caught:
        Store(path)
    assert str(caught.value) == (
        f"{path} is of a newer agent: its version is 2, and this agent knows 1 at most. Deploy the newer collection "
        "again; or, to begin without the sessions, choices and forwarded ports in it, remove it"
    )
    assert (path.read_bytes(), path.stat().st_mtime_ns) == (content, changed)


def test_what_a_killed_newer_agent_left_in_the_log_counts_and_stays_there(tmp_path: Path) -> None:
    newer = sqlite3.connect(tmp_path / "sessions.db", isolation_level=None)
    newer.executescript(BEFORE + "PRAGMA user_version = 2")
    killed = tmp_path / "killed"
    shutil.copytree(tmp_path, killed, ignore=shutil.ignore_patterns("killed", "*-shm"))
    newer.close()
    files = ("sessions.db", "sessions.db-wal")
    before = [(killed / name).read_bytes() for name in files]
    with pytest.raises(NewerStoreError, match="its version is 2"):
        Store(killed / "sessions.db")
    assert [(killed / name).read_bytes() for name in files] == before


def test_columns_are_named(tmp_path: Path) -> None:
    """In a database whose columns are in another order, nothing ends up in another's place."""
    path = tmp_path / "sessions.db"
    with closing(sqlite3.connect(path)) as other:
        other.executescript("""
            CREATE TABLE session (since REAL, session6 TEXT UNIQUE, session4 TEXT UNIQUE, exit TEXT, client6 TEXT,
                                  client4 TEXT PRIMARY KEY, more TEXT);
            CREATE TABLE choice (exit6 TEXT, exit4 TEXT, client6 TEXT, client4 TEXT PRIMARY KEY);
            CREATE TABLE forward (since REAL, client6 TEXT, client4 TEXT, port INTEGER PRIMARY KEY);
        """)
    store = Store(path)
    store.put_sessions([ALICE])
    store.put_choice(CHOICE)
    store.put_forward(ForwardRow(40000, "10.100.0.1", "fd57::c1", 3.0))
    assert (store.sessions(), store.choices()) == ([ALICE], [CHOICE])
    assert store.forwards() == [ForwardRow(40000, "10.100.0.1", "fd57::c1", 3.0)]
    store.close()
