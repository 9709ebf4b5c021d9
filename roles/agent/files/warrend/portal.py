# Copyright (c) 2026 the warren.vpn authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The portal: what a client of this server opens inside the tunnel, as pages for people and as JSON for programs.

Every request passes the guard (``portal_guard.py``); then the pages (``portal_pages.py``) or the API
(``portal_api.py``) do what it asks for.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path

from aiohttp import web

from .config import Config
from .entry import Entry
from .pages import Pages
from .portal_api import Api
from .portal_guard import LARGEST_BODY, Guard, Work
from .portal_pages import PortalPages


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


def application(config: Config, entry: Entry, key: bytes) -> web.Application:
    """What listens on the portal address; ``key`` is that of :func:`form_key`."""
    pages, work = Pages(config), Work()
    guard = Guard(config, pages, key)
    made = web.Application(middlewares=guard.middlewares, client_max_size=LARGEST_BODY)
    PortalPages(config, entry, guard, pages, work).add_routes(made.router)
    Api(config, entry, guard, work).add_routes(made.router)
    return made
