# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# PRIVATE to the collection, and installed on every server as part of the engine that restores its network at boot:
# standard library and relative imports only.
"""Routing rules of this host: packets with a link's mark take the routes of that link's table, or none at all.

The rules stand together. The first sends every packet without such a mark past the rest, so that the number of links
costs only packets that have one; the last stops what has a mark whose link is not there, which would otherwise go by
the main table. See ip-rule(8).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from . import _host, _wireguard

# After the kernel's own table of local addresses (0), before what others use (tailscale 5210, wg-quick 32764).
PRIORITY = 4000

# The marks of links have this top digit and no other program's have.
MARKS = "0x70000000/0xf0000000"

FAMILIES = ("-4", "-6")


@dataclass(frozen=True)
class Rule:
    """One rule of one family, in the words of ip-rule(8).

    Attributes:
        family: ``-4`` or ``-6``.
        priority: where it stands.
        selector: which packets it is for.
        action: what becomes of them.
    """

    family: str
    priority: int
    selector: str
    action: str

    def __str__(self) -> str:
        """The rule for people."""
        return f"rule {self.family} {self.priority}: {self.selector} {self.action}"


def wanted(links: Iterable[_wireguard.Link]) -> list[Rule]:
    """The rules that links need; none where no link has a mark."""
    marked = [link for link in links if link.mark]
    if not marked:
        return []
    rules = []
    for family in FAMILIES:
        rules.append(Rule(family, PRIORITY + 2, f"fwmark {MARKS}", "unreachable"))
        for link in marked:
            tables = {route.table for route in link.routes if (":" in route.destination) == (family == "-6")}
            rules += [Rule(family, PRIORITY + 1, f"fwmark {link.mark:#x}", f"lookup {table}") for table in tables]
        # It needs a rule to go to, so it comes last.
        rules.append(Rule(family, PRIORITY, f"not fwmark {MARKS}", f"goto {PRIORITY + 2}"))
    return rules


def live() -> list[Rule]:
    """The rules of this host that are ours."""
    found = []
    for family in FAMILIES:
        for rule in json.loads(_host.run(["ip", family, "-details", "-json", "rule", "show"]) or "[]"):
            if str(rule.get("protocol")) == _wireguard.ROUTE_PROTOCOL:
                found.append(Rule(family, int(rule["priority"]), _selector(rule), _action(rule)))
    return found


def _selector(rule: dict[str, object]) -> str:
    mask = f"/{rule['fwmask']}" if "fwmask" in rule else ""
    return f"{'not ' if 'not' in rule else ''}fwmark {rule.get('fwmark')}{mask}"


def _action(rule: dict[str, object]) -> str:
    if "goto" in rule:
        return f"goto {rule['goto']}"
    return f"lookup {rule['table']}" if "table" in rule else str(rule.get("action", "lookup"))


def steps(missing: Iterable[Rule], surplus: Iterable[Rule]) -> dict[str, list[str]]:
    """The lines for ``ip -batch``, by family: what is missing first, so that no packet finds a gap."""
    lines: dict[str, list[str]] = {family: [] for family in FAMILIES}
    for verb, rules in (("add", missing), ("delete", surplus)):
        for rule in rules:
            words = f"{rule.selector} priority {rule.priority} protocol {_wireguard.ROUTE_PROTOCOL} {rule.action}"
            lines[rule.family].append(f"rule {verb} {words}")
    return lines
