# Copyright (c) 2026 the warren.vpn authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``POST /mh-backend``: what the agents of other servers ask of this one as an exit, over the control mesh.

The mesh proves who asks: its addresses are bound to the servers' keys. Described by ``backend.json`` (OpenAPI), which
``GET /openapi.json`` serves; ``GET /metrics`` is for Prometheus.
"""

from __future__ import annotations

import ipaddress
from importlib import resources
from itertools import zip_longest
from urllib.parse import parse_qsl

import prometheus_client
from aiohttp import web

from .answers import plain_errors
from .config import Config, Server
from .leases import Leases, SessionPair
from .metrics import Metrics
from .refusals import (
    ADDRESS_TWICE,
    GIVEN_TWICE,
    NO_SESSION_ADDRESS,
    NOT_A_FORM,
    NOT_AN_ADDRESS,
    PACKED,
    SEND_A_FORM,
    TOO_MANY_IN_A_CALL,
    UNKNOWN_FIELD,
    UNKNOWN_OP,
    UNKNOWN_SERVER,
    UNPAIRED,
    WRONG_PREFIX,
    WRONG_SLUG,
    RefusedError,
)
from .visitors import answered

LARGEST_BODY = 256 * 1024
MAX_SESSIONS_PER_CALL = 1000
OPS = ("start", "renew", "tell", "stop")
FIELDS = ("op", "a_slug", "session_ip", "session_ip6")


class Backend:
    """The web application that other servers call."""

    def __init__(self, config: Config, leases: Leases, metrics: Metrics) -> None:
        self._config, self._leases, self._metrics = config, leases, metrics

    def application(self) -> web.Application:
        """What listens on the control addresses."""
        app = web.Application(middlewares=[answered, plain_errors], client_max_size=LARGEST_BODY)
        app.router.add_post("/mh-backend", self._call)
        app.router.add_get("/metrics", self._show_metrics)
        app.router.add_get("/openapi.json", self._describe)
        return app

    async def _call(self, request: web.Request) -> web.Response:
        op, entry, sessions = self._read(request, await request.read())
        exits: dict[str, str] = {}
        if op == "start":
            exits = await self._leases.start(entry, sessions)
        elif op in ("renew", "tell"):
            exits = await self._leases.renew(entry, sessions, report_all=op == "tell")
        else:
            await self._leases.stop(sessions)
        return web.json_response({"exits": exits, "lease_seconds": self._config.lease_seconds})

    def _read(self, request: web.Request, body: bytes) -> tuple[str, Server, list[SessionPair]]:
        """The operation, who asks for it, and the session addresses of each session."""
        if request.content_type != "application/x-www-form-urlencoded":
            raise RefusedError(SEND_A_FORM)
        if "Content-Encoding" in request.headers:
            raise RefusedError(PACKED)
        fields = _form(body)
        (op,), (slug,) = fields["op"] or [""], fields["a_slug"] or [""]
        if op not in OPS:
            raise RefusedError(UNKNOWN_OP, ops=", ".join(OPS))
        entry = self._config.by_control_address.get(request.remote or "")
        if entry is None:
            raise RefusedError(UNKNOWN_SERVER)
        if slug != entry.slug:
            raise RefusedError(WRONG_SLUG, slug=entry.slug)
        if op in ("start", "stop") and not fields["session_ip"]:
            raise RefusedError(NO_SESSION_ADDRESS)
        sessions4 = [_address(text, 4) for text in fields["session_ip"]]
        sessions6 = [_address(text, 6) for text in fields["session_ip6"]]
        if not all(entry.speaks_for(address) for address in sessions4 + sessions6):
            raise RefusedError(WRONG_PREFIX, slug=entry.slug, prefix4=entry.session4, prefix6=entry.session6)
        if sessions6 and len(sessions6) != len(sessions4):
            raise RefusedError(UNPAIRED)
        if len(set(sessions4)) != len(sessions4) or len(set(sessions6)) != len(sessions6):
            raise RefusedError(ADDRESS_TWICE)
        return op, entry, list(zip_longest(sessions4, sessions6))

    async def _show_metrics(self, _request: web.Request) -> web.Response:
        text = prometheus_client.generate_latest(self._metrics.registry)
        return web.Response(body=text, headers={"Content-Type": prometheus_client.CONTENT_TYPE_LATEST})

    async def _describe(self, _request: web.Request) -> web.Response:
        return web.Response(text=OPENAPI, content_type="application/json")


OPENAPI = (resources.files(__package__) / "backend.json").read_text(encoding="utf-8")


def _form(body: bytes) -> dict[str, list[str]]:
    """The values of each field; an empty one counts as left out, as curl's ``session_ip6=`` is meant."""
    fields: dict[str, list[str]] = {name: [] for name in FIELDS}
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=bool(body),
            max_num_fields=3 * MAX_SESSIONS_PER_CALL,
        )
    except ValueError:
        raise RefusedError(NOT_A_FORM) from None
    for name, value in pairs:
        if name not in fields:
            raise RefusedError(UNKNOWN_FIELD, names=", ".join(FIELDS))
        if value:
            fields[name].append(value)
    for name in ("op", "a_slug"):
        if len(fields[name]) > 1:
            raise RefusedError(GIVEN_TWICE, name=name)
    if max(len(fields["session_ip"]), len(fields["session_ip6"])) > MAX_SESSIONS_PER_CALL:
        raise RefusedError(TOO_MANY_IN_A_CALL, most=MAX_SESSIONS_PER_CALL)
    return fields


def _address(text: str, version: int) -> str:
    """An address in canonical form."""
    field = "session_ip6" if version == 6 else "session_ip"
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        address = None
    if address is None or address.version != version or getattr(address, "scope_id", None):
        raise RefusedError(NOT_AN_ADDRESS, name=field, version=version)
    return str(address)
