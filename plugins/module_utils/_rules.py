# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# PRIVATE to the collection, and installed on every server as part of the engine that restores its network at boot:
# standard library and relative imports only.
"""Routing rules of this host: which packets take which table, and which go nowhere. See ip-rule(8)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from . import _host, _interfaces, _link
from ._plan import Plan

FAMILIES = ("-4", "-6")
KEYS = frozenset(("family", "priority", "not", "from", "to", "fwmark", "iif", "table", "action"))


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


def rules_from(data: Mapping[str, object]) -> list[Rule]:
    """The rules of one entry of a part: one for each family, unless it names one.

    Raises:
        NetworkError: something in it is not as it should be.
    """
    try:
        if data.keys() - KEYS or ("table" in data) == ("action" in data):
            raise ValueError(f"it has {', '.join(sorted(KEYS))}, and either a table or an action")
        return [
            Rule(family, int(str(data["priority"])), _wanted_selector(data), _wanted_action(data))
            for family in (FAMILIES if "family" not in data else (str(data["family"]),))
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise _host.NetworkError(
            f"routing rule {data.get('priority', '?')} is not as it should be: {error!r}"
        ) from error


def _wanted_selector(data: Mapping[str, object]) -> str:
    words = ["not"] if data.get("not") else []
    words += [f"{word} {_link.network(str(data[word]))}" for word in ("from", "to") if word in data]
    return " ".join(words + [f"{word} {data[word]}" for word in ("iif", "fwmark") if word in data])


def _wanted_action(data: Mapping[str, object]) -> str:
    return f"lookup {data['table']}" if "table" in data else str(data["action"])


def live() -> list[Rule]:
    """The rules of this host that are ours."""
    found = []
    for family in FAMILIES:
        for rule in json.loads(_host.run(["ip", family, "-details", "-json", "rule", "show"]) or "[]"):
            if str(rule.get("protocol")) == _interfaces.PROTOCOL:
                found.append(Rule(family, int(rule["priority"]), _selector(rule), _action(rule)))
    return found


def _selector(rule: Mapping[str, object]) -> str:
    words = ["not"] if "not" in rule else []
    for word, key in (("from", "src"), ("to", "dst")):
        if rule.get(key, "all") != "all":
            length = f"/{rule[f'{key}len']}" if f"{key}len" in rule else ""
            words.append(f"{word} {_link.network(f'{rule[key]}{length}')}")
    if "iif" in rule:
        words.append(f"iif {rule['iif']}")
    if "fwmark" in rule:
        mask = f"/{rule['fwmask']}" if "fwmask" in rule else ""
        words.append(f"fwmark {rule['fwmark']}{mask}")
    return " ".join(words)


def _action(rule: Mapping[str, object]) -> str:
    if "goto" in rule:
        return f"goto {rule['goto']}"
    return f"lookup {rule['table']}" if "table" in rule else str(rule.get("action", "lookup"))


def compare(wanted: Sequence[Rule], plan: Plan) -> None:
    """What is missing, and what nobody wants."""
    here = live()
    there, due = set(here), set(wanted)
    missing, surplus = [rule for rule in wanted if rule not in there], [rule for rule in here if rule not in due]
    if missing or surplus:
        before, after = [str(rule) for rule in surplus], [str(rule) for rule in missing]
        lines = steps(missing, surplus)
        plan.add("set routing rules", "routing rules", before, after, lambda: _interfaces.batch(lines))


def steps(missing: Iterable[Rule], surplus: Iterable[Rule]) -> dict[str, list[str]]:
    """The lines for ``ip -batch``, by family: what is missing first, so that no packet finds a gap.

    A rule that goes to another needs it to be there. And a rule that only goes elsewhere is no other rule to the
    kernel: the old one has to go before.
    """
    lines: dict[str, list[str]] = {family: [] for family in FAMILIES}
    added, gone = sorted(missing, key=_goes), list(surplus)
    places = {(rule.family, rule.priority, rule.selector) for rule in added if _goes(rule)}
    replaced = [rule for rule in gone if _goes(rule) and (rule.family, rule.priority, rule.selector) in places]
    rest = [rule for rule in gone if rule not in replaced]
    for verb, rules in (("delete", replaced), ("add", added), ("delete", rest)):
        for rule in rules:
            words = f"{rule.selector} priority {rule.priority} protocol {_interfaces.PROTOCOL} {rule.action}"
            lines[rule.family].append(f"rule {verb} {words}".replace("  ", " "))
    return lines


def _goes(rule: Rule) -> bool:
    return rule.action.startswith("goto ")
