# Copyright (c) 2026 the warren.vpn authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What ``warrenctl`` asks of the agent, over a socket that only root can open."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

from .agent import Agent
from .answers import plain_errors
from .clients import Client, ClientsError
from .refusals import CLIENTS_FILE, NOT_A_NUMBER, NOT_A_TEXT, SEND_AN_OBJECT, SEND_JSON, RefusedError
from .views import client_view, exit_view, forward_view


class Control:
    """The web application behind ``warrenctl``."""

    def __init__(self, agent: Agent) -> None:
        self._agent, self._config, self._entry = agent, agent.config, agent.entry

    def application(self) -> web.Application:
        """What listens on the socket."""
        app = web.Application(middlewares=[plain_errors])
        app.router.add_get("/exits", self._exits)
        app.router.add_get("/sessions", self._sessions)
        app.router.add_post("/sessions", self._start)
        app.router.add_get("/sessions/{client}", self._session)
        app.router.add_delete("/sessions/{client}", self._stop)
        app.router.add_put("/choices/{client}", self._choose)
        app.router.add_get("/forwards", self._forwards)
        app.router.add_post("/forwards/{client}", self._forward)
        app.router.add_delete("/forwards/{client}/{port:\\d{1,5}}", self._forward_no_more)
        app.router.add_post("/disconnected/{client}", self._disconnected)
        app.router.add_get("/check", self._check)
        app.router.add_post("/reload", self._reload)
        return app

    async def _exits(self, _request: web.Request) -> web.Response:
        if not all(exit_.link_up for exit_ in self._entry.exits.values()):
            await self._entry.liveness.refresh()
        return web.json_response([exit_view(exit_) for exit_ in self._entry.exits.values()])

    async def _sessions(self, _request: web.Request) -> web.Response:
        clients = {*self._entry.sessions, *self._entry.choices}
        known = [client for address, client in self._config.clients.items() if address in clients]
        return web.json_response([client_view(self._config, self._entry, client) for client in known])

    async def _session(self, request: web.Request) -> web.Response:
        return web.json_response(client_view(self._config, self._entry, self._client(request)))

    async def _start(self, request: web.Request) -> web.Response:
        given = await _object(request)
        client = self._entry.client(_text(given, "client"))
        await self._entry.start(client, _text(given, "exit"))
        return web.json_response(client_view(self._config, self._entry, client))

    async def _stop(self, request: web.Request) -> web.Response:
        client = self._client(request)
        exit_knows = await self._entry.stop(client)
        return web.json_response({**client_view(self._config, self._entry, client), "exit_told": exit_knows})

    async def _choose(self, request: web.Request) -> web.Response:
        given, client = await _object(request), self._client(request)
        await self._entry.choose(client, _text(given, "exit4", None), _text(given, "exit6", None))
        return web.json_response(client_view(self._config, self._entry, client))

    async def _forwards(self, _request: web.Request) -> web.Response:
        known = [client for address, client in self._config.clients.items() if self._entry.forwards.of(address)]
        rows = [(client, row) for client in known for row in self._entry.forwards.of(client.address4)]
        return web.json_response([{"client": c.name, **forward_view(self._config, row)} for c, row in rows])

    async def _forward(self, request: web.Request) -> web.Response:
        client, port = self._client(request), (await _object(request)).get("port")
        if not (port is None or isinstance(port, int)) or isinstance(port, bool):
            raise RefusedError(NOT_A_NUMBER, name="port")
        row = await self._entry.forwards.add(client, port)
        return web.json_response({"client": client.name, **forward_view(self._config, row)})

    async def _forward_no_more(self, request: web.Request) -> web.Response:
        client, port = self._client(request), int(request.match_info["port"])
        await self._entry.forwards.remove(client, port)
        return web.json_response({"client": client.name, "port": port})

    async def _disconnected(self, request: web.Request) -> web.Response:
        client = self._client(request)
        await self._entry.disconnected(client)
        return web.json_response(client_view(self._config, self._entry, client))

    async def _check(self, _request: web.Request) -> web.Response:
        return web.json_response(await self._agent.check())

    async def _reload(self, _request: web.Request) -> web.Response:
        try:
            await self._agent.reload()
        except ClientsError as error:
            raise RefusedError(CLIENTS_FILE, why=error) from error
        return web.json_response({"clients": len(self._config.clients)})

    def _client(self, request: web.Request) -> Client:
        return self._entry.client(request.match_info["client"])


async def _object(request: web.Request) -> dict[str, Any]:
    try:
        given = json.loads(await request.read())
    except ValueError:
        raise RefusedError(SEND_JSON) from None
    if not isinstance(given, dict):
        raise RefusedError(SEND_AN_OBJECT)
    return given


MISSING = "\0"


def _text(given: dict[str, Any], name: str, default: str | None = MISSING) -> Any:
    value = given.get(name, default)
    if value == MISSING or not (value is default or isinstance(value, str)):
        raise RefusedError(NOT_A_TEXT, name=name)
    return value
