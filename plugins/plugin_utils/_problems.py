# Copyright (c) 2026 the warren.vpn authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a problem of the inventory is, and readers that turn one value of unknown type into a plain one or a problem.

Private to the collection; used by ``_inventory.py`` and ``_checks.py`` only. A reader never raises: it returns None
and reports, so that one run shows every mistake.
"""

from __future__ import annotations

import base64
import binascii
import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from . import _addressing

FLEET = "all"
"""The host named by a problem that concerns a variable of the whole fleet."""

SHOWN_BYTES = 80
SHOWN_NAMES = 5

KEY_REMEDY = "Write a mapping of names to keys, or delete the file and run site.yml to have it written again."


@dataclass(frozen=True)
class Unreadable:
    """Stands for a value that could not be rendered: an undefined name in its template, a vault without password."""

    reason: str


@dataclass(frozen=True)
class Problem:
    """One mistake: where it stands, what is wrong, and what to do (``remedy``: one or more whole sentences)."""

    host: str
    variable: str
    value: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        value = f" = {self.value}" if self.value else ""
        return f"{self.host}: {self.variable}{value}: {self.problem}. {self.remedy}"


@dataclass
class Report:
    """Collects the problems and warnings of one reading."""

    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def add(self, host: str, variable: str, value: object, problem: str, remedy: str) -> None:
        """Report a problem. ``value`` None or empty shows no value: the variable is missing, or its value is secret."""
        self.problems.append(Problem(host, variable, show(value), problem, remedy))


@dataclass(frozen=True)
class Place:
    """Where a value stands, for the problems that its readers report."""

    report: Report
    host: str
    variable: str

    def bad(self, value: object, problem: str, remedy: str) -> None:
        """Report a problem with the value at this place."""
        if isinstance(value, Unreadable):
            problem = f"cannot be read ({value.reason.rstrip('.')})"
            self.report.add(self.host, self.variable, None, problem, "Correct its template, or unlock its vault.")
        else:
            shown = "null" if value is None else value
            self.report.add(self.host, self.variable, shown, problem, remedy)

    def at(self, part: str) -> Place:
        """A place inside this one, such as an entry of a list."""
        return Place(self.report, self.host, f"{self.variable}{part}")


def show(value: object) -> str:
    """``value`` as a message shows it: short, on one line."""
    if value is None:
        return ""
    text = " ".join((value if isinstance(value, str) else repr(value)).split()) or repr(value)
    return text if len(text) <= SHOWN_BYTES else f"{text[:SHOWN_BYTES]}..."


def some(names: Sequence[str]) -> str:
    """The first few of ``names``, and how many more."""
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    return ", ".join(names[:SHOWN_NAMES]) + more


def closest(name: str, known: Iterable[str], cutoff: float = 0.75) -> str:
    """The known name that ``name`` was probably meant to be, or an empty string."""
    return next(iter(difflib.get_close_matches(name, known, 1, cutoff)), "")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A remedy for an unknown name."""
    meant = closest(name, known)
    return f"Did you mean {meant}?" if meant else "Remove it, or give it a name of your own."


def whole_number(place: Place, value: object, low: int, high: int) -> int | None:
    """``value`` as a number. Text of digits counts: INI inventories, ``-e`` and templates give nothing else."""
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        place.bad(value, f"not a whole number from {low} to {high}", f"Write a number from {low} to {high}.")
        return None
    return value


def text(place: Place, value: object, remedy: str) -> str | None:
    """``value`` as text that is not empty."""
    if isinstance(value, str) and value.strip():
        return value
    place.bad(value, "not a text", remedy)
    return None


def items(place: Place, value: object, remedy: str) -> list[object] | None:
    """``value`` as a list."""
    if isinstance(value, (list, tuple)):
        return list(value)
    place.bad(value, "not a list", remedy)
    return None


def mapping(place: Place, value: object) -> Mapping[str, object]:
    """``value`` as a mapping of names; None counts as an empty one."""
    if isinstance(value, Mapping) and all(isinstance(name, str) for name in value):
        return value
    if value is not None:
        place.bad(value, "not a mapping", KEY_REMEDY)
    return {}


def ports(place: Place, value: object) -> tuple[int, int] | None:
    """``value`` as a range of ports."""
    try:
        return _addressing.parse_ports(str(value) if not isinstance(value, (bool, Unreadable)) else "")
    except ValueError:
        remedy = "Write the first and the last port, lowest first, from 1 to 65535, such as 30000-51000."
        place.bad(value, "not a range of ports", remedy)
        return None


def prefix(place: Place, value: object, version: int, example: str) -> str | None:
    """``value`` as a network of the given IP version, in its shortest form."""
    try:
        if not isinstance(value, str) or "/" not in value:
            raise ValueError(value)
        given = _addressing.network(value, strict=False)
        if given.version != version:
            raise ValueError(value)
    except ValueError:
        place.bad(value, f"not an IPv{version} network", f"Write an IPv{version} network, such as {example}.")
        return None
    if given.value != given.first:
        place.bad(value, "an address inside a network, not a network", f"Write {given.cidr}.")
        return None
    return str(given.cidr)


def address(place: Place, value: object, version: int | None = None) -> str | None:
    """``value`` as an address of the given IP version, or of either, in its shortest form."""
    kind = f"IPv{version} address" if version else "IP address"
    try:
        if not isinstance(value, str):
            raise ValueError(value)
        found = _addressing.address(value)
    except ValueError:
        place.bad(value, f"not an {kind}", f"Write one {kind}, without a prefix length or a name.")
        return None
    if version not in (None, found.version):
        place.bad(value, f"not an {kind}", f"Write one {kind}.")
        return None
    if found.is_multicast() or found.is_loopback() or found.is_link_local() or int(found) == 0:
        place.bad(value, "not an address that others can reach", "Write a unicast address of the host.")
        return None
    return str(found)


def public_key(place: Place, value: object) -> str | None:
    """``value`` as a WireGuard public key: 32 bytes in base64, 44 characters."""
    try:
        if isinstance(value, str):
            key = base64.b64decode(value, validate=True)
            if len(key) == 32 and base64.b64encode(key).decode() == value:
                return value
    except (binascii.Error, ValueError):
        pass
    remedy = "Write the 44 characters that `wg pubkey` prints, or remove the key to have one recorded."
    place.bad(value, "not a WireGuard public key", remedy)
    return None
