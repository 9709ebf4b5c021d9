# Copyright (c) 2026 the warren.vpn authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may ask the portal for what, how often, and how it says no.

A client is known by its tunnel address, which WireGuard binds to its key. What is left to keep out is a web page
elsewhere that has the client's browser press the buttons: see ``_refuse_strangers``, and the token in each form.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import math
from collections.abc import Coroutine
from typing import Any

from aiohttp import web

from .answers import Handler, html, log_failure, refuse
from .clients import Client
from .config import Config
from .pages import Pages
from .refusals import (
    BROKEN_BODY,
    FOREIGN_PAGE,
    INTERNAL,
    METHOD,
    NOT_CONNECTED,
    NOT_FOUND,
    PACKED,
    SLOW,
    TOO_LARGE,
    TOO_OFTEN,
    WRONG_HOST,
    Refusal,
    RefusedError,
)
from .visitors import Rate, arrived

LARGEST_BODY = 4096

REQUESTS_AT_ONCE, REQUESTS_A_SECOND = 120, 10
CHANGES_AT_ONCE, CHANGES_A_SECOND = 20, 1

BODY_SECONDS = 10.0

READING = ("GET", "HEAD")

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Not no-referrer: browsers would send "Origin: null" with our own forms.
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Server": "warren",
}


class Guard:
    """What every request to the portal passes, and every answer."""

    def __init__(self, config: Config, pages: Pages, key: bytes) -> None:
        """Nobody has asked yet; ``key`` is that of the forms' tokens."""
        self._config, self._pages, self._key = config, pages, key
        hosts = [f"[{address}]" if ":" in address else address for address in config.portal]
        self._hosts = frozenset(each + port for each in [*hosts, *config.portal_names] for port in ("", ":80"))
        self._origins = frozenset(f"http://{host}" for host in self._hosts)
        self._home = f"http://{hosts[0]}/"
        self._requests = Rate(REQUESTS_AT_ONCE, REQUESTS_A_SECOND)
        self._changes = Rate(CHANGES_AT_ONCE, CHANGES_A_SECOND)
        self.middlewares = (self._add_headers, self._answer_refusals, self._admit)

    def client(self, request: web.Request) -> Client:
        """Who asks.

        Raises:
            RefusedError: it is no client of this server.
        """
        client = self._config.clients.at(request.remote or "")
        if client is None:
            raise RefusedError(NOT_CONNECTED, server=self._config.label)
        return client

    def token(self, client: Client) -> str:
        """What a form of this client's pages has in it, and nobody else knows."""
        return hmac.new(self._key, client.address4.encode(), hashlib.sha256).hexdigest()

    @web.middleware
    async def _add_headers(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        response = await handler(request)
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    @web.middleware
    async def _answer_refusals(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Say why not, as a page or as JSON."""
        try:
            return await handler(request)
        except RefusedError as error:
            refused = error
        except web.HTTPException as error:
            refused = _of_aiohttp(error)
        except (web.RequestPayloadError, ConnectionResetError):
            refused = RefusedError(BROKEN_BODY)
        except Exception as error:  # noqa: BLE001 - whatever it is, the agent goes on
            log_failure(error)
            refused = RefusedError(INTERNAL)
        if request.path.startswith("/api/"):
            response = refuse(refused.status, refused.reason, refused.for_client)
        else:
            response = html(self._pages.refused(refused.refusal.title, refused.for_client), refused.status)
        if refused.status in (403, 421, 429):
            response.force_close()  # the next one is not worth waiting for
        response.headers.update(refused.headers)
        return response

    @web.middleware
    async def _admit(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if not request.can_read_body:
            arrived(request)
        self._refuse_strangers(request)
        self._count(request, self.client(request))
        if "Content-Encoding" in request.headers:
            raise RefusedError(PACKED)
        if request.can_read_body:
            try:
                await asyncio.wait_for(request.read(), BODY_SECONDS)  # and the request keeps it
            except TimeoutError:
                raise RefusedError(SLOW) from None
            arrived(request)
        return await handler(request)

    def _count(self, request: web.Request, client: Client) -> None:
        """Refuse what comes too often."""
        seconds = self._requests.wait(client.address4)
        if not seconds and request.method not in READING:
            seconds = self._changes.wait(client.address4)
        if seconds:
            number = math.ceil(seconds)
            words = "a second" if number == 1 else f"{number} seconds"
            raise RefusedError(TOO_OFTEN, {"Retry-After": str(number)}, time=words)

    def _refuse_strangers(self, request: web.Request) -> None:
        """Refuse what a web page elsewhere has a browser send.

        A page of another host that makes its name lead here (DNS rebinding) gives itself away by the Host header, any
        other by Origin (RFC 6454) or Sec-Fetch-Site (W3C Fetch Metadata). A browser has no way to leave both out of a
        request that changes something, and a program that is no browser has none of the client's trust to abuse.
        """
        # Not request.host: where there is no such header, aiohttp asks the resolver for this server's own name.
        hosts = request.headers.getall("Host", [])
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            raise RefusedError(WRONG_HOST, home=self._home)
        origin = request.headers.get("Origin")
        sites = set(request.headers.getall("Sec-Fetch-Site", []))
        reading = request.method in READING and not request.path.startswith("/api/")
        foreign = (origin is not None and origin not in self._origins) or not sites <= {"same-origin", "none"}
        if foreign and not reading:
            raise RefusedError(FOREIGN_PAGE, home=self._home)


class Work:
    """Changes that go on to their ends, even if who asked for them goes away."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def begin(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Begin one."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _of_aiohttp(error: web.HTTPException) -> RefusedError:
    """What aiohttp refuses by itself, in words for people."""
    if error.status == 404:
        return RefusedError(NOT_FOUND)
    if error.status == 405:
        return RefusedError(METHOD, {"Allow": error.headers["Allow"]})
    if error.status == 413:
        return RefusedError(TOO_LARGE, most=LARGEST_BODY)
    return RefusedError(Refusal("http", error.status, "Go back, and try again.", title=error.reason))
