# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# PRIVATE to the collection, and installed on every server as part of the engine that restores its network at boot:
# standard library and relative imports only.
"""nftables tables of this host: what is live, what a file would give, and making the one the other.

A table is one ``inet`` table that one role owns. Sets and maps that its text declares without elements belong to a
running program (the agent): their elements are neither compared nor touched. Those with elements are the role's.
"""

from __future__ import annotations

import functools
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import _host
from ._plan import Plan

# Maps that let somebody pass, and what is of the moment. They are not carried from one table to the next: what the
# program changed in between would be as it was, and nobody knew. The program fills them anew.
GATES = frozenset(f"{name}{family}" for name in ("client_mark", "session_flow", "begun") for family in "46")

TABLE_DIR = _host.STATE_DIR / "nftables.d"

_SECRET = re.compile(r"@secret:([a-z0-9_]+)@")
_TABLE = re.compile(r"^table inet (?P<name>\S+) \{\n.*?^\}\n", re.MULTILINE | re.DOTALL)
_SET = re.compile(r"^\t(?P<kind>set|map) (?P<name>\S+) \{\n(?P<body>.*?)^\t\}\n", re.MULTILINE | re.DOTALL)
_ELEMENTS = re.compile(r"^\t\telements = (\{.*?\})\n", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Table:
    """One table as a role wants it.

    Attributes:
        name: the table's name, in the family ``inet``.
        content: ``table inet <name> { ... }`` in nftables' own language. ``@secret:<name>@`` stands for a number that
            is made on the host and never leaves it.
    """

    name: str
    content: str

    @property
    def path(self) -> Path:
        """The file that boot loads the table from."""
        return TABLE_DIR / f"{self.name}.nft"

    def script(self, create_secrets: bool) -> str:
        """The table's file: loading it replaces the rules of the live table and leaves elements of live sets alone."""
        return _SECRET.sub(lambda match: str(_host.secret_number(match[1], create_secrets)), self.text)

    @property
    def text(self) -> str:
        """The table's file, without the host's secrets."""
        return f"table inet {self.name}\nflush table inet {self.name}\n{self.content.rstrip()}\n"


def table_from(data: Mapping[str, object]) -> Table:
    """A table from the plain data that the module is given and that ``network.json`` holds."""
    return Table(str(data["name"]), str(data["content"]))


def expected(tables: Sequence[Table], create_secrets: bool) -> dict[str, str]:
    """How nft lists tables once they are loaded, by name, found out by loading them in an empty network namespace.

    Raises:
        NetworkError: nft refuses a table; the message has its name and nft's words.
    """
    scripts = {table.name: table.script(create_secrets) for table in tables}
    if not scripts:
        return {}
    result = _listed("".join(scripts.values()))
    if not result.returncode:
        return _by_name(result.stdout)
    for name, script in scripts.items():
        result = _listed(script)
        if result.returncode:
            raise _host.NetworkError(f"nftables table {name} is not accepted: {result.stderr.strip()}")
    raise _host.NetworkError(f"nftables tables {', '.join(scripts)} are accepted, but not together")


def _listed(script: str) -> subprocess.CompletedProcess[str]:
    # Two processes, for nft does not list what it has not committed.
    shell = "nft --file - && exec nft --stateless list ruleset"
    return _host.attempt(["unshare", "--net", "sh", "-c", shell], script)


def live(name: str) -> str | None:
    """How nft lists the live table, or None where there is no such table."""
    return live_tables().get(name)


def live_tables() -> dict[str, str]:
    """How nft lists all live tables, by name. In one go: asked for several by name, nft 1.0.6 finds only the last."""
    return _by_name(_host.run(["nft", "--stateless", "list", "ruleset", "inet"]))


def _by_name(listing: str) -> dict[str, str]:
    return {match["name"]: match[0] for match in _TABLE.finditer(listing)}


def comparable(listing: str | None, wanted: str) -> str:
    """A live listing without the elements that belong to running programs, to be held against the wanted listing."""
    owned = _with_elements(wanted)

    def strip(match: re.Match[str]) -> str:
        return match[0] if match["name"] in owned else _ELEMENTS.sub("", match[0])

    return _SET.sub(strip, listing or "")


def redacted(listing: str) -> str:
    """A listing that can be shown: the seeds of hashes, which are secrets of the host, are left out."""
    return re.sub(r"\bseed 0x[0-9a-f]+", "seed (hidden)", listing)


def load(table: Table) -> None:
    """Make the live table the wanted one, in one transaction."""
    script = table.script(create_secrets=True)
    wanted = expected([table], create_secrets=True)[table.name]
    owned = _with_elements(wanted)
    emptied = [
        f"flush {match['kind']} inet {table.name} {match['name']}\n"
        for match in _SET.finditer(live(table.name) or "")
        if match["name"] in owned
    ]
    if _host.attempt(["nft", "--file", "-"], "".join(emptied) + script).returncode or (
        comparable(live(table.name), wanted) != wanted
    ):
        _host.run(["nft", "--file", "-"], _anew(table, script, wanted))


def _anew(table: Table, script: str, wanted: str) -> str:
    """A transaction that makes the table from nothing, for what a flush leaves behind: chains and sets no longer
    declared, or declared otherwise. The elements of programs' sets move to the new table."""
    declared = {match["name"] for match in _SET.finditer(wanted)} - _with_elements(wanted) - GATES
    carried = [
        f"add element inet {table.name} {match['name']} {elements[1]}\n"
        for match in _SET.finditer(live(table.name) or "")
        for elements in _ELEMENTS.finditer(match["body"])
        if match["name"] in declared
    ]
    return f"table inet {table.name}\ndelete table inet {table.name}\n{script}{''.join(carried)}"


def _with_elements(listing: str) -> set[str]:
    return {match["name"] for match in _SET.finditer(listing) if _ELEMENTS.search(match["body"])}


def compare(tables: Sequence[Table], plan: Plan) -> None:
    """The tables that are not as they are wanted, and their files."""
    listings, here = expected(tables, create_secrets=False), live_tables()
    for table in tables:
        wanted = listings[table.name]
        if not _host.in_place(table.path, table.script(create_secrets=False)):
            plan.add(f"write {table.path}", step=functools.partial(_write, table))
        found = comparable(here.get(table.name), wanted)
        if found != wanted:
            plan.add(
                f"load nftables table {table.name}",
                f"nftables table {table.name}",
                redacted(found).splitlines(),
                redacted(wanted).splitlines(),
                functools.partial(load, table),
            )


def _write(table: Table) -> None:
    _host.write(table.path, table.script(create_secrets=True))


def compare_surplus(tables: Sequence[Table], plan: Plan) -> None:
    """The tables that an earlier run has put on this host and that nobody wants."""
    for name in sorted(set(recorded()) - {table.name for table in tables}):
        text = f"nftables table {name}"
        plan.add(f"remove {text}", text, [f"table inet {name}"], [], functools.partial(_remove, name))


def _remove(name: str) -> None:
    remove(name)
    (TABLE_DIR / f"{name}.nft").unlink()


def remove(name: str) -> None:
    """Remove a live table, if there is one."""
    if live(name) is not None:
        _host.run(["nft", "delete", "table", "inet", name])


def recorded() -> list[str]:
    """The names of the tables that a run has put on this host."""
    return sorted(path.stem for path in TABLE_DIR.glob("*.nft"))
