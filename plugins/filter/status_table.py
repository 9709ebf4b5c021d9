# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: status_table
short_description: Lay out what servers say of their links as a table
version_added: 1.0.0
author:
  - The warren.vpn authors (@warren-vpn)
description:
  - Lays out the results of M(warren.vpn.network_info) as a table for a terminal.
options:
  _input:
    description: Results by server name.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Print how the fleet is
  warren.vpn.print:
    text: "{{ results | warren.vpn.status_table }}"
"""

RETURN = r"""
_value:
  description: The table, one line a server.
  type: str
"""

from collections.abc import Mapping
from typing import Any

from ansible_collections.warren.vpn.plugins.plugin_utils._addressing import (
    ACCESS_INTERFACE,
    CONTROL_INTERFACE,
    MULTIHOP_INTERFACE,
)
from ansible_collections.warren.vpn.plugins.plugin_utils._fleet import filters

EXIT_LINKS = f"{MULTIHOP_INTERFACE}-"
COLUMNS = ("server", "links up", "mesh", "oldest handshake", "exits", "clients", "version", "")


def row(name: str, result: Mapping[str, Any]) -> tuple[str, ...]:
    """The cells of one server."""
    if result.get("unreachable") or result.get("failed"):
        return (name, "-", "-", "-", "-", "-", "-", "NOT REACHED" if result.get("unreachable") else "FAILED")
    links = result["links"]
    if not links:
        return (name, "-", "-", "-", "-", "-", "-", "NOT DEPLOYED: run site.yml")
    mesh, access = links.get(CONTROL_INTERFACE), links.get(ACCESS_INTERFACE)
    exits = [link for link_name, link in links.items() if link_name.startswith(EXIT_LINKS)]
    oldest = mesh["oldest_handshake"] if mesh else None
    notes = [f"{link} IS DOWN" for link, state in sorted(links.items()) if not state["up"]]
    if mesh and mesh["silent"]:
        notes.append(f"no session with {', '.join(mesh['silent'])}")
    silent = [peer for link in exits for peer in link["silent"]]
    if silent:
        notes.append(f"no way out by {', '.join(silent)}")
    return (
        name,
        f"{sum(state['up'] for state in links.values())}/{len(links)}",
        f"{mesh['alive']}/{mesh['peers']}" if mesh else "-",
        "-" if oldest is None else f"{oldest} s",
        f"{sum(link['alive'] for link in exits)}/{len(exits)}" if exits else "-",
        f"{access['alive']}/{access['peers']}" if access else "-",
        result["version"],
        "; ".join(notes) or "ok",
    )


def status_table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The table."""
    rows = [COLUMNS, *(row(name, result) for name, result in results.items())]
    widths = [max(len(cells[column]) for cells in rows) for column in range(len(COLUMNS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip() for cells in rows
    )


FilterModule = filters(status_table=status_table)
