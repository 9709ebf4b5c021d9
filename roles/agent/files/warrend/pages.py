# Copyright (c) 2026 the warren.vpn authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pages of the portal, from the templates in ``pages/``."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from .clients import Client
from .config import Config
from .forwards import MAX_PORTS_PER_CLIENT
from .store import ChoiceRow, ForwardRow

DIRECTORY = Path(__file__).parent / "pages"

STATIC = {
    f"/{name}": ((DIRECTORY / name).read_bytes(), content_type)
    for name, content_type in (
        ("style.css", "text/css"),
        ("live.js", "text/javascript"),
        ("icon.svg", "image/svg+xml"),
    )
}
"""What pages load, by path: content and type."""


class Pages:
    """Renders the portal's pages."""

    def __init__(self, config: Config) -> None:
        self._config = config
        environment = Environment(
            loader=FileSystemLoader(DIRECTORY),
            autoescape=True,
            auto_reload=False,
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=StrictUndefined,
        )
        self._refused = environment.get_template("refused.html")
        names = {"/": "front", "/multihop": "multihop", "/changemyip": "changemyip", "/fwd": "fwd"}
        self._templates = {path: (name, environment.get_template(f"{name}.html")) for path, name in names.items()}

    def refused(self, title: str, message: str) -> str:
        """A page for a request that is refused."""
        return self._refused.render(page="refused", server=self._config.label, title=title, message=message)

    def show(self, path: str, way: Mapping[str, Any], token: str, error: str | None, **more: Any) -> str:
        """The page of a path.

        Args:
            way: how the client leaves, see ``views.way_view``.
            token: for the forms.
            error: why what was asked for was not done.
            more: what this page needs besides: the arguments of the method that is named after it.
        """
        name, template = self._templates[path]
        now = {**way, "exit": way["exit_label"], "session": way["state"] not in ("default", "chosen")}
        context = {"idle_minutes": math.ceil(self._config.idle_seconds / 60), **getattr(self, f"_{name}")(**more)}
        return template.render(page=name, server=self._config.label, now=now, token=token, error=error, **context)

    def _front(self) -> dict[str, Any]:
        return {}

    def _multihop(self, exits: Iterable[Mapping[str, Any]], current: str | None) -> dict[str, Any]:
        regions: dict[str, list[dict[str, Any]]] = {}
        for view in sorted(exits, key=lambda view: (view["region"], view["label"])):
            shown = {"slug": view["exit"], "current": view["exit"] == current}
            shown |= {name: view[name] for name in ("label", "round_trip_ms", "reachable")}
            regions.setdefault(view["region"], []).append(shown)
        return {"regions": [{"name": name, "exits": listed} for name, listed in regions.items()]}

    def _changemyip(self, choice: ChoiceRow | None) -> dict[str, Any]:
        return {
            "addresses4": self._config.exit4,
            "addresses6": self._config.exit6,
            "chosen4": choice.exit4 if choice else None,
            "chosen6": choice.exit6 if choice else None,
        }

    def _fwd(self, client: Client, rows: Iterable[ForwardRow]) -> dict[str, Any]:
        low, high = self._config.forward_ports
        since = {row.port: time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(row.since)) for row in rows}
        return {
            "forwards": [{"port": port, "since": text} for port, text in since.items()],
            "entry4": self._config.entry4,
            "entry6": self._config.entry6,
            "low": low,
            "high": high,
            "most": MAX_PORTS_PER_CLIENT,
            "client4": client.address4,
            "client6": client.address6,
        }
