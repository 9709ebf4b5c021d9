# Copyright (c) 2026 the warren.vpn authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the agent's web applications have in common."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Awaitable, Callable

from aiohttp import web

LOG = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def refuse(status: int, reason: str, message: str) -> web.Response:
    """An answer that says why not."""
    return web.json_response({"error": message, "reason": reason}, status=status)


def log_failure(error: Exception) -> None:
    """Say in the journal where something failed; not the error's message, which may hold an address."""
    frames = " ".join(f"{frame.name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__))
    LOG.error("%s in %s", type(error).__name__, frames)


@web.middleware
async def plain_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every failure is JSON, and nothing of a request gets into the log: it may hold a client's address."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        response = refuse(error.status, "http", error.reason)
        if "Allow" in error.headers:
            response.headers["Allow"] = error.headers["Allow"]
        return response
    except (web.RequestPayloadError, ConnectionResetError):
        return refuse(400, "body", "the body does not end, or is not encoded as its headers say")
    except Exception as error:  # noqa: BLE001 - whatever it is, the agent goes on
        log_failure(error)
        return refuse(500, "internal", "the agent failed; its journal says where")
