# Copyright (c) 2026 the warren.vpn authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``python3 -m warrend``: what ``warrend.service`` runs. Its sockets come from systemd (sd_listen_fds(3))."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from aiohttp import web

from . import config, portal
from .agent import Agent
from .backend import Backend
from .clients import ClientsError
from .control import Control
from .store import NewerStoreError
from .tables import TablesError
from .visitors import BACKEND, IDLE_SECONDS, PORTAL, LimitedSite, Limits

LOG = logging.getLogger("warrend")
FIRST_DESCRIPTOR = 3


def sockets() -> dict[str, list[socket.socket]]:
    """The sockets that systemd has opened, by the name that their unit gives them."""
    names = os.environ.get("LISTEN_FDNAMES", "").split(":") if os.environ.get("LISTEN_FDS") else []
    found: dict[str, list[socket.socket]] = {}
    for number, name in enumerate(names):
        found.setdefault(name, []).append(socket.socket(fileno=FIRST_DESCRIPTOR + number))
    return found


def notify(state: str) -> None:
    """Tell systemd how it goes (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(state.encode(), f"\0{address[1:]}" if address.startswith("@") else address)


async def serve(
    application: web.Application,
    listening: list[socket.socket],
    limits: Limits | None = None,
    keepalive_timeout: float = 75,
) -> web.AppRunner:
    """Answer on sockets, without a log of who asks; connections on which nobody asks end after so many seconds."""
    open_connections: Counter[str] = Counter()
    options: dict[str, Any] = {"keepalive_timeout": keepalive_timeout, "auto_decompress": False}
    # Or 30 kB that somebody sends could become 30 MB, before anything is asked.
    runner = web.AppRunner(application, access_log=None, handle_signals=False, **options)
    await runner.setup()
    for sock in listening:
        site = LimitedSite(runner, sock, limits, open_connections) if limits else web.SockSite(runner, sock)
        await site.start()
    return runner


async def run() -> None:
    """Run until systemd says otherwise, or until something fails that only a restart can mend."""
    state = Path(os.environ["STATE_DIRECTORY"])
    agent = Agent(config.load(), state)
    stopped = asyncio.get_running_loop().create_task(_stop_signal())
    hang_up = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hang_up.set)
    runners = []
    try:
        await agent.start()
        given = sockets()
        backend = Backend(agent.config, agent.leases, agent.metrics)
        runners.append(await serve(backend.application(), given.get("backend", []), BACKEND))
        runners.append(await serve(Control(agent).application(), given.get("control", [])))
        if "portal" in given:
            application = portal.application(agent.config, agent.entry, portal.form_key(state / "portal.key"))
            runners.append(await serve(application, given["portal"], PORTAL, IDLE_SECONDS))
        notify("READY=1")
        failed = asyncio.create_task(agent.wait())
        reloading = asyncio.create_task(reload_at_each(agent, hang_up))
        await asyncio.wait({failed, stopped}, return_when=asyncio.FIRST_COMPLETED)
        reloading.cancel()
        if failed.done():
            failed.result()
        failed.cancel()
    finally:
        notify("STOPPING=1")
        stopped.cancel()
        for runner in runners:
            await runner.cleanup()
        await agent.close()


async def reload_at_each(agent: Agent, signalled: asyncio.Event) -> None:
    """Reload at each SIGHUP, until cancelled. ``systemctl reload`` asks by the control socket, and so waits for it."""
    while True:
        await signalled.wait()
        signalled.clear()
        notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        with contextlib.suppress(ClientsError, TablesError, OSError):  # the agent has said so, or ends
            await agent.reload()
        notify("READY=1")


async def _stop_signal() -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    await stopped.wait()


def main() -> int:
    """Run the agent."""
    logging.basicConfig(format="%(levelname)s %(message)s", level=logging.INFO, stream=sys.stderr)
    logging.getLogger("aiohttp").setLevel(logging.CRITICAL)  # it quotes what clients send
    with contextlib.suppress(KeyboardInterrupt):
        try:
            asyncio.run(run())
        except ClientsError as error:
            LOG.error("%s. Until then nobody passes", error)  # noqa: TRY400 - it says all
            return 1
        except NewerStoreError as error:
            LOG.error("%s", error)  # noqa: TRY400 - it says all
            return 1
        except TablesError as error:
            LOG.error("%s, and cannot be put back. systemd starts warrend again", error)  # noqa: TRY400
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
