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

from .answers import plain_errors, refuse
from .config import Config, Server
from .leases import Leases, SessionPair, TooManyError
from .metrics import Metrics
from .visitors import answered

LARGEST_BODY = 256 * 1024
MOST_SESSIONS = 1000
OPS = ("start", "renew", "tell", "stop")
FIELDS = ("op", "a_slug", "session_ip", "session_ip6")


class BadRequestError(Exception):
    """What was sent is not as described.

    Attributes:
        status: of HTTP.
        reason: a word for programs.
    """

    def __init__(self, status: int, reason: str, message: str) -> None:
        """Keep all three."""
        super().__init__(message)
        self.status, self.reason = status, reason


class Backend:
    """The application."""

    def __init__(self, config: Config, leases: Leases, metrics: Metrics) -> None:
        """Nothing runs yet."""
        self._config, self._leases, self._metrics = config, leases, metrics

    def application(self) -> web.Application:
        """What listens on the control addresses."""
        app = web.Application(middlewares=[answered, plain_errors], client_max_size=LARGEST_BODY)
        app.router.add_post("/mh-backend", self._call)
        app.router.add_get("/metrics", self._show_metrics)
        app.router.add_get("/openapi.json", self._describe)
        return app

    async def _call(self, request: web.Request) -> web.Response:
        try:
            op, entry, sessions = self._read(request, await request.read())
        except BadRequestError as error:
            return refuse(error.status, error.reason, str(error))
        exits: dict[str, str] = {}
        try:
            if op == "start":
                exits = await self._leases.start(entry, sessions)
            elif op in ("renew", "tell"):
                exits = await self._leases.renew(entry, sessions, tell=op == "tell")
            else:
                await self._leases.stop(sessions)
        except TooManyError:
            most = self._config.clients.most_sessions
            return refuse(429, "too_many", f"{entry.slug} has {most} sessions here, and no client of it is without one")
        return web.json_response({"exits": exits, "lease_seconds": self._config.lease_seconds})

    def _read(self, request: web.Request, body: bytes) -> tuple[str, Server, list[SessionPair]]:
        """The operation, who asks for it, and the session addresses of each session."""
        if request.content_type != "application/x-www-form-urlencoded":
            raise BadRequestError(415, "content_type", "send a form: application/x-www-form-urlencoded")
        if "Content-Encoding" in request.headers:
            raise BadRequestError(415, "content_encoding", "send it as it is: nothing is unpacked here")
        fields = _form(body)
        (op,), (slug,) = fields["op"] or [""], fields["a_slug"] or [""]
        if op not in OPS:
            raise BadRequestError(400, "op", f"op is one of {', '.join(OPS)}")
        entry = self._config.by_control_address.get(request.remote or "")
        if entry is None:
            raise BadRequestError(403, "source", "only servers of the fleet are answered")
        if slug != entry.slug:
            raise BadRequestError(403, "a_slug", f"a_slug has to be {entry.slug}, for that is who asks")
        if op in ("start", "stop") and not fields["session_ip"]:
            raise BadRequestError(400, "session_ip", "session_ip is missing")
        sessions4 = [_address(text, 4) for text in fields["session_ip"]]
        sessions6 = [_address(text, 6) for text in fields["session_ip6"]]
        if not all(entry.speaks_for(address) for address in sessions4 + sessions6):
            message = f"{entry.slug} may only speak for {entry.session4} and {entry.session6}"
            raise BadRequestError(403, "session_prefix", message)
        if sessions6 and len(sessions6) != len(sessions4):
            raise BadRequestError(400, "session_ip6", "session_ip6 is given for each session_ip, or for none")
        if len(set(sessions4)) != len(sessions4) or len(set(sessions6)) != len(sessions6):
            raise BadRequestError(400, "session_ip", "a session address is given twice")
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
            body.decode("ascii"), keep_blank_values=True, strict_parsing=bool(body), max_num_fields=3 * MOST_SESSIONS
        )
    except ValueError:
        raise BadRequestError(400, "form", "this is no form, or has too many fields") from None
    for name, value in pairs:
        if name not in fields:
            raise BadRequestError(400, "field", f"the fields are {', '.join(FIELDS)}")
        if value:
            fields[name].append(value)
    for name in ("op", "a_slug"):
        if len(fields[name]) > 1:
            raise BadRequestError(400, name, f"{name} is given more than once")
    if max(len(fields["session_ip"]), len(fields["session_ip6"])) > MOST_SESSIONS:
        raise BadRequestError(413, "sessions", f"at most {MOST_SESSIONS} sessions in one call")
    return fields


def _address(text: str, version: int) -> str:
    """An address in canonical form."""
    field = "session_ip6" if version == 6 else "session_ip"
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        address = None
    if address is None or address.version != version or getattr(address, "scope_id", None):
        raise BadRequestError(400, field, f"{field} has to be an IPv{version} address")
    return str(address)
