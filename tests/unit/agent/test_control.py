"""warrenctl and the agent's control API, over the real socket."""

from __future__ import annotations

import http.client
import json
import math
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from agents import Pair, PlainKernel, pair
from warrend import clients as clients_module
from warrend import ctl
from warrend.tables import TablesError

AWAY = "fra does not answer. The client's traffic is blocked until that is over, or until the session is stopped"
OURS = "203.0.113.11, 203.0.113.12, 203.0.113.13, 2001:db8:e::11, 2001:db8:e::12, 2001:db8:e::13"
EXIT4, EXIT6 = r"203\.0\.113\.2[123]", r"2001:db8:e::2[123]"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with pair(tmp_path_factory.mktemp("agents")) as both, both.control():
        yield both


class Said:
    """What a command says and how it ends."""

    def __init__(self, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]) -> None:
        try:
            self.status: object = ctl.main(words)
        except SystemExit as error:
            self.status = error.code
        said = capsys.readouterr()
        self.out, self.err = said.out, said.err

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Warrenctl:
    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *words: str) -> Said:
        return Said(self._capsys, words)


@pytest.fixture
def ctl_of(running: Pair, capsys: pytest.CaptureFixture[str]) -> Warrenctl:
    """The command, where nobody has a session."""
    command = Warrenctl(capsys)
    for name in ("c1", "c2", "c3"):
        assert command("disconnected", name).status == 0
    assert command("list", "--json").json == []
    assert running.nyc.leases.elements() == {}
    return command


def test_start_show_and_stop(ctl_of: Warrenctl) -> None:
    for words in (("start", "c1", "nyc"), ("start", "c1", "nyc"), ("show", "c1"), ("show", "10.100.0.1")):
        said = ctl_of(*words)
        assert (said.status, said.err) == (0, "")
        assert re.fullmatch(rf"c1 leaves from nyc: {EXIT4}, {EXIT6}\n", said.out)
    said = ctl_of("stop", "c1")
    assert (said.status, said.out, said.err) == (0, "c1 leaves from ams\n", "")
    assert ctl_of("show", "fd57:6172:7265:2::c1").out == "c1 leaves from ams\n"


def test_for_programs_there_is_json(ctl_of: Warrenctl) -> None:
    said = ctl_of("start", "c1", "host-nyc", "--json")
    assert said.status == 0
    view = said.json
    assert abs(view.pop("since") - time.time()) < 10
    assert re.fullmatch(EXIT4, view.pop("exit4"))
    assert re.fullmatch(EXIT6, view.pop("exit6"))
    plain = {"client": "c1", "address4": "10.100.0.1", "address6": "fd57:6172:7265:2::c1"}
    assert view == {**plain, "exit": "nyc", "state": "active"}
    assert [each["client"] for each in ctl_of("list", "--json").json] == ["c1"]
    stopped = ctl_of("stop", "c1", "--json").json
    nothing = {"exit4": None, "exit6": None, "since": None}
    assert stopped == {**plain, **nothing, "exit": "ams", "state": "default", "exit_told": True}


def test_list_is_a_table_of_those_who_do_not_leave_in_the_default_way(ctl_of: Warrenctl) -> None:
    assert ctl_of("list").out == "client  exit  state  IPv4  IPv6  since\n"
    ctl_of("start", "c1", "nyc")
    ctl_of("choose", "c2", "203.0.113.12")
    header, first, second = ctl_of("list").out.splitlines()
    assert header.split() == ["client", "exit", "state", "IPv4", "IPv6", "since"]
    assert re.fullmatch(rf"c1 +nyc +active +{EXIT4} +{EXIT6} +\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d", first)
    assert second.split() == ["c2", "ams", "chosen", "203.0.113.12", "-", "-"]


def test_exits_says_who_answers(ctl_of: Warrenctl) -> None:
    said = ctl_of("exits")
    assert said.status == 0
    header, nyc, fra = said.out.splitlines()
    assert header.split() == ["exit", "label", "region", "round", "trip"]
    assert re.fullmatch(r"nyc +New York +- +[\d.]+ ms +ok", nyc)
    assert re.fullmatch(r"fra +Frankfurt +- +- +DOES NOT ANSWER", fra)
    view = {each["exit"]: each for each in ctl_of("exits", "--json").json}
    assert view["nyc"]["reachable"] is view["nyc"]["backend"] is view["nyc"]["link"] is view["nyc"]["ipv6"] is True
    assert view["nyc"]["silent_since"] is None
    assert view["fra"]["reachable"] is view["fra"]["backend"] is False
    assert view["fra"]["silent_since"] <= time.time()


def test_a_link_that_is_down_is_shown(ctl_of: Warrenctl, running: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    ctl_of("start", "c1", "nyc")
    monkeypatch.setattr(running.ams.entry.exits["nyc"], "handshake_seen", -math.inf)

    async def same_as_before() -> None:
        """Who looks again sees the same."""

    monkeypatch.setattr(running.ams.entry.liveness, "refresh", same_as_before)
    assert re.search(r"nyc .* LINK DOWN$", ctl_of("exits").out, re.MULTILINE)
    assert ctl_of("show", "c1").out.endswith(" (the exit has not answered lately)\n")
    assert ctl_of("show", "c1", "--json").json["state"] == "silent"


def test_forward_and_forward_no_more(ctl_of: Warrenctl) -> None:
    assert ctl_of("forward", "c1", "40000").out == "198.51.100.1:40000, [2001:db8::1]:40000 goes to c1\n"
    view = ctl_of("forward", "c2", "--json").json
    assert (view["client"], view["entry4"]) == ("c2", "198.51.100.1")
    header, first, second = ctl_of("forwards").out.splitlines()
    assert header.split() == ["client", "port", "since"]
    assert re.fullmatch(r"c1 +40000 +\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", first)
    assert second.split()[:2] == ["c2", str(view["port"])]
    said = ctl_of("unforward", "c2", "40000")
    assert (said.status, said.err) == (
        1,
        "warrenctl: port 40000 is not forwarded to this device: there is nothing to remove\n",
    )
    assert ctl_of("forward", "c2", "40000").err == (
        "warrenctl: port 40000 is taken. Choose another one, or leave the choice to us.\n"
    )
    assert ctl_of("unforward", "c1", "40000").out == "port 40000 does not go to c1 any more\n"
    assert ctl_of("forward", "c1", "forty").status == 2
    assert len(ctl_of("forwards", "--json").json) == 1


def test_choose_and_back_to_the_default(ctl_of: Warrenctl) -> None:
    assert ctl_of("choose", "c1", "203.0.113.12", "2001:db8:e::13").out == (
        "c1 leaves from ams: 203.0.113.12, 2001:db8:e::13\n"
    )
    assert ctl_of("show", "c1", "--json").json["state"] == "chosen"
    assert ctl_of("choose", "c1", "default").out == "c1 leaves from ams\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("start", "nobody", "nyc"), "nobody is no client of ams"),
        (("show", "10.100.0.0/24 ?#%2F"), "10.100.0.0/24 ?#%2F is no client of ams"),
        (("show", "ünïcode"), "ünïcode is no client of ams"),
        (("stop", ".."), ".. is no client of ams"),
        (("start", "c1", "lon"), "lon is no exit. There are: fra, nyc"),
        (("start", "c1", "ams"), "ams is this server: a client leaves from it without a session"),
        (("stop", "c1"), "c1 has no session"),
        (("choose", "c1", "203.0.113.21"), f"this is no exit address of ams. There are: {OURS}"),
    ],
)
def test_what_cannot_be_is_refused_with_status_1(ctl_of: Warrenctl, words: tuple[str, ...], message: str) -> None:
    said = ctl_of(*words)
    assert (said.status, said.out, said.err) == (1, "", f"warrenctl: {message}\n")
    said = ctl_of(*words, "--json")
    assert (said.status, said.json["error"], said.err) == (1, message, "")
    assert said.json["reason"]


def test_a_session_and_a_choice_exclude_each_other(ctl_of: Warrenctl) -> None:
    ctl_of("choose", "c1", "203.0.113.12")
    assert ctl_of("start", "c1", "nyc", "--json").json["reason"] == "choice"
    ctl_of("start", "c2", "nyc")
    assert ctl_of("choose", "c2", "default", "--json").json["reason"] == "session"


@pytest.mark.parametrize(
    "words", [(), ("start", "c1"), ("nonsense",), ("choose", "c1"), ("start", "c1", "nyc", "--jsn")]
)
def test_wrong_usage_has_status_2(ctl_of: Warrenctl, words: tuple[str, ...]) -> None:
    said = ctl_of(*words)
    assert said.status == 2
    assert said.err.startswith("usage: warrenctl")


def test_help_says_what_the_statuses_mean(ctl_of: Warrenctl) -> None:
    said = ctl_of("--help")
    assert said.status == 0
    assert "3 the exit is away" in said.out


def test_an_exit_that_is_away_has_status_3(ctl_of: Warrenctl, running: Pair) -> None:
    said = ctl_of("start", "c1", "fra")
    assert (said.status, said.out, said.err) == (3, "", f"warrenctl: {AWAY}\n")
    said = ctl_of("start", "c1", "fra", "--json")
    assert (said.status, said.json) == (3, {"error": AWAY, "reason": "away"})
    said = ctl_of("show", "c1")
    assert (said.status, said.out) == (0, "c1 leaves from fra (BLOCKED: the exit does not answer)\n")
    assert running.ams.entry.sessions["10.100.0.1"].state.value == "blocked"
    said = ctl_of("stop", "c1")
    assert (said.status, said.out) == (
        0,
        "c1 leaves from ams. The exit was not reached; it ends the session by itself\n",
    )


def test_check_has_status_1_if_anything_is_wrong(ctl_of: Warrenctl, running: Pair) -> None:
    ctl_of("start", "c1", "nyc")
    good = "missing elements: 0\nsurplus elements: 0\nwrong flows: 0\nbroken clients file: 0\n"
    good += "sessions: 1\nchoices: 0\nforwards: 0\nleases: 0\n"
    said = ctl_of("check")
    assert (said.status, said.out) == (0, good)
    kernel: Any = running.ams.kernel
    kernel.live["client_mark4", "10.100.0.9"] = 1
    del kernel.live["client_mark4", "10.100.0.1"]
    said = ctl_of("check", "--json")
    assert (said.status, said.json["missing_elements"], said.json["surplus_elements"]) == (1, 1, 1)
    running.thread.run(running.ams.restore())
    assert ctl_of("check").status == 0


def test_reload_is_done_when_it_returns_and_says_if_it_cannot(
    ctl_of: Warrenctl, running: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, read = tmp_path / "clients.json", clients_module.load
    monkeypatch.setattr(clients_module, "load", lambda: read(path))
    plain = [vars(client) for client in running.ams.config.clients.values()]
    new = {"name": "c9", "public_key": "k", "address4": "10.100.0.9", "address6": "fd57:6172:7265:2::c9"}
    path.write_text(json.dumps({"most_sessions": 64, "clients": [*plain, new]}))
    said = ctl_of("reload")
    assert (said.status, said.out) == (0, "4 clients may connect\n")
    assert ctl_of("start", "c9", "nyc").status == 0
    path.write_text("{")
    said = ctl_of("reload")
    why = f"{path} is not as site.yml writes it: line 1 is no JSON. Run site.yml for this server again"
    assert (said.status, said.err) == (1, f"warrenctl: {why}; the clients of before stay\n")
    said = ctl_of("check")
    assert said.status == 1
    assert "\nbroken clients file: 1\n" in said.out
    assert said.out.endswith("The clients are those of before the last reload. See: journalctl -u warrend\n")
    path.write_text(json.dumps({"most_sessions": 64, "clients": plain}))
    assert ctl_of("reload", "--json").json == {"clients": 3}
    assert ctl_of("show", "c9").err == "warrenctl: c9 is no client of ams\n"
    assert ctl_of("check").status == 0


def test_a_failure_of_the_agent_is_told(ctl_of: Warrenctl, running: Pair, caplog: pytest.LogCaptureFixture) -> None:
    kernel: Any = running.ams.kernel
    kernel.fail = [TablesError("refused, for 10.100.0.1")]
    said = ctl_of("start", "c1", "nyc")
    kernel.fail = []
    assert (said.status, said.err) == (1, "warrenctl: the agent failed; its journal says where\n")
    assert "TablesError in " in caplog.text
    assert "10.100" not in caplog.text
    assert ctl_of("start", "c1", "nyc").status == 0


# --- without an agent


@pytest.fixture
def command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Warrenctl:
    """The command, where no agent is."""
    monkeypatch.setattr(ctl, "SOCKET", str(tmp_path / "socket"))
    monkeypatch.setattr(ctl, "PATIENCE_SECONDS", 0.3)
    return Warrenctl(capsys)


def test_no_agent_has_status_4(command: Warrenctl) -> None:
    began = time.monotonic()
    said = command("list")
    assert time.monotonic() - began >= 0.3, "it has waited"
    assert said.status == 4
    assert said.err == (
        "warrenctl: warrend does not answer ([Errno 2] No such file or directory). See: journalctl -u warrend\n"
    )
    said = command("list", "--json")
    assert (said.status, said.json["reason"], said.err) == (4, "no_agent", "")


def test_only_root_may(command: Warrenctl, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_connection: ctl.Connection) -> None:
        raise PermissionError

    monkeypatch.setattr(ctl.Connection, "connect", refused)
    assert command("list").status == "warrenctl: only root may do this"


FATES: dict[str, list[bytes]] = {
    "accepts nobody yet": [],
    "dies when asked": [b"", b""],
    "dies while it answers": [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[",
        b"HTTP/1.1 200 OK\r\n\r\nnot JSON",
    ],
}


@pytest.mark.parametrize("fate", FATES)
def test_it_asks_again_while_the_agent_is_away(command: Warrenctl, fate: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctl, "PATIENCE_SECONDS", 5)
    asked = []

    def agent() -> None:
        if fate == "accepts nobody yet":
            time.sleep(0.3)
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(ctl.SOCKET)
            listening.listen()
            for answer in (*FATES[fate], b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]"):
                connection, _address = listening.accept()
                with connection:
                    asked.append(connection.recv(10000).split(b"\r\n")[0])
                    connection.sendall(answer)

    thread = threading.Thread(target=agent)
    thread.start()
    said = command("list", "--json")
    thread.join()
    assert (said.status, said.json) == (0, [])
    assert set(asked) == {b"GET /sessions HTTP/1.1"}
    assert len(asked) == (1 if fate == "accepts nobody yet" else 3)


def test_a_start_outlives_a_restart_of_the_agent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As systemd does it: the agent dies, the next one reads its disk."""
    with pair(tmp_path) as both:
        with both.control():
            assert Said(capsys, ("start", "c1", "nyc")).status == 0
        before = both.ams.entry.sessions["10.100.0.1"].row
        both.thread.run(both.ams.close())
        both.ams = both.make("ams")
        assert both.ams.entry.sessions["10.100.0.1"].row == before
        with both.control():
            assert Said(capsys, ("show", "c1", "--json")).json["state"] in ("active", "silent")
            assert Said(capsys, ("start", "c1", "nyc")).status == 0
        kernel: Any = both.ams.kernel
        assert isinstance(kernel, PlainKernel)
        assert set(kernel.live) == set(both.ams.entry.elements())


# --- the API itself


@pytest.mark.usefixtures("running")
@pytest.mark.parametrize(
    ("method", "path", "body", "status", "message"),
    [
        ("POST", "/sessions", b"", 400, "send JSON"),
        ("POST", "/sessions", b"\xff", 400, "send JSON"),
        ("POST", "/sessions", b"[]", 400, "send a JSON object"),
        ("POST", "/sessions", b"{}", 400, "client has to be a text"),
        ("POST", "/sessions", b'{"client": "c1"}', 400, "exit has to be a text"),
        ("POST", "/sessions", b'{"client": "c1", "exit": 5}', 400, "exit has to be a text"),
        ("POST", "/sessions", b'{"client": null, "exit": "nyc"}', 400, "client has to be a text"),
        ("PUT", "/choices/c1", b'{"exit4": 5}', 400, "exit4 has to be a text"),
        ("PUT", "/choices/c1", b'{"exit6": []}', 400, "exit6 has to be a text"),
        ("PUT", "/sessions/c1", b"{}", 405, "Method Not Allowed"),
        ("GET", "/nothing", None, 404, "Not Found"),
    ],
)
def test_the_api_says_what_is_wrong(method: str, path: str, body: bytes | None, status: int, message: str) -> None:
    connection = ctl.Connection()
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        assert (response.status, json.loads(response.read())["error"]) == (status, message)
    except http.client.HTTPException as error:
        pytest.fail(repr(error))
    finally:
        connection.close()
