# Copyright (c) 2026 the warren.vpn authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the portal's pages show and do, for people; ``pages.py`` has how they look."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import web

from .answers import html, log_failure
from .clients import Client
from .config import Config
from .entry import Entry
from .pages import STATIC, Pages
from .portal_guard import Guard, Work
from .refusals import (
    BROKEN_FORM,
    NO_BUTTON,
    NO_EXIT_CHOSEN,
    NO_FORM,
    NO_PORT,
    OLD_FORM,
    AwayError,
    NoSessionError,
    RefusedError,
)
from .views import exit_view, way_view

SOON_SECONDS = 0.1
"""A page waits so long for a change; then it says that it is under way."""

OF_FORMS = (OLD_FORM, NO_BUTTON, NO_EXIT_CHOSEN, NO_PORT)
"""What is wrong with a form has its own status; what cannot be done just now is a conflict."""

Act = Callable[[Client, dict[str, str]], Coroutine[Any, Any, object]]


class PortalPages:
    """The pages, and the buttons on them."""

    def __init__(self, config: Config, entry: Entry, guard: Guard, pages: Pages, work: Work) -> None:
        self._config, self._entry, self._guard, self._pages, self._work = config, entry, guard, pages, work
        self._buttons: dict[str, dict[str, Act]] = {
            "/multihop": {"enable": self._enable, "disable": self._disable},
            "/changemyip": {"choose": self._choose, "default": self._choose_default},
            "/fwd": {"add": self._add_forward, "remove": self._remove_forward},
        }

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Serve them."""
        for path in STATIC:
            router.add_get(path, self._static)
        for path in ("/", *self._buttons):
            router.add_get(path, self._page)
        for path in self._buttons:
            router.add_post(path, self._submit)

    async def _static(self, request: web.Request) -> web.Response:
        body, content_type = STATIC[request.path]
        return web.Response(body=body, content_type=content_type, headers={"Cache-Control": "max-age=600"})

    async def _page(self, request: web.Request) -> web.Response:
        return self._show(request)

    def _show(self, request: web.Request, error: RefusedError | None = None, status: int = 200) -> web.Response:
        """The page of the request's path, with what is wrong if something is."""
        client = self._guard.client(request)
        more: dict[str, Any] = {}
        if request.path == "/multihop":
            session = self._entry.sessions.get(client.address4)
            exits = [exit_view(exit_) for exit_ in self._entry.exits.values()]
            more = {"exits": exits, "current": session.row.exit if session else None}
        elif request.path == "/changemyip":
            more = {"choice": self._entry.choices.get(client.address4)}
        elif request.path == "/fwd":
            more = {"client": client, "rows": self._entry.forwards.of(client.address4)}
        way = way_view(self._config, self._entry, client)
        said = error.for_client if error else None
        return html(self._pages.show(request.path, way, self._guard.token(client), said, **more), status)

    async def _submit(self, request: web.Request) -> web.Response:
        client = self._guard.client(request)
        form = await _form(request)
        try:
            if not hmac.compare_digest(form.pop("token", "").encode(), self._guard.token(client).encode()):
                raise RefusedError(OLD_FORM)
            press = self._buttons[request.path].get(form.pop("do", ""))
            if press is None:
                raise RefusedError(NO_BUTTON)
            task = self._work.begin(press(client, form))
            done, late = await asyncio.wait({task}, timeout=SOON_SECONDS)
            for each in late:
                each.add_done_callback(_log_late)
            for each in done:
                each.result()
        except AwayError:
            pass  # the page says so
        except RefusedError as error:
            return self._show(request, error, error.status if error.refusal in OF_FORMS else 409)
        return web.Response(status=303, headers={"Location": request.path})

    # --- buttons

    async def _enable(self, client: Client, form: dict[str, str]) -> None:
        if "exit" not in form:
            raise RefusedError(NO_EXIT_CHOSEN)
        await self._entry.start(client, form["exit"])

    async def _disable(self, client: Client, _form: dict[str, str]) -> None:
        with contextlib.suppress(NoSessionError):
            await self._entry.stop(client)

    async def _choose(self, client: Client, form: dict[str, str]) -> None:
        await self._entry.choose(client, form.get("exit4") or None, form.get("exit6") or None)

    async def _choose_default(self, client: Client, _form: dict[str, str]) -> None:
        await self._entry.choose(client, None, None)

    async def _add_forward(self, client: Client, form: dict[str, str]) -> None:
        await self._entry.forwards.add(client, port_of(form["port"]) if form.get("port") else None)

    async def _remove_forward(self, client: Client, form: dict[str, str]) -> None:
        await self._entry.forwards.remove(client, port_of(form.get("port", "")))


def port_of(text: str) -> int:
    """The port that is written in a form or a path.

    Raises:
        RefusedError: it is none.
    """
    if not (text.isascii() and text.isdigit() and len(text) <= 5):
        raise RefusedError(NO_PORT)
    return int(text)


async def _form(request: web.Request) -> dict[str, str]:
    """The fields of a form."""
    if request.content_type != "application/x-www-form-urlencoded":
        raise RefusedError(NO_FORM)
    try:
        pairs = parse_qsl((await request.read()).decode("ascii"), keep_blank_values=True, max_num_fields=8)
    except ValueError:
        raise RefusedError(BROKEN_FORM) from None
    return dict(pairs)


def _log_late(task: asyncio.Task[object]) -> None:
    """The failure of what a page does not wait for any more."""
    error = None if task.cancelled() else task.exception()
    if isinstance(error, Exception) and not isinstance(error, RefusedError):
        log_failure(error)
