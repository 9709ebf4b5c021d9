# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# PRIVATE to the collection, and installed on every server as part of the engine that restores its network at boot:
# standard library and relative imports only.
"""``/etc/warren/network.json``: what is wanted on this host, by who declared it, and what was there before.

It is what boot restores, and how a run knows what an owner declares no more. What is wanted travels as plain data in
the form that the file has; ``Network`` is the same, read.
"""

from __future__ import annotations

import fcntl
import functools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import _host, _link, _nftables, _rules

STATE_FILE = _host.STATE_DIR / "network.json"
LOCK_FILE = Path("/run/warren-network.lock")
# Stands in the file while a run puts what it notes there in place, and after one that died over it.
UNFINISHED = "unfinished"
# What nobody declares any more stands here until it is gone: a run that died over it is finished by the next one.
LEAVING = "leaving"

# What is on record of a part as a list of names or paths.
LISTS = ("packages", "files", "directories", "services", "users")


@dataclass(frozen=True)
class Part:
    """What one owner has on this host.

    Attributes:
        owner: the role that declared it.
        packages: Debian packages that have to be there.
        files: absolute paths.
        directories: that its services write to, and that go with it.
        services: systemd units that start at boot.
        users: that a file of its in ``sysusers.d`` makes.
        sysctl: kernel settings.
        tables: nftables tables.
        rules: routing rules.
        routes: those that lead nowhere.
        links: by name.
    """

    owner: str
    packages: Sequence[str] = ()
    files: Sequence[str] = ()
    directories: Sequence[str] = ()
    services: Sequence[str] = ()
    users: Sequence[str] = ()
    sysctl: Mapping[str, str] | None = None
    tables: Sequence[_nftables.Table] = ()
    rules: Sequence[_rules.Rule] = ()
    routes: Sequence[_link.Route] = ()
    links: Mapping[str, _link.Link] | None = None


@dataclass(frozen=True)
class Network:
    """All that is wanted on a host.

    Attributes:
        version: the version of the collection that wants it.
        parts: in the order in which they are placed.
        userspace: True for userspace WireGuard, False for the kernel's, None for the kernel's where it has one.
        found: kernel settings as they were before the first part changed them.
        leaving: of what is on record, what nobody declares any more and a run has not taken away yet.
        data: all this as plain data.
        unfinished: of what is on record, whether the run that noted it did not get to its end.
    """

    version: str
    parts: Sequence[Part]
    userspace: bool | None
    found: Mapping[str, str]
    data: Mapping[str, Any]
    unfinished: bool = False
    leaving: Part = Part("")

    @property
    def sysctl(self) -> dict[str, str]:
        """The kernel settings of all parts."""
        return {key: value for part in self.parts for key, value in (part.sysctl or {}).items()}

    @property
    def tables(self) -> list[_nftables.Table]:
        """The tables of all parts."""
        return [table for part in self.parts for table in part.tables]

    @property
    def rules(self) -> list[_rules.Rule]:
        """The routing rules of all parts."""
        return [rule for part in self.parts for rule in part.rules]

    @property
    def routes(self) -> list[_link.Route]:
        """The routes of all parts that are of no link."""
        return [route for part in self.parts for route in part.routes]

    @property
    def is_of_before_owners(self) -> bool:
        """Whether a version of the collection noted it that knew no owners, and no routing rules."""
        return any(not part.owner for part in self.parts)

    @functools.cached_property
    def links(self) -> Mapping[str, _link.Link]:
        """The links of all parts, by name."""
        return {name: link for part in self.parts for name, link in (part.links or {}).items()}

    def named(self, what: str) -> list[str]:
        """What all parts have of one of LISTS, and what is leaving, each once."""
        return list(dict.fromkeys(name for part in (*self.parts, self.leaving) for name in getattr(part, what)))


EMPTY = Network("", (), None, {}, {})


def read() -> Network | None:
    """What the last run wanted; None before the first run."""
    text = _host.read(STATE_FILE)
    return _parsed(text) if text else None


@functools.lru_cache(maxsize=2)  # asked for again and again, and the work grows with the fleet
def _parsed(text: str) -> Network:
    return network_from(json.loads(text))


@contextmanager
def alone() -> Iterator[None]:
    """Wait until nobody else changes this host's network, and keep others waiting meanwhile."""
    with LOCK_FILE.open("w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


# --- plain data ----------------------------------------------------------------------------------------------------


def data_from(parameters: Mapping[str, Any], last: Network | None = None) -> dict[str, Any]:
    """What is wanted, as plain data, from the parameters of the module ``network``.

    Args:
        parameters: see there.
        last: what is on record. With ``only``, owners that are not named keep what they have there.

    Raises:
        NetworkError: a link is not JSON; a part has no owner, or one that another has too; or the record is of a time
            before there were owners.
    """
    parts = [_part_data(part) for part in parameters["parts"]]
    owners = [part["owner"] for part in parts]
    for owner in owners:
        if not owner or owners.count(owner) > 1:
            raise _host.NetworkError(
                f"owner = {owner!r}: every part has an owner of its own. Name the role that has it."
            )
    if parameters.get("only") and last:
        parts = _among_the_others(parts, last)
    return {
        "version": parameters["version"],
        "userspace": {"auto": None, "kernel": False, "userspace": True}[str(parameters["wireguard"])],
        "parts": parts,
    }


def _among_the_others(parts: list[dict[str, Any]], last: Network) -> list[dict[str, Any]]:
    """Parts in the places of those that they replace, after those of other owners where they are new."""
    if last.is_of_before_owners:
        raise _host.NetworkError(
            "an earlier version of the collection placed this host's network, and noted no owners. "
            "Run site.yml once, without --tags: then a role can be placed alone."
        )
    mine = {part["owner"]: part for part in parts}
    kept = [mine.pop(part["owner"], part) for part in last.data.get("parts", [])]
    return kept + list(mine.values())


def _part_data(part: Mapping[str, Any]) -> dict[str, Any]:
    data: dict[str, Any] = {"owner": part.get("owner") or ""}
    named = {
        **{what: list(part.get(what) or []) for what in LISTS},
        "files": [file["path"] for file in part.get("files") or []],
        "services": [service["name"] for service in part.get("services") or []],
        "sysctl": {key: str(value) for key, value in (part.get("sysctl") or {}).items()},
        "tables": [dict(table) for table in part.get("tables") or []],
        # A module's parameters have every option, with None for those that are not given.
        "rules": [{key: value for key, value in rule.items() if value is not None} for rule in part.get("rules") or []],
        "routes": [
            {key: value for key, value in route.items() if value is not None} for route in part.get("routes") or []
        ],
        "links": [_loaded(link) for link in part.get("links") or []],
    }
    return {**data, **{what: value for what, value in named.items() if value}}


def _loaded(link: str) -> Any:
    try:
        return json.loads(link)
    except ValueError as error:
        raise _host.NetworkError(f"a link is not JSON: {error}") from error


def network_from(data: Mapping[str, Any]) -> Network:
    """What is wanted, from plain data.

    A record of a version that knew no owners has one part, without an owner and with what is still to be read of it.

    Raises:
        NetworkError: something in it is not as it should be, or two parts want the same thing.
    """
    parts = data.get("parts")
    if parts is None:
        parts = [{"owner": "", **_still_read(data)}]
    userspace = data.get("userspace")
    network = Network(
        version=str(data["version"]),
        parts=[_part_from(part) for part in _link.dicts(parts)],
        userspace=None if userspace is None else bool(userspace),
        found=dict(data.get("found") or {}),
        data={key: value for key, value in data.items() if key != UNFINISHED},
        unfinished=bool(data.get(UNFINISHED)),
        leaving=_part_from({"owner": "", **(data.get(LEAVING) or {})}),
    )
    refuse_conflicts(network.parts)
    return network


def while_under_way(network: Network, last: Network) -> dict[str, Any]:
    """What is on record while a run goes from what was wanted to what is: the first is needed to take it away."""
    leaving = {what: [name for name in last.named(what) if name not in network.named(what)] for what in LISTS}
    gone = {key: value for key, value in last.found.items() if key not in network.found}
    sysctl = {key: value for key, value in {**last.sysctl, **(last.leaving.sysctl or {})}.items() if key in gone}
    data = {**network.data, UNFINISHED: True}
    if gone:
        data["found"] = {**network.found, **gone}
    kept = {what: names for what, names in {**leaving, "sysctl": sysctl}.items() if names}
    return {**data, LEAVING: kept} if kept else data


def _still_read(data: Mapping[str, Any]) -> dict[str, Any]:
    links = [{key: link[key] for key in link.keys() & _link.LINK_KEYS} for link in _link.dicts(data.get("links") or [])]
    return {"sysctl": data.get("sysctl"), "tables": data.get("tables"), "links": links}


def _part_from(part: Mapping[str, Any]) -> Part:
    sysctl = part.get("sysctl") or {}
    tables, links = part.get("tables") or [], part.get("links") or []
    if not isinstance(sysctl, dict) or not isinstance(tables, list) or not isinstance(links, list):
        raise _host.NetworkError("sysctl is a map; tables and links are lists")
    read_links = [_link.link_from(link) for link in _link.dicts(links)]
    return Part(
        owner=str(part["owner"]),
        sysctl={str(key): str(value) for key, value in sysctl.items()},
        tables=[_nftables.table_from(table) for table in _link.dicts(tables)],
        routes=_routes_from(part.get("routes") or []),
        rules=[rule for data in _link.dicts(part.get("rules") or []) for rule in _rules.rules_from(data)],
        links={link.name: link for link in read_links},
        **{what: _link.strings(part.get(what) or []) for what in LISTS},
    )


def _routes_from(data: object) -> list[_link.Route]:
    try:
        routes = [_link.route_from(route) for route in _link.dicts(data)]
        for route in routes:
            if not route.type or route.gateway or route.source:
                raise ValueError(f"{route.destination}: it has a type, and neither a gateway nor a source")
    except (KeyError, TypeError, ValueError) as error:
        raise _host.NetworkError(f"a route of no link is not as it should be: {error!r}") from error
    return routes


def refuse_conflicts(parts: Iterable[Part]) -> None:
    """Make sure that no two parts want the same thing, or a kernel setting differently.

    Raises:
        NetworkError: two do; the message names both and what it is.
    """
    owners: dict[str, tuple[str, str]] = {}
    for part in parts:
        for what, value in _claims(part):
            owner, theirs = owners.setdefault(what, (part.owner, value))
            if owner != part.owner and (not value or value != theirs):
                wanted = f" ({value}, and {theirs})" if value else ""
                raise _host.NetworkError(
                    f"{part.owner} and {owner} both declare {what}{wanted}. One of the two roles must leave it out, or "
                    "name another."
                )


def _claims(part: Part) -> Iterator[tuple[str, str]]:
    """What a part claims, and what it wants there where others may want the same."""
    for path in (*part.files, *part.directories):
        yield path, ""
    for table in part.tables:
        yield f"nftables table {table.name}", ""
    for route in part.routes:
        yield f"route {route}", ""
    for link in (part.links or {}).values():
        yield f"link {link.name}", ""
        if link.listen_port:
            yield f"UDP port {link.listen_port}", ""
    for key, value in (part.sysctl or {}).items():
        yield f"kernel setting {key}", value


# --- text ----------------------------------------------------------------------------------------------------------

_encode = json.JSONEncoder(sort_keys=True).encode
_PEER_DEPTH = 6


def text_of(data: Mapping[str, Any]) -> str:
    """The text of the file, a line for each peer, so that a diff of two shows which peers differ."""
    return f"{_lines(data, 0)}\n"


def _lines(value: Any, depth: int) -> str:
    inside = list(value.values() if isinstance(value, dict) else value) if isinstance(value, (dict, list)) else []
    if depth == _PEER_DEPTH or not any(isinstance(item, (dict, list)) for item in inside):
        return _encode(value)
    margin = " " * (depth + 1)
    if isinstance(value, dict):
        items = [f"{margin}{_encode(key)}: {_lines(item, depth + 1)}" for key, item in sorted(value.items())]
        return "{\n" + ",\n".join(items) + f"\n{margin[1:]}}}"
    return "[\n" + ",\n".join(f"{margin}{_lines(item, depth + 1)}" for item in value) + f"\n{margin[1:]}]"


def version_in(text: str | None) -> str:
    """The version of the collection in the text of the file; empty where there is none."""
    return str(json.loads(text).get("version", "")) if text else ""
