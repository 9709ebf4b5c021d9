# Copyright (c) 2026 the warren.vpn authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What there is to say of clients, exits and forwarded ports, as plain data for programs and pages."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any

from .clients import Client
from .config import Config
from .conntrack import jhash
from .entry import Entry
from .exits import Exit
from .session_states import Session
from .store import ForwardRow


def client_view(config: Config, entry: Entry, client: Client) -> dict[str, Any]:
    """A client, for operators."""
    session = entry.sessions.get(client.address4)
    choice = entry.choices.get(client.address4)
    view: dict[str, Any] = {
        "client": client.name,
        "address4": client.address4,
        "address6": client.address6,
        "exit": session.row.exit if session else config.slug,
        "state": _state(entry, client),
        "exit4": choice.exit4 if choice else None,
        "exit6": choice.exit6 if choice else None,
        "since": session.row.since if session else None,
    }
    return {**view, **session_addresses(session)} if session else view


def way_view(config: Config, entry: Entry, client: Client) -> dict[str, Any]:
    """How a client leaves, for the client: nothing in it says who it is.

    ``exit4`` and ``exit6`` are as whom the internet sees it; None where that is not known yet, or there is no way.
    """
    session = entry.sessions.get(client.address4)
    if session:
        exit_ = entry.exits.get(session.row.exit)
        label = exit_.server.label if exit_ else session.row.exit
        way = {"exit": session.row.exit, "exit_label": label, "ipv6": exit_ is None or bool(exit_.server.exit6)}
        addresses = session_addresses(session) if session.state.value == "active" else {"exit4": None, "exit6": None}
        return {"state": _state(entry, client), **way, **addresses}
    choice = entry.choices.get(client.address4)
    return {
        "state": _state(entry, client),
        "exit": config.slug,
        "exit_label": config.label,
        "ipv6": bool(config.exit6),
        "exit4": (choice and choice.exit4) or default_exit(config.exit4, client.address4, entry.exit_seed),
        "exit6": (choice and choice.exit6) or default_exit(config.exit6, client.address6, entry.exit_seed),
    }


def default_exit(addresses: Sequence[str], client: str, seed: int | None) -> str | None:
    """The exit address of a client that has chosen none, as the rules of role packet_path find it; None if not known.

    Args:
        addresses: the server's exit addresses of one family, in the order of the rules.
        client: the client's tunnel address of that family.
        seed: see ``Tables.exit_seed``.
    """
    if len(addresses) < 2 or seed is None:
        return addresses[0] if len(addresses) == 1 else None
    return addresses[jhash(ipaddress.ip_address(client).packed, seed) * len(addresses) >> 32]


def _state(entry: Entry, client: Client) -> str:
    """How a client leaves, in a word.

    Returns:
        ``default``, or ``chosen`` by an address of its choice; with a session, ``active``, or why not: ``held``,
        ``blocked``; ``silent`` if the exit has not answered the last call.
    """
    session = entry.sessions.get(client.address4)
    if session is None:
        return "chosen" if client.address4 in entry.choices else "default"
    exit_ = entry.exits.get(session.row.exit)
    if session.state.value == "active" and exit_ is not None and not (exit_.reachable and exit_.link_up):
        return "silent"
    return session.state.value


def session_addresses(session: Session) -> dict[str, str | None]:
    """The exit addresses of a session, by family: ``exit4``, ``exit6``; None where they are not known, or are none."""
    session4, session6 = session.pair
    return {"exit4": session.addresses.get(session4), "exit6": session.addresses.get(session6)}


def exit_view(exit_: Exit) -> dict[str, Any]:
    """An exit."""
    return {
        "exit": exit_.server.slug,
        "label": exit_.server.label,
        "region": exit_.server.region,
        "reachable": exit_.reachable and exit_.link_up,
        "backend": exit_.reachable,
        "link": exit_.link_up,
        "round_trip_ms": None if exit_.round_trip is None else round(exit_.round_trip * 1000, 1),
        "silent_since": exit_.silent_since,
        "ipv6": bool(exit_.server.exit6),
    }


def forward_view(config: Config, row: ForwardRow) -> dict[str, Any]:
    """A forwarded port: at which addresses of the internet it is, and since when (Unix time)."""
    return {"port": row.port, "entry4": config.entry4, "entry6": config.entry6, "since": row.since}
