# Copyright (c) 2026 the warren.vpn authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads the variables of a server, one at a time. Private to the collection; ``_kinds.py`` says where it belongs."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from . import _addressing, _problems, _server_checks
from ._problems import Place, Report

VARIABLES = frozenset(
    f"server_{name}" for name in ("id", "slug", "label", "region", "entry_addresses", "exit_addresses", "nat_ports")
)

ACCESS_GROUP = "warren_access"

NAT_PORTS = "30000-51000"
"""Default of ``server_nat_ports``, the range of the source document."""

SLUG = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
SLUG_BYTES = 15


def read(report: Report, name: str, given: Mapping[str, object], groups: Collection[str]) -> dict[str, Any]:
    """What the variables say of one server. A wrong value is None or left out of its list."""

    def at(variable: str) -> Place:
        return Place(report, name, f"server_{variable}")

    before = len(report.problems)
    entries = _addresses(at("entry_addresses"), given)
    exits = _addresses(at("exit_addresses"), given)
    if len(report.problems) == before:  # an unreadable address is not a missing one too
        _server_checks.families(report, name, entries, exits)
    slug = _slug(at("slug"), given.get("server_slug", name), "server_slug" not in given)
    label = given.get("server_label", slug or name)
    region = given.get("server_region", "")
    return {
        "id": _server_id(at("id"), given),
        "slug": slug,
        "label": _problems.text(at("label"), label, "Write the name that people read, or remove it."),
        "region": region if region == "" else _problems.text(at("region"), region, "Write a text, or remove it."),
        "entry4": next((address for address in entries if ":" not in address), None),
        "entry6": next((address for address in entries if ":" in address), None),
        "exit4": [address for address in exits if ":" not in address],
        "exit6": [address for address in exits if ":" in address],
        "nat_ports": list(_problems.ports(at("nat_ports"), given.get("server_nat_ports", NAT_PORTS)) or ()),
        "access": ACCESS_GROUP in groups,
    }


def complete(settings: Mapping[str, Any], server: Mapping[str, Any]) -> dict[str, Any]:
    """What follows from a server's number, once nothing is wrong with it."""
    number = server["id"]
    length, length6 = settings["session_prefix_length"], settings["session_prefix_length6"]
    return {
        "control4": _addressing.host_address(settings["control_prefix"], number),
        "control6": _addressing.host_address(settings["control_prefix6"], number),
        "session4": _addressing.session_prefix(settings["session_pool"], length, number),
        "session6": _addressing.session_prefix(settings["session_pool6"], length6, number),
    }


def _server_id(place: Place, given: Mapping[str, object]) -> int | None:
    if "server_id" not in given:
        place.report.add(place.host, place.variable, None, "missing", f"Give {place.host} a number of its own.")
        return None
    return _problems.whole_number(place, given["server_id"], 1, _addressing.HIGHEST_SERVER_ID)


def _slug(place: Place, value: object, is_name: bool) -> str | None:
    remedy = f"Set server_slug to 1-{SLUG_BYTES} characters of a-z, 0-9 and -, with no - at either end."
    slug = _problems.text(place, value, remedy)
    if slug is None or (len(slug) <= SLUG_BYTES and SLUG.fullmatch(slug)):
        return slug
    what = f"longer than {SLUG_BYTES} bytes" if len(slug) > SLUG_BYTES else "not a DNS label"
    place.bad(slug, f"the inventory name, and {what}" if is_name else what, remedy)
    return None


def _addresses(place: Place, given: Mapping[str, object]) -> list[str]:
    """The addresses that can be read."""
    if given.get(place.variable) is None:
        place.report.add(place.host, place.variable, None, "missing", "Set it to a list of addresses.")
        return []
    remedy = 'Write a list, such as ["198.51.100.11", "2001:db8:100::11"].'
    listed = _problems.items(place, given[place.variable], remedy) or []
    return [address for value in listed if (address := _problems.address(place, value))]
