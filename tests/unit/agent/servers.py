"""Real HTTP servers of the agent in a thread, and plain HTTP to talk to them."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
import threading
import urllib.parse
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import web
from warrend.__main__ import serve

FORM = "application/x-www-form-urlencoded"


class LoopThread:
    """An event loop that runs in a thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run something there to its end."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(30)

    def close(self) -> None:
        """End it."""
        self.run(self._cancel())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()

    @staticmethod
    async def _cancel() -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


@contextmanager
def loop_thread() -> Iterator[LoopThread]:
    """One for a while."""
    thread = LoopThread()
    try:
        yield thread
    finally:
        thread.close()


def listening(address: str) -> socket.socket:
    """A listening socket on a free port."""
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    sock.bind((address, 0))
    return sock


@contextmanager
def served(
    thread: LoopThread, make: Callable[[], web.Application], *sockets: socket.socket, **options: Any
) -> Iterator[None]:
    """An application, served on sockets as ``python3 -m warrend`` does it."""

    async def start() -> web.AppRunner:
        return await serve(make(), list(sockets), **options)

    runner = thread.run(start())
    try:
        yield
    finally:
        thread.run(runner.cleanup())


class Caller:
    """Somebody with an address."""

    def __init__(self, port: int, source: str, target: str = "127.0.0.1") -> None:
        self.port, self.source, self.target = port, source, target

    def send(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any]:
        """Status, and JSON or bytes."""
        connection = http.client.HTTPConnection(self.target, self.port, timeout=10, source_address=(self.source, 0))
        try:
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            response = connection.getresponse()
            said = response.read()
            if "json" in response.headers.get("Content-Type", ""):
                return response.status, json.loads(said)
            return response.status, said
        finally:
            connection.close()

    def post(self, *form: tuple[str, str], **fields: str) -> tuple[int, Any]:
        """Send a form to the backend."""
        body = urllib.parse.urlencode([*fields.items(), *form]).encode()
        return self.send("POST", "/mh-backend", body, Content_Type=FORM)

    def raw(self, data: bytes, patience: float = 2) -> int:
        """Send bytes. The status of the answer; 0 if the connection is closed without one, or nobody says anything."""
        with socket.create_connection((self.target, self.port), 10, (self.source, 0)) as sock:
            sock.settimeout(patience)
            with contextlib.suppress(ConnectionError, TimeoutError):
                sock.sendall(data)
                return int(sock.recv(65536)[9:12] or 0)
        return 0
