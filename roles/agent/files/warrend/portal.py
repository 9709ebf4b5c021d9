# Copyright (c) 2026 the warren.vpn authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The portal: what a client of this server opens inside the tunnel, as pages for people and as JSON for programs.

A client is known by its tunnel address, which WireGuard binds to its key. What is left to keep out is a web page
elsewhere that has the client's browser press the buttons: see ``_refuse_strangers``, and the token in each form.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import math
import os
import secrets
from collections.abc import Callable, Coroutine
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import web

from .answers import Handler, log_failure, refuse
from .clients import Client
from .config import Config
from .entry import Entry
from .errors import AwayError, NoSessionError, RefusedError
from .pages import STATIC, Pages
from .views import exit_view, forward_view, way_view
from .visitors import Rate, arrived

LARGEST_BODY = 4096
LARGE_PAGE = 8192
"""Bytes from which a page is compressed: of a fleet of hundreds, or with a hundred forwarded ports."""

REQUESTS_AT_ONCE, REQUESTS_A_SECOND = 120, 10
CHANGES_AT_ONCE, CHANGES_A_SECOND = 20, 1

SOON_SECONDS = 0.1
"""A page waits so long for a change; then it says that it is under way."""

BODY_SECONDS = 10.0

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

OPENAPI = (resources.files(__package__) / "portal.json").read_text(encoding="utf-8")

Act = Callable[[Client, dict[str, str]], Coroutine[Any, Any, object]]


class DeniedError(Exception):
    """A request that is refused.

    Attributes:
        status: of HTTP.
        reason: a word for programs.
        title: what is wrong, in a few words.
        headers: more of the answer's.
    """

    def __init__(self, status: int, reason: str, title: str, message: str, **headers: str) -> None:
        """Keep all of it; the message says what to do."""
        super().__init__(message)
        self.status, self.reason, self.title, self.headers = status, reason, title, headers


def form_key(path: Path) -> bytes:
    """The key of the tokens in forms, made at the first start, so that open pages outlive a restart."""
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        key = b""
    if len(key) != hashlib.sha256().digest_size:
        key = secrets.token_bytes(hashlib.sha256().digest_size)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(key)
    return key


class Portal:
    """The application."""

    def __init__(self, config: Config, entry: Entry, key: bytes) -> None:
        """Nothing runs yet."""
        self._config, self._entry, self._key = config, entry, key
        self._pages = Pages(config)
        hosts = [f"[{address}]" if ":" in address else address for address in config.portal]
        self._hosts = frozenset(each + port for each in [*hosts, *config.portal_names] for port in ("", ":80"))
        self._origins = frozenset(f"http://{host}" for host in self._hosts)
        self._home = f"http://{hosts[0]}/"
        self._requests = Rate(REQUESTS_AT_ONCE, REQUESTS_A_SECOND)
        self._changes = Rate(CHANGES_AT_ONCE, CHANGES_A_SECOND)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._acts: dict[str, dict[str, Act]] = {
            "/multihop": {"enable": self._enable, "disable": self._disable},
            "/changemyip": {"choose": self._choose, "default": self._unchoose},
            "/fwd": {"add": self._forward, "remove": self._forward_no_more},
        }

    def application(self) -> web.Application:
        """What listens on the portal address."""
        middlewares = [self._with_headers, self._refusals, self._guard]
        app = web.Application(middlewares=middlewares, client_max_size=LARGEST_BODY)
        for path in STATIC:
            app.router.add_get(path, self._static)
        for path in ("/", *self._acts):
            app.router.add_get(path, self._page)
        for path in self._acts:
            app.router.add_post(path, self._submit)
        app.router.add_get("/api/status", self._api_status)
        app.router.add_get("/api/exits", self._api_exits)
        app.router.add_put("/api/multihop", self._api_enable)
        app.router.add_delete("/api/multihop", self._api_disable)
        app.router.add_get("/api/exit-addresses", self._api_addresses)
        app.router.add_put("/api/exit-addresses", self._api_choose)
        app.router.add_delete("/api/exit-addresses", self._api_unchoose)
        app.router.add_get("/api/forwards", self._api_forwards)
        app.router.add_post("/api/forwards", self._api_forward)
        app.router.add_delete("/api/forwards/{port}", self._api_forward_no_more)
        app.router.add_get("/api/openapi.json", self._api_describe)
        return app

    # --- who may ask for what

    @web.middleware
    async def _with_headers(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        response = await handler(request)
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    @web.middleware
    async def _refusals(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Say why not, as a page or as JSON."""
        try:
            return await handler(request)
        except DeniedError as error:
            denied = error
        except web.HTTPException as error:
            denied = _http_error(error)
        except (web.RequestPayloadError, ConnectionResetError):
            denied = DeniedError(400, "body", "This is no request", "Load the page, and press a button there.")
        except Exception as error:  # noqa: BLE001 - whatever it is, the agent goes on
            log_failure(error)
            denied = DeniedError(
                500, "internal", "Something is broken here", "Try again. If it stays so, tell your provider."
            )
        if request.path.startswith("/api/"):
            response = refuse(denied.status, denied.reason, str(denied))
        else:
            response = _html(self._pages.refused(denied.title, str(denied)), denied.status)
        if denied.status in (403, 421, 429):
            response.force_close()  # the next one is not worth waiting for
        response.headers.update({name.replace("_", "-"): value for name, value in denied.headers.items()})
        return response

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if not request.can_read_body:
            arrived(request)
        self._refuse_strangers(request)
        client = self._client(request)
        seconds = self._requests.wait(client.address4)
        if not seconds and request.method not in ("GET", "HEAD"):
            seconds = self._changes.wait(client.address4)
        if seconds:
            message = f"Wait {_seconds(seconds)}, then try again."
            raise DeniedError(429, "too_often", "Too many requests", message, Retry_After=str(math.ceil(seconds)))
        if "Content-Encoding" in request.headers:
            raise DeniedError(415, "content_encoding", "This is packed", "Send it as it is: nothing is unpacked here.")
        if request.can_read_body:
            try:
                await asyncio.wait_for(request.read(), BODY_SECONDS)  # and the request keeps it
            except TimeoutError:
                raise DeniedError(408, "slow", "That took too long", "Try again.") from None
            arrived(request)
        return await handler(request)

    def _refuse_strangers(self, request: web.Request) -> None:
        """Refuse what a web page elsewhere has a browser send.

        A page of another host that makes its name lead here (DNS rebinding) gives itself away by the Host header, any
        other by Origin (RFC 6454) or Sec-Fetch-Site (W3C Fetch Metadata). A browser has no way to leave both out of a
        request that changes something, and a program that is no browser has none of the client's trust to abuse.
        """
        # Not request.host: where there is no such header, aiohttp asks the resolver for this server's own name.
        hosts = request.headers.getall("Host", [])
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            message = f"This page is at {self._home} and nowhere else. Open it there."
            raise DeniedError(421, "host", "Wrong address", message)
        origin = request.headers.get("Origin")
        sites = set(request.headers.getall("Sec-Fetch-Site", []))
        reading = request.method in ("GET", "HEAD") and not request.path.startswith("/api/")
        foreign = (origin is not None and origin not in self._origins) or not sites <= {"same-origin", "none"}
        if foreign and not reading:
            message = f"Another web page tried to do this in your name. If it was you, do it at {self._home} instead."
            raise DeniedError(403, "origin", "Not from this page", message)

    def _client(self, request: web.Request) -> Client:
        client = self._config.clients.at(request.remote or "")
        if client is None:
            message = f"This page is for devices connected to {self._config.label}. Connect, then load it again."
            raise DeniedError(403, "no_client", "You are not connected", message)
        return client

    def _token(self, client: Client) -> str:
        return hmac.new(self._key, client.address4.encode(), hashlib.sha256).hexdigest()

    # --- pages

    async def _static(self, request: web.Request) -> web.Response:
        body, content_type = STATIC[request.path]
        return web.Response(body=body, content_type=content_type, headers={"Cache-Control": "max-age=600"})

    async def _page(self, request: web.Request) -> web.Response:
        return self._show(request)

    def _show(self, request: web.Request, error: str | None = None, status: int = 200) -> web.Response:
        client = self._client(request)
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
        return _html(self._pages.show(request.path, way, self._token(client), error, **more), status)

    async def _submit(self, request: web.Request) -> web.Response:
        client = self._client(request)
        form = await _form(request)
        if not hmac.compare_digest(form.pop("token", "").encode(), self._token(client).encode()):
            message = "This page was not up to date. Look at it again, and repeat what you wanted to do."
            return self._show(request, message, 403)
        act = self._acts[request.path].get(form.pop("do", ""))
        if act is None:
            return self._show(request, "Press one of the buttons of this page.", 400)
        task = self._begin(act(client, form))
        done, late = await asyncio.wait({task}, timeout=SOON_SECONDS)
        for each in late:
            each.add_done_callback(_log_late)
        try:
            for each in done:
                each.result()
        except RefusedError as error:
            return self._show(request, _for_clients(error), 409)
        except AwayError:
            pass  # the page says so
        except DeniedError as error:
            return self._show(request, str(error), error.status)
        return web.Response(status=303, headers={"Location": request.path})

    def _begin(self, work: Coroutine[Any, Any, object]) -> asyncio.Task[object]:
        """Do something to its end, even if who asked for it goes away."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _enable(self, client: Client, form: dict[str, str]) -> None:
        if "exit" not in form:
            raise DeniedError(400, "exit", "", "Choose a server first.")
        await self._entry.start(client, form["exit"])

    async def _disable(self, client: Client, _form: dict[str, str] | None = None) -> None:
        with contextlib.suppress(NoSessionError):
            await self._entry.stop(client)

    async def _choose(self, client: Client, form: dict[str, str]) -> None:
        await self._entry.choose(client, form.get("exit4") or None, form.get("exit6") or None)

    async def _unchoose(self, client: Client, _form: dict[str, str]) -> None:
        await self._entry.choose(client, None, None)

    async def _forward(self, client: Client, form: dict[str, str]) -> None:
        await self._entry.forwards.add(client, _port(form["port"]) if form.get("port") else None)

    async def _forward_no_more(self, client: Client, form: dict[str, str]) -> None:
        await self._entry.forwards.remove(client, _port(form.get("port", "")))

    # --- the same for programs

    async def _api_status(self, request: web.Request) -> web.Response:
        return web.json_response(self._status(self._client(request)))

    def _status(self, client: Client) -> dict[str, Any]:
        way = way_view(self._config, self._entry, client)
        return {"entry": self._config.slug, "entry_label": self._config.label, **way}

    async def _api_exits(self, _request: web.Request) -> web.Response:
        shown = ("exit", "label", "region", "reachable", "round_trip_ms", "ipv6")
        views = [exit_view(exit_) for exit_ in self._entry.exits.values()]
        return web.json_response([{name: view[name] for name in shown} for view in views])

    async def _api_enable(self, request: web.Request) -> web.Response:
        word = _value(await _object(request, "exit"), "exit", str)
        return await self._changed(request, self._entry.start(self._client(request), word))

    async def _api_disable(self, request: web.Request) -> web.Response:
        return await self._changed(request, self._disable(self._client(request)))

    async def _api_addresses(self, _request: web.Request) -> web.Response:
        return web.json_response({"exit4": self._config.exit4, "exit6": self._config.exit6})

    async def _api_choose(self, request: web.Request) -> web.Response:
        given = await _object(request, "exit4", "exit6")
        exit4, exit6 = (_value(given, name, str, None) for name in ("exit4", "exit6"))
        return await self._changed(request, self._entry.choose(self._client(request), exit4, exit6))

    async def _api_unchoose(self, request: web.Request) -> web.Response:
        return await self._changed(request, self._entry.choose(self._client(request), None, None))

    async def _changed(self, request: web.Request, work: Coroutine[Any, Any, object]) -> web.Response:
        await self._until_done(work)
        return web.json_response(self._status(self._client(request)))

    async def _api_forwards(self, request: web.Request) -> web.Response:
        rows = self._entry.forwards.of(self._client(request).address4)
        return web.json_response([forward_view(self._config, row) for row in rows])

    async def _api_forward(self, request: web.Request) -> web.Response:
        port = _value(await _object(request, "port"), "port", int, None)
        row = await self._until_done(self._entry.forwards.add(self._client(request), port))
        return web.json_response(forward_view(self._config, row), status=201)

    async def _api_forward_no_more(self, request: web.Request) -> web.Response:
        await self._until_done(self._entry.forwards.remove(self._client(request), _port(request.match_info["port"])))
        return web.Response(status=204)

    async def _api_describe(self, _request: web.Request) -> web.Response:
        return web.Response(text=OPENAPI, content_type="application/json")

    async def _until_done(self, work: Coroutine[Any, Any, Any]) -> Any:
        try:
            return await asyncio.shield(self._begin(work))
        except RefusedError as error:
            status = 404 if error.reason in ("no_forward", "unknown_exit") else 409
            raise DeniedError(status, error.reason, "", _for_clients(error)) from error
        except AwayError as error:
            raise DeniedError(503, "away", "", _for_clients(error)) from error


def _log_late(task: asyncio.Task[object]) -> None:
    """The failure of what a page does not wait for any more."""
    error = None if task.cancelled() else task.exception()
    if isinstance(error, Exception) and not isinstance(error, (RefusedError, AwayError, DeniedError)):
        log_failure(error)


def _html(text: str, status: int = 200) -> web.Response:
    response = web.Response(text=text, content_type="text/html", status=status)
    if len(text) > LARGE_PAGE:
        response.enable_compression()
    return response


def _http_error(error: web.HTTPException) -> DeniedError:
    """What aiohttp refuses by itself, in words for people."""
    if error.status == 404:
        return DeniedError(404, "not_found", "There is no such page", "Go to the first page and look there.")
    if error.status == 405:
        message = "Load the page, and press a button there."
        return DeniedError(405, "method", "This cannot be done here", message, Allow=error.headers["Allow"])
    if error.status == 413:
        return DeniedError(413, "too_large", "That is too much", f"Send at most {LARGEST_BODY} bytes.")
    return DeniedError(error.status, "http", error.reason, "Go back, and try again.")


def _for_clients(error: RefusedError | AwayError) -> str:
    """Why not, for the client itself; the errors' own words are for operators."""
    if isinstance(error, AwayError):
        return (
            "The server that you chose does not answer. Your traffic is blocked until it does, or until multihop is "
            "disabled, so that nothing leaves by another way."
        )
    return {
        "choice": "You have chosen your own exit address. Go back to the default on the page /changemyip first.",
        "session": "Multihop is on. Disable it on the page /multihop first.",
        "unknown_exit": "There is no such server. Choose one from the list.",
        "unknown_address": "This is no address of this server. Choose one from the list.",
        "pool_full": "This server has no room for you just now. Try again later.",
    }.get(error.reason, str(error))


async def _form(request: web.Request) -> dict[str, str]:
    """The fields of a form."""
    if request.content_type != "application/x-www-form-urlencoded":
        raise DeniedError(415, "content_type", "This is no form", "Load the page, and press a button there.")
    try:
        pairs = parse_qsl((await request.read()).decode("ascii"), keep_blank_values=True, max_num_fields=8)
    except ValueError:
        raise DeniedError(400, "form", "This is no form", "Load the page, and press a button there.") from None
    return dict(pairs)


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5):
        raise DeniedError(400, "port", "This is no port", "Write the port as a number, such as 40000, or write none.")
    return int(text)


async def _object(request: web.Request, *names: str) -> dict[str, Any]:
    """The JSON object that was sent.

    A browser sends this content type to another host only if that host allows it beforehand (CORS), which we never do.
    """
    if request.content_type != "application/json":
        raise DeniedError(415, "content_type", "", "Send JSON, with the header Content-Type: application/json.")
    try:
        given = json.loads(await request.read())
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict) or not given.keys() <= set(names):
        raise DeniedError(400, "body", "", f"Send a JSON object, with no other names in it than {', '.join(names)}.")
    return given


REQUIRED = object()


def _value(given: dict[str, Any], name: str, kind: type, default: Any = REQUIRED) -> Any:
    value = given.get(name, default)
    right = isinstance(value, kind) and not isinstance(value, bool)
    if value is REQUIRED or not (right or value is default):
        raise DeniedError(400, name, "", f"{name} has to be {'a text' if kind is str else 'a whole number'}.")
    return value


def _seconds(seconds: float) -> str:
    number = math.ceil(seconds)
    return "a second" if number == 1 else f"{number} seconds"
