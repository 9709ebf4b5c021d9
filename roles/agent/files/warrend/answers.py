# Copyright (c) 2026 the warren.vpn authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the agent's web applications have in common."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Awaitable, Callable

from aiohttp import web

from .refusals import BROKEN_BODY, INTERNAL, RefusedError

LOG = logging.getLogger(__name__)

LARGE_PAGE = 8192
"""Bytes from which a page is compressed: of a fleet of hundreds, or with a hundred forwarded ports."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def refuse(status: int, reason: str, message: str) -> web.Response:
    """An answer that says why not, for people and for programs."""
    return web.json_response({"error": message, "reason": reason}, status=status)


def refuse_as(error: RefusedError) -> web.Response:
    """The answer to what is refused, for operators and other servers."""
    return refuse(error.status, error.reason, str(error))


def html(text: str, status: int = 200) -> web.Response:
    """A page."""
    response = web.Response(text=text, content_type="text/html", status=status)
    if len(text) > LARGE_PAGE:
        response.enable_compression()
    return response


def log_failure(error: Exception) -> None:
    """Say in the journal where something failed; not the error's message, which may hold an address."""
    frames = " ".join(f"{frame.name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__))
    LOG.error("%s in %s", type(error).__name__, frames)


@web.middleware
async def plain_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every failure is JSON, and nothing of a request gets into the log: it may hold a client's address."""
    try:
        return await handler(request)
    except RefusedError as error:
        return refuse_as(error)
    except web.HTTPException as error:
        response = refuse(error.status, "http", error.reason)
        if "Allow" in error.headers:
            response.headers["Allow"] = error.headers["Allow"]
        return response
    except (web.RequestPayloadError, ConnectionResetError):
        return refuse_as(RefusedError(BROKEN_BODY))
    except Exception as error:  # noqa: BLE001 - whatever it is, the agent goes on
        log_failure(error)
        return refuse_as(RefusedError(INTERNAL))
