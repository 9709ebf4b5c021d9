"""The portal over real HTTP: who is let in, what the pages and the API do, and what nobody can do."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import resource
import socket
import time
import urllib.parse
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import requests
import schemathesis
from agents import Pair, pair
from conftest import AGENT
from hypothesis import HealthCheck, given, settings
from requests.adapters import HTTPAdapter
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from servers import FORM, Caller, listening, served
from warrend import openapi, portal_guard
from warrend import portal as portal_module
from warrend.clients import Client
from warrend.pages import Pages
from warrend.portal import form_key
from warrend.portal_guard import HEADERS, LARGEST_BODY
from warrend.visitors import BACKEND, PORTAL, Limited

HOST = "127.0.0.1"
ALICE, BOB, STRANGER = "127.9.0.1", "127.9.0.2", "127.9.0.9"
CLIENTS = {
    address: Client(name, "", address, address6)
    for name, address, address6 in (("alice", ALICE, "::1"), ("bob", BOB, "fd57::b"))
}
DOCUMENT = json.loads(json.dumps(openapi.document()))
PAGES = ("/", "/multihop", "/changemyip", "/fwd")
EXITS4, EXITS6 = (
    ("203.0.113.11", "203.0.113.12", "203.0.113.13"),
    ("2001:db8:e::11", "2001:db8:e::12", "2001:db8:e::13"),
)


class Visitor(Caller):
    """A client with a browser, or a program."""

    def get(self, path: str, **headers: str) -> tuple[int, Any]:
        """Load something."""
        return self.send("GET", path, **{"Host": HOST, **headers})

    def page(self, path: str) -> str:
        """A page that has to be there."""
        status, body = self.get(path)
        assert status == 200, body
        return str(body.decode())

    def token(self) -> str:
        """What the forms of this client's pages have in them."""
        found = re.search(r'name="?token"? value="?([0-9a-f]{64})', self.page("/fwd"))
        assert found
        return found[1]

    def ends_after(self, data: bytes, seconds: float) -> bool:
        """Whether the portal ends the connection soon after it was sent something."""
        with socket.create_connection((self.target, self.port), 10, (self.source, 0)) as sock:
            sock.settimeout(seconds)
            try:
                sock.sendall(data)
                while sock.recv(65536):
                    pass
            except TimeoutError:
                return False
            except ConnectionError:
                pass
        return True

    def press(self, path: str, headers: dict[str, str] | None = None, **fields: str) -> tuple[int, str]:
        """Send a form of a page, as the page would."""
        body = urllib.parse.urlencode({"token": self.token(), **fields}).encode()
        sent = {"Host": HOST, "Origin": f"http://{HOST}", "Content-Type": FORM, **(headers or {})}
        status, said = self.send("POST", path, body, **sent)
        return status, said.decode() if isinstance(said, bytes) else json.dumps(said)

    def api(self, method: str, path: str, body: object = None, **headers: str) -> tuple[int, Any]:
        """Call the API as a script does."""
        sent = None if body is None else json.dumps(body).encode()
        plain = {"Host": HOST, **({"Content-Type": "application/json"} if sent is not None else {})}
        return self.send(method, path, sent, **{**plain, **headers})

    def status(self) -> dict[str, Any]:
        """How it leaves."""
        return dict(self.api("GET", "/api/status")[1])


class Running:
    """A portal of the agent on ams, and those who visit it."""

    def __init__(self, both: Pair, port: int, port6: int) -> None:
        self.both = both
        self.alice, self.bob, self.stranger = (Visitor(port, source) for source in (ALICE, BOB, STRANGER))
        self.alice6 = Visitor(port6, "::1", "::1")

    @property
    def entry(self) -> Any:
        return self.both.ams.entry


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Often enough for a test that asks all the time; the limits have tests of their own."""
    directory = tmp_path_factory.mktemp("portal")
    plenty = mock.patch.multiple(
        portal_guard, REQUESTS_AT_ONCE=1e9, CHANGES_AT_ONCE=1e9, REQUESTS_A_SECOND=1e9, CHANGES_A_SECOND=1e9
    )
    with plenty, pair(directory, clients=CLIENTS, portal=(HOST, "::1"), portal_names=("portal.example",)) as both:
        socks = listening(HOST), listening("::1")
        key = form_key(directory / "portal.key")
        ams = both.ams
        limits: dict[str, Any] = {"limits": PORTAL, "keepalive_timeout": 1}
        with served(both.thread, lambda: portal_module.application(ams.config, ams.entry, key), *socks, **limits):
            yield Running(both, *(sock.getsockname()[1] for sock in socks))


def fresh(running: Running) -> Any:
    """A portal whose clients have asked for nothing yet."""
    ams = running.both.ams
    return portal_module.application(ams.config, ams.entry, os.urandom(32))


@pytest.fixture(autouse=True)
def nobody_has_anything(running: Running) -> None:
    for client in CLIENTS.values():
        running.both.thread.run(running.entry.disconnected(client))


# --- who is let in


@pytest.mark.parametrize("path", [*PAGES, "/style.css", "/live.js", "/icon.svg", "/api/status", "/api/openapi.json"])
def test_clients_are_let_in_and_nobody_else(running: Running, path: str) -> None:
    assert running.alice.get(path)[0] == 200
    assert running.alice6.get(path, Host="[::1]")[0] == 200
    status, said = running.stranger.get(path)
    assert status == 403
    assert "connected to Amsterdam" in str(said)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:80", "[::1]", "[::1]:80", "portal.example", "PORTAL.example"])
def test_it_answers_to_its_addresses_and_names(running: Running, host: str) -> None:
    assert running.alice.get("/multihop", Host=host)[0] == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "127.0.0.1:8080", "", "::1", "127.0.0.1."])
@pytest.mark.parametrize("path", ["/multihop", "/api/status", "/nowhere"])
def test_it_answers_to_no_other(running: Running, host: str, path: str) -> None:
    """A page of evil.example whose name leads here (DNS rebinding) reads nothing."""
    status, said = running.alice.get(path, Host=host)
    assert status == 421
    assert "token" not in str(said)
    assert f"http://{HOST}/" in str(said)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("path", ["/", "/style.css", "/api/status", "/nothing"])
def test_nobody_is_asked_for_the_name_of_this_server(
    running: Running, monkeypatch: pytest.MonkeyPatch, version: str, path: str
) -> None:
    """Where a request has no Host, Debian 12's aiohttp would; while a resolver is silent, everybody would wait."""
    asked: list[str] = []
    for name in ("getfqdn", "gethostbyname", "gethostbyaddr", "gethostname"):
        monkeypatch.setattr(socket, name, lambda *_words, name=name: asked.append(name) or HOST)
    assert running.alice.raw(f"GET {path} HTTP/{version}\r\n\r\n".encode()) in (400, 421)
    assert asked == []


def test_two_hosts_are_none(running: Running) -> None:
    request = f"GET /multihop HTTP/1.1\r\nHost: {HOST}\r\nHost: evil.example\r\n\r\n"
    assert running.alice.raw(request.encode()) in (400, 421)
    assert running.alice.raw(b"GET /multihop HTTP/1.1\r\n\r\n") in (400, 421)


FOREIGN = [
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": f"https://{HOST}"},
    {"Origin": f"http://{HOST}:8080"},
    {"Origin": ""},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_a_page_elsewhere_presses_no_button(running: Running, headers: dict[str, str]) -> None:
    """Even if it knew the token."""
    status, said = running.alice.press("/multihop", headers, do="enable", exit="nyc")
    assert status == 403
    assert "Another web page" in said
    for method, path, body in (
        ("PUT", "/api/multihop", {"exit": "nyc"}),
        ("POST", "/api/forwards", {}),
        ("PUT", "/api/exit-addresses", {"exit4": EXITS4[1]}),
        ("DELETE", "/api/multihop", None),
        ("GET", "/api/status", None),
    ):
        status, said = running.alice.api(method, path, body, **headers)
        assert (status, json.loads(said)["reason"] if isinstance(said, str) else said["reason"]) == (403, "origin")
    assert running.alice.status()["state"] == "default"
    assert running.alice.api("GET", "/api/forwards") == (200, [])


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_what_a_browser_sends_to_other_hosts_unasked_is_not_taken(running: Running, kind: str) -> None:
    """Only these content types cross origins without the portal's leave (CORS)."""
    status, said = running.alice.send("POST", "/api/forwards", b"{}", Host=HOST, Content_Type=kind)
    assert (status, said["reason"]) == (415, "content_type")


def test_no_other_origin_is_given_leave(running: Running) -> None:
    preflight = {"Origin": "http://evil.example", "Access-Control-Request-Method": "PUT"}
    connection = requests.options(
        f"http://{HOST}:{running.alice.port}/api/multihop", headers={"Host": HOST, **preflight}, timeout=5
    )
    assert connection.status_code in (403, 405)
    assert not [name for name in connection.headers if name.lower().startswith("access-control")]


@pytest.mark.parametrize("token", ["", "0" * 64, "é", "bob"])
def test_a_form_without_the_clients_own_token_does_nothing(running: Running, token: str) -> None:
    token = running.bob.token() if token == "bob" else token
    status, said = running.alice.press("/multihop", token=token, do="enable", exit="nyc")
    assert status == 403
    assert "not up to date" in said
    assert running.alice.status()["state"] == "default"


def test_the_token_outlives_the_agent_and_is_nobody_elses_to_read(tmp_path: Path) -> None:
    key = form_key(tmp_path / "portal.key")
    assert len(key) == 32
    assert form_key(tmp_path / "portal.key") == key != form_key(tmp_path / "other.key")
    assert (tmp_path / "portal.key").stat().st_mode & 0o777 == 0o600
    (tmp_path / "portal.key").write_bytes(b"cut")
    assert len(form_key(tmp_path / "portal.key")) == 32


@pytest.mark.parametrize("path", [*PAGES, "/nowhere", "/style.css", "/api/status", "/api/nowhere"])
def test_every_answer_says_what_a_browser_may_do_with_it(running: Running, path: str) -> None:
    with requests.Session() as session:
        session.mount("http://", From())
        answer = session.get(f"http://{HOST}:{running.alice.port}{path}", headers={"Host": HOST}, timeout=5)
    for name, value in HEADERS.items():
        expected = "max-age=600" if (path, name) == ("/style.css", "Cache-Control") else value
        assert answer.headers[name] == expected
    assert "Set-Cookie" not in answer.headers


# --- pages


def test_the_page_of_multihop(running: Running) -> None:
    page = running.alice.page("/multihop")
    assert "New York" in page
    assert "Enable multihop" in page
    assert running.alice.press("/multihop", do="enable", exit="nyc")[0] == 303
    view = running.alice.status()
    assert (view["state"], view["exit"]) == ("active", "nyc")
    for page in map(running.alice.page, PAGES):
        assert view["exit4"] in page
        assert view["exit6"] in page
    assert "Disable multihop" in running.alice.page("/multihop")
    assert running.bob.status()["state"] == "default"
    assert "Disable multihop" not in running.bob.page("/multihop")
    assert running.alice.press("/multihop", do="disable")[0] == 303
    assert running.alice.press("/multihop", do="disable")[0] == 303, "twice does no harm"
    assert running.alice.status()["state"] == "default"


def test_the_list_says_where_servers_are_how_far_and_whether_they_answer(running: Running) -> None:
    with_region = replace(running.both.told["ams"].servers["nyc"], region="America")
    running.entry.exits["nyc"].server, before = with_region, running.entry.exits["nyc"].server
    try:
        page = running.alice.page("/multihop")
    finally:
        running.entry.exits["nyc"].server = before
    assert "<legend>America</legend>" in page
    assert re.search(r"value=nyc[^>]*>New York <i>\d+ ms</i>", page)
    assert re.search(r"value=fra disabled[^>]*>Frankfurt <i>no answer</i>", page)


def test_a_page_does_not_wait_for_an_exit_that_takes_its_time(running: Running) -> None:
    """It says that it is under way, refreshes itself, and shows the end of it."""
    exit_ = running.entry.exits["nyc"]
    started = exit_.start

    async def slowly(session: Any) -> Any:
        await asyncio.sleep(0.6)
        return await started(session)

    with mock.patch.object(exit_, "start", slowly):
        began = time.monotonic()
        assert running.alice.press("/multihop", do="enable", exit="nyc")[0] == 303
        page = running.alice.page("/multihop")
        assert time.monotonic() - began < 0.5
        assert 'data-state="held"' in page
        assert "Your traffic waits until this is done" in page
        assert '<noscript><meta http-equiv="refresh" content="3"></noscript>' in page
        while running.alice.status()["state"] == "held":
            assert time.monotonic() - began < 5
        assert running.alice.status()["state"] == "active"


def test_the_page_says_that_an_exit_does_not_answer(running: Running) -> None:
    assert running.alice.press("/multihop", do="enable", exit="fra")[0] == 303
    assert running.alice.status()["state"] == "blocked"
    for path in PAGES:
        assert re.search("does not answer", running.alice.page(path)), path
    assert 'http-equiv="refresh"' in running.alice.page("/multihop")


def test_the_page_of_exit_addresses(running: Running) -> None:
    page = running.alice.page("/changemyip")
    assert all(address in page for address in EXITS4 + EXITS6)
    assert running.alice.press("/changemyip", do="choose", exit4=EXITS4[2], exit6="")[0] == 303
    view = running.alice.status()
    assert (view["state"], view["exit4"]) == ("chosen", EXITS4[2])
    assert view["exit6"] in EXITS6
    status, said = running.alice.press("/multihop", do="enable", exit="nyc")
    assert status == 409
    assert "Go back to the default" in said
    assert running.alice.press("/changemyip", do="default")[0] == 303
    assert running.alice.press("/multihop", do="enable", exit="nyc")[0] == 303
    status, said = running.alice.press("/changemyip", do="choose", exit4=EXITS4[2], exit6="")
    assert status == 409
    assert "Disable it" in said
    assert running.alice.status()["exit"] == "nyc"


def test_the_page_of_forwards(running: Running) -> None:
    assert running.alice.press("/fwd", do="add", port="40000")[0] == 303
    assert running.alice.press("/fwd", do="add", port="")[0] == 303
    (one, other) = sorted(view["port"] for view in running.alice.api("GET", "/api/forwards")[1])
    assert 40000 in (one, other)
    assert 30000 <= one < other <= 65535
    page = running.alice.page("/fwd")
    assert f"198.51.100.1:{one}" in page
    assert f"[2001:db8::1]:{other}" in page
    assert "40000" not in running.bob.page("/fwd")
    status, said = running.bob.press("/fwd", do="add", port="40000")
    assert status == 409
    assert "40000 is taken" in said
    status, said = running.bob.press("/fwd", do="remove", port="40000")
    assert status == 409
    assert running.alice.press("/fwd", do="remove", port="40000")[0] == 303
    assert [view["port"] for view in running.alice.api("GET", "/api/forwards")[1]] == [({one, other} - {40000}).pop()]


@pytest.mark.parametrize(
    ("path", "fields", "status", "message"),
    [
        ("/multihop", {"do": "enable", "exit": "lon"}, 409, "Choose one from the list"),
        ("/multihop", {"do": "enable", "exit": "ams"}, 409, "Choose one from the list"),
        ("/multihop", {"do": "enable"}, 400, "Choose a server first"),
        ("/multihop", {"do": "fly"}, 400, "Press one of the buttons"),
        ("/multihop", {}, 400, "Press one of the buttons"),
        ("/changemyip", {"do": "choose", "exit4": "198.51.100.1"}, 409, "Choose one from the list"),
        ("/fwd", {"do": "add", "port": "80"}, 409, "Choose one from 30000 to 65535"),
        ("/fwd", {"do": "add", "port": "51820"}, 409, "51820 is taken"),
        ("/fwd", {"do": "add", "port": "forty"}, 400, "Write the port as a number"),
        ("/fwd", {"do": "add", "port": "٤٠٠٠٠"}, 400, "Write the port as a number"),
        ("/fwd", {"do": "remove", "port": "40000"}, 409, "nothing to remove"),
    ],
)
def test_a_page_says_what_to_do_instead(
    running: Running, path: str, fields: dict[str, str], status: int, message: str
) -> None:
    before = running.alice.status()
    said = running.alice.press(path, **fields)
    assert said[0] == status
    assert message in said[1]
    assert 'role="alert"' in said[1]
    assert running.alice.status() == before


def test_names_are_shown_as_text(running: Running) -> None:
    """Those of servers too, which operators write."""
    told = replace(running.both.told["ams"], label="A <i>&</i> B")
    view = {"exit": "x", "label": "<script>", "region": "<em>", "reachable": True, "round_trip_ms": None}
    way = {"state": "default", "exit": "ams", "exit_label": "<u>", "ipv6": True, "exit4": None, "exit6": None}
    page = Pages(told).show("/multihop", way, "t", None, exits=[view], current=None)
    assert not re.search(r"<(i>&|script>|em>|u>)", page.replace("<script src", ""))
    assert "A &lt;i&gt;&amp;&lt;/i&gt; B" in page


def test_what_a_client_writes_comes_back_as_text(running: Running) -> None:
    for path, field in (("/fwd", "port"), ("/multihop", "exit")):
        said = running.alice.press(
            path, do="add" if path == "/fwd" else "enable", **{field: "<script>alert(1)</script>"}
        )
        assert "<script>alert" not in said[1]


def test_there_is_no_other_page(running: Running) -> None:
    status, said = running.alice.get("/nowhere")
    assert status == 404
    assert b"no such page" in said
    assert running.alice.send("POST", "/", b"", Host=HOST)[0] == 405
    assert running.alice.get("/pages/base.html")[0] == 404
    assert running.alice.get("/../portal.py")[0] == 404


def test_a_failure_is_told_in_words_and_not_in_detail(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    kernel: Any = running.both.ams.kernel
    kernel.fail = [OSError(f"refused, for {ALICE}")]
    try:
        status, said = running.alice.press("/multihop", do="enable", exit="nyc")
    finally:
        kernel.fail = []
    assert status == 500
    assert "Something is broken" in said
    assert "OSError" in caplog.text
    assert ALICE not in caplog.text + said


# --- limits


@pytest.mark.parametrize("size", [LARGEST_BODY + 1, 200_000])
def test_a_large_body_is_not_taken(running: Running, size: int) -> None:
    body = b"x" * size
    head = f"POST /multihop HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: {FORM}\r\nContent-Length: {size}\r\n\r\n"
    assert running.alice.raw(head.encode() + body) in (0, 413)
    assert running.alice.get("/")[0] == 200


def test_nothing_is_unpacked(running: Running) -> None:
    """A few kilobytes that would be megabytes."""
    packed = zlib.compress(bytes(30_000_000))
    for method in ("GET", "POST"):
        head = f"{method} /multihop HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: {FORM}\r\nContent-Encoding: deflate\r\n"
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        running.alice.raw(f"{head}Content-Length: {len(packed)}\r\n\r\n".encode() + packed)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 10_000


def test_what_the_parser_does_not_know_is_not_logged(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    with mock.patch("aiohttp.web_protocol.RequestHandler.data_received", side_effect=ValueError(ALICE)):
        assert running.alice.ends_after(b"GET http://[::1/x HTTP/1.1\r\n\r\n", 5)
    assert ALICE not in caplog.text


def test_large_headers_are_not_taken(running: Running) -> None:
    one = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"x" * 20_000 + b"\r\n\r\n"
    assert running.alice.raw(one) == 400
    many = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"".join(b"X%d: %s\r\n" % (n, b"x" * 1000) for n in range(60))
    assert running.alice.ends_after(many, 5)
    assert running.alice.get("/")[0] == 200


def test_a_request_has_so_many_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever aiohttp would take: Debian 12's has no limit for all headers together."""
    monkeypatch.setattr("warrend.visitors.PATIENCE_SECONDS", 5)

    async def go() -> None:
        loop = asyncio.get_running_loop()
        fed: list[bytes] = []
        inner = mock.Mock(data_received=fed.append, eof_received=lambda: None)
        limited: list[Limited] = []

        def make() -> Limited:
            limited.append(Limited(inner, PORTAL, Counter()))
            return limited[0]

        server = await loop.create_server(make, HOST, 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        for part in range(6):
            writer.write(b"x" * 6000)
            await asyncio.sleep(0.02)
            if part == 2:
                limited[0].arrived()  # what comes now is another request's
        assert len(b"".join(fed)) == 36_000
        writer.write(b"x" * 20_000)
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        assert len(b"".join(fed)) <= 18_000 + PORTAL.request
        writer.close()
        server.close()

    asyncio.run(go())


def test_whoever_sends_slowly_does_not_hold_the_portal(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in the headers nor in the body; meanwhile bob is served."""
    monkeypatch.setattr("warrend.visitors.PATIENCE_SECONDS", 0.3)
    monkeypatch.setattr("warrend.portal_guard.BODY_SECONDS", 0.3)
    assert running.alice.ends_after(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n", 5)
    head = f"POST /multihop HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: {FORM}\r\nContent-Length: 50\r\n\r\ntoken="
    assert running.alice.ends_after(head.encode(), 5)
    assert running.alice.ends_after(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nGET / HT", 5), "after an answer too"


@pytest.mark.parametrize(("limits", "bobs"), [({"connections": 3}, 200), ({"together": 3}, 0)])
def test_so_many_connections_are_taken(running: Running, limits: dict[str, int], bobs: int) -> None:
    """Of one client, and of all together."""
    sock = listening(HOST)
    few = replace(PORTAL, **limits)
    with served(running.both.thread, lambda: fresh(running), sock, limits=few):
        alice, bob = (Visitor(sock.getsockname()[1], source) for source in (ALICE, BOB))
        held = [socket.create_connection(sock.getsockname(), 5, (ALICE, 0)) for _number in range(3)]
        try:
            with pytest.raises((ConnectionError, TimeoutError)):
                alice.get("/")
            if bobs:
                assert bob.get("/")[0] == bobs
            else:
                with pytest.raises((ConnectionError, TimeoutError)):
                    bob.get("/")
        finally:
            for each in held:
                each.close()
        assert alice.get("/")[0] == 200, "once they are gone"


def test_what_all_may_take_leaves_descriptors_for_warrenctl() -> None:
    unit = (AGENT.parent / "templates/etc/systemd/system/warrend.service.j2").read_text()
    most = int(re.findall(r"^LimitNOFILE=(\d+)$", unit, re.MULTILINE)[0])
    assert PORTAL.together + BACKEND.together < most - 1000


def test_one_client_asks_so_often(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("REQUESTS_AT_ONCE", 8), ("CHANGES_AT_ONCE", 3), ("REQUESTS_A_SECOND", 1e-9)):
        monkeypatch.setattr(portal_guard, name, value)
    monkeypatch.setattr(portal_guard, "CHANGES_A_SECOND", 1e-9)
    sock = listening(HOST)
    with served(running.both.thread, lambda: fresh(running), sock):
        alice, bob = (Visitor(sock.getsockname()[1], source) for source in (ALICE, BOB))
        for _number in range(3):
            assert alice.api("DELETE", "/api/multihop")[0] == 200
        status, said = alice.api("DELETE", "/api/multihop")
        assert (status, said["reason"]) == (429, "too_often")
        assert re.match(r"Wait \d+ seconds, then try again\.", said["error"])
        for _number in range(4):
            assert alice.get("/")[0] == 200
        status, page = alice.get("/")
        assert status == 429
        assert b"Too many requests" in page
        assert bob.get("/")[0] == 200


# --- the API


def test_the_api_does_what_the_pages_do(running: Running) -> None:
    alice = running.alice
    status, exits = alice.api("GET", "/api/exits")
    assert status == 200
    assert {view["exit"]: view["reachable"] for view in exits} == {"nyc": True, "fra": False}
    status, view = alice.api("PUT", "/api/multihop", {"exit": "nyc"})
    assert (status, view["state"], view["entry"], view["exit_label"]) == (200, "active", "ams", "New York")
    assert alice.api("PUT", "/api/exit-addresses", {"exit4": EXITS4[0]})[0] == 409
    assert alice.api("DELETE", "/api/multihop")[1]["state"] == "default"
    status, view = alice.api("PUT", "/api/exit-addresses", {"exit6": EXITS6[2]})
    assert (status, view["state"], view["exit6"]) == (200, "chosen", EXITS6[2])
    status, said = alice.api("PUT", "/api/multihop", {"exit": "nyc"})
    assert (status, said["reason"]) == (409, "choice")
    assert alice.api("DELETE", "/api/exit-addresses")[1]["state"] == "default"
    status, said = alice.api("PUT", "/api/multihop", {"exit": "fra"})
    assert (status, said["reason"]) == (503, "away")
    assert alice.status()["state"] == "blocked"
    assert alice.api("GET", "/api/exit-addresses")[1] == {"exit4": list(EXITS4), "exit6": list(EXITS6)}


def test_forwards_by_the_api(running: Running) -> None:
    alice = running.alice
    status, view = alice.api("POST", "/api/forwards", {"port": 40001})
    assert (status, view["port"], view["entry4"], view["entry6"]) == (201, 40001, "198.51.100.1", "2001:db8::1")
    assert alice.api("POST", "/api/forwards", {"port": 40001}) == (201, view), "twice does no harm"
    status, other = alice.api("POST", "/api/forwards", {})
    assert status == 201
    assert alice.api("GET", "/api/forwards") == (200, sorted([view, other], key=lambda each: each["port"]))
    assert running.bob.api("DELETE", "/api/forwards/40001")[0] == 404
    assert alice.api("DELETE", "/api/forwards/40001")[0] == 204
    assert alice.api("DELETE", "/api/forwards/40001")[0] == 404
    assert alice.api("GET", "/api/forwards") == (200, [other])


def test_a_client_has_so_many_forwards(running: Running) -> None:
    for _number in range(100):
        assert running.alice.api("POST", "/api/forwards", {})[0] == 201
    status, said = running.alice.api("POST", "/api/forwards", {})
    assert (status, said["reason"]) == (409, "too_many")
    assert "100 ports are forwarded already" in running.alice.press("/fwd", do="add", port="")[1]
    assert running.bob.api("POST", "/api/forwards", {})[0] == 201


@pytest.mark.parametrize("body", [[], "nyc", {"exit": 3}, {"exit": None}, {"exit": "nyc", "x": 1}, {}])
def test_the_api_says_what_is_wrong(running: Running, body: object) -> None:
    status, said = running.alice.api("PUT", "/api/multihop", body)
    assert status == 400
    assert set(said) == {"error", "reason"}


def test_nothing_that_is_served_names_a_client(running: Running) -> None:
    running.alice.api("POST", "/api/forwards", {})
    for path in (*PAGES, "/api/status", "/api/exits", "/api/forwards"):
        assert "alice" not in str(running.alice.get(path)[1]).replace("realice", ""), path


class From(HTTPAdapter):
    """Calls from a client's address."""

    def init_poolmanager(self, *arguments: Any, **more: Any) -> None:
        super().init_poolmanager(*arguments, **more, source_address=(ALICE, 0))


def test_the_description_is_valid_openapi_and_served(running: Running) -> None:
    assert running.alice.api("GET", "/api/openapi.json") == (200, DOCUMENT)
    schema = schemathesis.openapi.from_dict(json.loads(json.dumps(DOCUMENT)))
    schema.validate()
    assert len([operation.ok().label for operation in schema.get_all_operations()]) == 11


def narrowed() -> dict[str, Any]:
    """The description, narrowed to what gets far."""
    document: dict[str, Any] = json.loads(json.dumps(DOCUMENT))

    def of(path: str, method: str) -> dict[str, Any]:
        content = document["paths"][path][method]["requestBody"]["content"]["application/json"]
        return dict(content["schema"]["properties"])

    of("/api/multihop", "put")["exit"]["enum"] = ["nyc", "lon", "ams"]
    for family, exits in (("4", EXITS4), ("6", EXITS6)):
        of("/api/exit-addresses", "put")[f"exit{family}"]["enum"] = [*exits, None]
    of("/api/forwards", "post")["port"] = {"type": "integer", "minimum": 39990, "maximum": 40010}
    document["paths"]["/api/forwards/{port}"]["delete"]["parameters"][0]["schema"].update(minimum=39990, maximum=40010)
    document["paths"]["/api/forwards"]["post"]["requestBody"]["content"]["application/json"]["schema"]["properties"][
        "port"
    ] = {"type": "integer", "minimum": 39990, "maximum": 40010}
    return document


CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
SHALLOW = schemathesis.openapi.from_dict(json.loads(json.dumps(DOCUMENT))).as_strategy()
DEEP = schemathesis.openapi.from_dict(narrowed()).as_strategy()


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    with requests.Session() as made:
        made.mount("http://", From())
        yield made


def call(running: Running, session: requests.Session, case: Any) -> None:
    url = f"http://{HOST}:{running.alice.port}"
    case.call_and_validate(base_url=url, session=session, headers={"Host": HOST}, checks=CHECKS)


FUZZ = settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))


@given(case=SHALLOW)
@FUZZ
def test_the_description_holds_whatever_it_allows(running: Running, session: requests.Session, case: Any) -> None:
    call(running, session, case)


@given(case=DEEP)
@FUZZ
def test_the_description_holds_for_what_clients_send(running: Running, session: requests.Session, case: Any) -> None:
    call(running, session, case)
