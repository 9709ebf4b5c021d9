# Copyright (c) 2026 the warren.vpn authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the portal does for programs: the operations of the table in ``routes.py``."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any

from aiohttp import web

from . import openapi
from .answers import Handler
from .clients import Client
from .config import Config
from .entry import Entry
from .portal_guard import Guard, Work
from .portal_pages import port_of
from .refusals import NO_JSON, NOT_A_NUMBER, NOT_A_TEXT, WRONG_OBJECT, NoSessionError, RefusedError
from .routes import OPERATIONS, Field, Operation
from .views import exit_view, forward_view, way_view

Values = Mapping[str, Any]
"""What was sent, by the names of the operation's fields, and of what is in its path."""


class Api:
    """The operations. Each is given who asks and what was sent, and returns what there is to say."""

    def __init__(self, config: Config, entry: Entry, guard: Guard, work: Work) -> None:
        self._config, self._entry, self._guard, self._work = config, entry, guard, work
        self._description = openapi.document()
        self._methods: dict[str, Callable[[Client, Values], Awaitable[Any]]] = {
            "status": self._status,
            "exits": self._exits,
            "enableMultihop": self._enable_multihop,
            "disableMultihop": self._disable_multihop,
            "exitAddresses": self._exit_addresses,
            "chooseExitAddresses": self._choose_exit_addresses,
            "forgetExitAddresses": self._forget_exit_addresses,
            "forwards": self._forwards,
            "addForward": self._add_forward,
            "removeForward": self._remove_forward,
            "describe": self._describe,
        }

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Serve all operations of the table."""
        for operation in OPERATIONS:
            handler = self._handler(operation)
            if operation.method == "GET":
                router.add_get(operation.path, handler)  # and HEAD
            else:
                router.add_route(operation.method, operation.path, handler)

    def _handler(self, operation: Operation) -> Handler:
        method = self._methods[operation.name]
        status, _words = operation.done

        async def handle(request: web.Request) -> web.StreamResponse:
            values: dict[str, Any] = {} if operation.fields is None else await _sent(request, operation.fields)
            values |= {name: port_of(text) for name, text in request.match_info.items()}
            answer = await method(self._guard.client(request), values)
            return web.Response(status=status) if operation.answer is None else web.json_response(answer, status=status)

        return handle

    async def _until_done(self, change: Coroutine[Any, Any, Any]) -> Any:
        """Wait for a change, which goes on if who asked for it goes away."""
        return await asyncio.shield(self._work.begin(change))

    async def _status(self, client: Client, _values: Values) -> dict[str, Any]:
        return self._status_of(client)

    def _status_of(self, client: Client) -> dict[str, Any]:
        way = way_view(self._config, self._entry, client)
        return {"entry": self._config.slug, "entry_label": self._config.label, **way}

    async def _exits(self, _client: Client, _values: Values) -> list[dict[str, Any]]:
        shown = ("exit", "label", "region", "reachable", "round_trip_ms", "ipv6")
        views = [exit_view(exit_) for exit_ in self._entry.exits.values()]
        return [{name: view[name] for name in shown} for view in views]

    async def _enable_multihop(self, client: Client, values: Values) -> dict[str, Any]:
        await self._until_done(self._entry.start(client, values["exit"]))
        return self._status_of(client)

    async def _disable_multihop(self, client: Client, _values: Values) -> dict[str, Any]:
        with contextlib.suppress(NoSessionError):
            await self._until_done(self._entry.stop(client))
        return self._status_of(client)

    async def _exit_addresses(self, _client: Client, _values: Values) -> dict[str, Any]:
        return {"exit4": self._config.exit4, "exit6": self._config.exit6}

    async def _choose_exit_addresses(self, client: Client, values: Values) -> dict[str, Any]:
        await self._until_done(self._entry.choose(client, values["exit4"], values["exit6"]))
        return self._status_of(client)

    async def _forget_exit_addresses(self, client: Client, _values: Values) -> dict[str, Any]:
        await self._until_done(self._entry.choose(client, None, None))
        return self._status_of(client)

    async def _forwards(self, client: Client, _values: Values) -> list[dict[str, Any]]:
        return [forward_view(self._config, row) for row in self._entry.forwards.of(client.address4)]

    async def _add_forward(self, client: Client, values: Values) -> dict[str, Any]:
        row = await self._until_done(self._entry.forwards.add(client, values["port"]))
        return forward_view(self._config, row)

    async def _remove_forward(self, client: Client, values: Values) -> None:
        await self._until_done(self._entry.forwards.remove(client, values["port"]))

    async def _describe(self, _client: Client, _values: Values) -> dict[str, Any]:
        return self._description


async def _sent(request: web.Request, fields: Mapping[str, Field]) -> dict[str, Any]:
    """The values of the JSON object that was sent; None for one that was left out.

    A browser sends this content type to another host only if that host allows it beforehand (CORS), which we never do.
    """
    if request.content_type != "application/json":
        raise RefusedError(NO_JSON)
    try:
        given = json.loads(await request.read())
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict) or not given.keys() <= fields.keys():
        raise RefusedError(WRONG_OBJECT, names=", ".join(fields))
    for name, field in fields.items():
        value = given.get(name)
        right = isinstance(value, field.kind) and not isinstance(value, bool)
        if not right and (field.required or value is not None):
            raise RefusedError(NOT_A_TEXT if field.kind is str else NOT_A_NUMBER, name=name)
    return {name: given.get(name) for name in fields}
