# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# PRIVATE to the collection, and installed on every server as part of the engine that restores its network at boot:
# standard library and relative imports only.
"""Routing rules of this host, which say a second time what firewall rules say: what may be forwarded, and by which way.

Packets with a link's mark take the routes of that link's table, or none at all. What comes in by a gated link goes on
if a firewall rule has approved it by a mark; without that, or without any firewall, it goes nowhere.

The rules stand together. The first sends every packet without a link's mark past those of links, so that their number
costs only packets that have one; what has a mark whose link is not there is stopped, and would otherwise go by the main
table. See ip-rule(8). What is approved stands before what is not, for `not` turns a whole selector around.
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

# A client whose way is about to change: the milliseconds until then are silence, and no error that its programs see.
HELD = "0x7fffffff"

# Whatever a firewall rule approves has a mark with this bit, those of links too.
APPROVED = "0x40000000/0x40000000"

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
    """The rules that links need, in an order in which they can be added."""
    listed = list(links)
    rules = []
    for family in FAMILIES:
        gated = [link.name for link in listed if link.gated]
        rules += [Rule(family, PRIORITY + 3, f"iif {name} fwmark {APPROVED}", "lookup main") for name in gated]
        rules += [Rule(family, PRIORITY + 4, f"iif {name}", "unreachable") for name in gated]
        marked = [link for link in listed if link.mark]
        if marked:
            rules.append(Rule(family, PRIORITY + 2, f"fwmark {MARKS}", "unreachable"))
            for link in marked:
                tables = {route.table for route in link.routes if (":" in route.destination) == (family == "-6")}
                rules += [Rule(family, PRIORITY + 1, f"fwmark {link.mark:#x}", f"lookup {table}") for table in tables]
            rules.append(Rule(family, PRIORITY + 1, f"fwmark {HELD}", "blackhole"))
            # It needs a rule to go to, so it comes last.
            rules.append(Rule(family, PRIORITY, f"not fwmark {MARKS}", f"goto {PRIORITY + (3 if gated else 2)}"))
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
    words = ["not"] if "not" in rule else []
    if "iif" in rule:
        words.append(f"iif {rule['iif']}")
    if "fwmark" in rule:
        mask = f"/{rule['fwmask']}" if "fwmask" in rule else ""
        words.append(f"fwmark {rule['fwmark']}{mask}")
    return " ".join(words)


def _action(rule: dict[str, object]) -> str:
    if "goto" in rule:
        return f"goto {rule['goto']}"
    return f"lookup {rule['table']}" if "table" in rule else str(rule.get("action", "lookup"))


def steps(missing: Iterable[Rule], surplus: Iterable[Rule]) -> dict[str, list[str]]:
    """The lines for ``ip -batch``, by family: what is missing first, so that no packet finds a gap.

    But a rule that only goes elsewhere is no other rule to the kernel: the old one has to go before.
    """
    lines: dict[str, list[str]] = {family: [] for family in FAMILIES}
    added, gone = list(missing), list(surplus)
    places = {(rule.family, rule.priority, rule.selector) for rule in added}
    replaced = [rule for rule in gone if (rule.family, rule.priority, rule.selector) in places]
    rest = [rule for rule in gone if rule not in replaced]
    for verb, rules in (("delete", replaced), ("add", added), ("delete", rest)):
        for rule in rules:
            words = f"{rule.selector} priority {rule.priority} protocol {_wireguard.ROUTE_PROTOCOL} {rule.action}"
            lines[rule.family].append(f"rule {verb} {words}")
    return lines
