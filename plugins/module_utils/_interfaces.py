# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# PRIVATE to the collection, and installed on every server as part of the engine that restores its network at boot:
# standard library and relative imports only.
"""What the kernel knows of every link, whatever makes it: name, state, addresses and routes; see ip(8)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence

from . import _host
from ._link import Link, Route, dicts, network
from ._plan import Plan

# Marks an interface as ours, whatever becomes of our files (ip-link(8): alias). What it is for stands behind it, and
# its kind where that is not WireGuard.
ALIAS = "warren.vpn"

# Marks a route and a routing rule as ours. 0-4 are the kernel's, the rest is free to use (rtnetlink(7): rtm_protocol).
PROTOCOL = "119"

# What the kernel gives an IPv6 route that is given no metric (IP6_RT_PRIO_USER).
METRIC6 = 1024


def alias(link: Link) -> str:
    """What marks a link as ours."""
    return " ".join([ALIAS, link.purpose, *([link.kind] if link.kind != Link.kind else [])])


def live(routes: Mapping[str, Iterable[Route]]) -> dict[str, Link]:
    """The links of this host that are ours, by name, with their routes and without what only their kind knows."""
    return {
        name: _link(name, data, frozenset(routes.get(name, ())))
        for name, data in _all().items()
        if str(data.get("ifalias", "")).startswith(ALIAS)
    }


def _link(name: str, data: Mapping[str, object], routes: frozenset[Route]) -> Link:
    words = str(data["ifalias"]).split()
    return Link(
        name=name,
        purpose=words[1] if len(words) > 1 else "",
        public_key="",
        listen_port=0,
        mtu=int(str(data["mtu"])),
        addresses=_addresses(data),
        routes=routes,
        up="UP" in str(data["flags"]),
        userspace=_driver(data) != "wireguard",
        group=_group(data),
        kind=words[2] if len(words) > 2 else Link.kind,
    )


def foreign() -> set[str]:
    """The names of all interfaces of this host that are not ours."""
    return {name for name, data in _all().items() if not str(data.get("ifalias", "")).startswith(ALIAS)}


def _all() -> dict[str, Mapping[str, object]]:
    return {str(data["ifname"]): data for data in json.loads(_host.run(["ip", "-json", "-details", "address"]) or "[]")}


def _driver(data: Mapping[str, object]) -> str:
    details = data.get("linkinfo")
    return str(details.get("info_kind", "")) if isinstance(details, dict) else ""


def _group(data: Mapping[str, object]) -> int:
    """The number of an interface's group; that of a name that somebody gave it (/etc/iproute2/group) is not ours."""
    text = str(data.get("group", ""))
    return int(text) if text.isdigit() else 0


def _addresses(data: Mapping[str, object]) -> tuple[str, ...]:
    return tuple(
        sorted(
            f"{address['local']}/{address['prefixlen']}"
            for address in dicts(data.get("addr_info", []))
            if address.get("scope") != "link" and "local" in address
        )
    )


def compare_routes(wanted: Sequence[Route], live_routes: Mapping[str, Iterable[Route]], plan: Plan) -> None:
    """The routes of no link that are missing, or that nobody wants any more."""
    here = {route for routes in live_routes.values() for route in routes if route.type}
    missing, surplus = [route for route in wanted if route not in here], sorted(here - set(wanted), key=str)
    if missing or surplus:
        lines = [f"route {verb} {route} proto {PROTOCOL}" for verb, routes in (("add", missing), ("delete", surplus))
                 for route in routes]  # fmt: skip
        before, after = [f"route {route}" for route in surplus], [f"route {route}" for route in missing]
        plan.add("set routes", "routes", before, after, lambda: apply(lines))


def routes_by_interface() -> dict[str, set[Route]]:
    """The routes that are ours, by interface; the kernel names one for those that lead nowhere too, or none."""
    routes: dict[str, set[Route]] = {}
    for family in ("-4", "-6"):
        listing = _host.run(["ip", family, "-json", "route", "show", "table", "all", "proto", PROTOCOL])
        for route in json.loads(listing or "[]"):
            routes.setdefault(str(route.get("dev")), set()).add(_route(family, route))
    return routes


def _route(family: str, route: Mapping[str, object]) -> Route:
    destination = {"-4": "0.0.0.0/0", "-6": "::/0"}[family] if route["dst"] == "default" else str(route["dst"])
    metric = int(str(route.get("metric") or 0))
    return Route(
        destination=network(destination),
        table=str(route.get("table", "main")),
        gateway=str(route.get("gateway") or ""),
        source=str(route.get("prefsrc") or ""),
        metric=0 if family == "-6" and metric == METRIC6 else metric,
        type="" if route.get("type", "unicast") == "unicast" else str(route["type"]),
    )


def steps(wanted: Link, here: Link) -> list[str]:
    """The lines for ``ip -batch`` that change what differs in a link's MTU, addresses and routes."""
    steps = []
    for address in sorted(set(here.addresses) - set(wanted.addresses)):
        steps.append(f"address delete {address} dev {wanted.name}")
    if here.mtu != wanted.mtu:
        steps.append(f"link set dev {wanted.name} mtu {wanted.mtu}")
    for address in sorted(set(wanted.addresses) - set(here.addresses)):
        steps.append(f"address add {address} dev {wanted.name}{' nodad' if ':' in address else ''}")
    if here.group != wanted.group:
        steps.append(f"link set dev {wanted.name} group {wanted.group}")
    if not here.up:
        steps.append(f"link set dev {wanted.name} up")
    for route in sorted(here.routes - wanted.routes, key=str):
        steps.append(f"route delete {_spec(wanted.name, route)}")
    # Taking an interface down, or its last address, takes its routes along unseen: what differs is asked for again.
    for route in sorted(wanted.routes - (here.routes if here.up else frozenset()), key=str):
        steps.append(f"route replace {_spec(wanted.name, route)}")
    return steps


def _spec(name: str, route: Route) -> str:
    return f"{route} dev {name} proto {PROTOCOL}"


def apply(steps: Sequence[str]) -> None:
    """Run lines for ``ip -batch``: routes of IPv6 need the family said, the rest goes by its address."""
    batch({"-4": [step for step in steps if not _is_v6(step)], "-6": [step for step in steps if _is_v6(step)]})


def batch(lines_of: Mapping[str, Sequence[str]]) -> None:
    """Run lines by family, with one ``ip -batch`` each."""
    for family, lines in lines_of.items():
        if lines:
            _host.run(["ip", family, "-batch", "-"], "\n".join(lines) + "\n")


def _is_v6(step: str) -> bool:
    return bool(re.match(r"(address|route) \w+ ([a-z]+ )?\S*:", step))
