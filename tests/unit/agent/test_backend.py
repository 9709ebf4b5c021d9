"""What the backend answers to whom, over HTTP. Everything that is not as described is refused and changes nothing."""

from __future__ import annotations

import gzip
import json
import logging
import socket
import urllib.parse
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import requests
import schemathesis
from fleets import config, other
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft4Validator
from requests.adapters import HTTPAdapter
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from servers import FORM, Caller, listening, loop_thread, served
from test_leases import Recorder
from warrend.backend import LARGEST_BODY, MAX_SESSIONS_PER_CALL, OPENAPI, OPS, Backend
from warrend.leases import Leases
from warrend.metrics import Metrics

# Control addresses of the test: all of them are this machine's.
AMS, FRA, STRANGER = "127.77.0.1", "127.77.0.3", "127.77.0.9"
PLAIN = config("nyc")
NYC = other(
    PLAIN,
    most_sessions=MAX_SESSIONS_PER_CALL,
    servers={
        "ams": replace(PLAIN.servers["ams"], control4=AMS, control6="::1"),
        "fra": replace(PLAIN.servers["fra"], control4=FRA),
    },
)
GOOD = {"a_slug": "ams", "session_ip": "10.128.128.5", "session_ip6": "fd57:6172:7265:8001::5"}
ELSEWHERE4, ELSEWHERE6 = "10.129.128.5", "fd57:6172:7265:8003::5"  # of fra
REFUSED_WITH = {"error", "reason"}


class Running:
    """A backend that listens, its leases, and those who call it."""

    def __init__(self, leases: Leases, kernel: Recorder, port: int, port6: int) -> None:
        self.leases, self.kernel, self.port = leases, kernel, port
        self.ams, self.fra, self.stranger = (Caller(port, source) for source in (AMS, FRA, STRANGER))
        self.ams6 = Caller(port6, "::1", "::1")

    @property
    def sessions(self) -> dict[str, str]:
        """Exit address by session address."""
        elements = self.leases.elements().items()
        return {address: str(value) for (name, address), value in elements if name.startswith("session_exit")}


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    kernel: Any = Recorder()
    leases = Leases(NYC, kernel)
    sockets = [listening("127.0.0.1"), listening("::1")]
    ports = [sock.getsockname()[1] for sock in sockets]
    with loop_thread() as thread, served(thread, lambda: Backend(NYC, leases, Metrics()).application(), *sockets):
        yield Running(leases, kernel, *ports)


@pytest.fixture
def nyc(server: Running) -> Running:
    """Without sessions."""
    for caller, entry in ((server.ams, NYC.servers["ams"]), (server.fra, NYC.servers["fra"])):
        theirs = [address for address in server.sessions if entry.speaks_for(address) and ":" not in address]
        if theirs:
            caller.post(*(("session_ip", address) for address in theirs), op="stop", a_slug=entry.slug)
    assert server.sessions == {}
    server.kernel.done.clear()
    return server


def many(numbers: Iterable[int], ipv6: bool = True) -> list[tuple[str, str]]:
    """The fields of sessions of ams."""
    fields = [("session_ip", f"10.128.{129 + n // 250}.{n % 250}") for n in numbers]
    return fields + [("session_ip6", f"fd57:6172:7265:8001::1:{n:x}") for n in numbers if ipv6]


# --- what it does


def test_the_documents_curl_starts_a_session(nyc: Running) -> None:
    """curl --data-urlencode op=start ... -H 'Expect:', with curl's own headers."""
    body = urllib.parse.urlencode({"op": "start", **GOOD}).encode()
    said = nyc.ams.send("POST", "/mh-backend", body, User_Agent="curl/7.88.1", Accept="*/*", Content_Type=FORM)
    assert said == (200, {"exits": nyc.sessions, "lease_seconds": 60})
    assert list(nyc.sessions) == [GOOD["session_ip"], GOOD["session_ip6"]]
    assert set(nyc.sessions.values()) <= {*NYC.exit4, *NYC.exit6}


def test_a_client_without_ipv6_has_an_empty_field(nyc: Running) -> None:
    status, said = nyc.ams.post(op="start", a_slug="ams", session_ip="10.128.128.5", session_ip6="")
    assert (status, list(said["exits"])) == (200, ["10.128.128.5"])


def test_addresses_are_understood_however_they_are_written(nyc: Running) -> None:
    nyc.ams.post(op="start", a_slug="ams", session_ip="10.128.128.5", session_ip6="FD57:6172:7265:8001:0:0:0:0005")
    assert list(nyc.sessions) == [GOOD["session_ip"], GOOD["session_ip6"]]
    assert nyc.ams.post(op="stop", **GOOD)[0] == 200
    assert nyc.sessions == {}


def test_over_ipv6_it_is_the_same_server(nyc: Running) -> None:
    assert nyc.ams6.post(op="start", **GOOD)[0] == 200
    assert nyc.ams6.post(op="start", **{**GOOD, "a_slug": "fra"})[0] == 403


def test_renew_makes_what_is_missing_and_stop_ends_it(nyc: Running) -> None:
    nyc.ams.post(op="start", **GOOD)
    more = many(range(1, 200))
    status, said = nyc.ams.post(*more, op="renew", **GOOD)
    assert (status, sorted(said["exits"])) == (200, sorted(address for _name, address in more))
    assert nyc.ams.post(*more, op="renew", **GOOD)[1]["exits"] == {}
    assert nyc.ams.post(*more, op="stop", **GOOD) == (200, {"exits": {}, "lease_seconds": 60})
    assert nyc.sessions == {}
    assert nyc.ams.post(op="stop", **GOOD)[0] == 200, "again does no harm"


def test_tell_renews_and_says_the_exit_addresses_of_all(nyc: Running) -> None:
    made = nyc.ams.post(op="start", **GOOD)[1]["exits"]
    more = many([6])
    status, said = nyc.ams.post(*more, op="tell", **GOOD)
    assert (status, said["exits"]) == (200, nyc.sessions)
    assert made.items() <= said["exits"].items()
    assert sorted(nyc.sessions) == sorted([GOOD["session_ip"], GOOD["session_ip6"], *(a for _name, a in more)])


@pytest.mark.parametrize("op", ["start", "renew", "tell"])
def test_each_ipv6_address_is_of_the_ipv4_one_in_its_place(nyc: Running, op: str) -> None:
    """However the fields are mixed: the one goes with the other, to its end."""
    four, six = many(range(1, 4))[:3], many(range(1, 4))[3:]
    mixed = [six[0], four[0], six[1], four[1], four[2], six[2]]
    assert nyc.ams.post(*mixed, op=op, a_slug="ams")[0] == 200
    for (_four, session4), (_six, session6) in zip(four, six, strict=True):
        assert nyc.leases.session4_of(session6) == session4
    assert nyc.ams.post(four[0], op="stop", a_slug="ams")[0] == 200
    assert six[0][1] not in nyc.sessions
    assert len(nyc.sessions) == 4


def test_an_empty_renewal_is_a_probe(nyc: Running) -> None:
    assert nyc.fra.post(op="renew", a_slug="fra") == (200, {"exits": {}, "lease_seconds": 60})
    assert nyc.kernel.done == []


def test_the_most_that_one_call_may_have(nyc: Running) -> None:
    """More than an entry ever sends."""
    form = many(range(MAX_SESSIONS_PER_CALL))
    assert nyc.ams.post(*form, op="renew", a_slug="ams")[0] == 200
    assert len(nyc.sessions) == 2 * MAX_SESSIONS_PER_CALL
    assert nyc.ams.post(*form, op="stop", a_slug="ams")[0] == 200


# --- more than it takes

TOO_MANY = {
    "error": f"ams has {MAX_SESSIONS_PER_CALL} sessions here, and no client of it is without one",
    "reason": "too_many",
}


@pytest.mark.parametrize("op", ["start", "renew", "tell"])
def test_more_sessions_than_an_entry_may_have_are_refused(nyc: Running, op: str) -> None:
    """The whole call is; those that are there stay, and those of others are not its concern."""
    assert nyc.ams.post(*many(range(MAX_SESSIONS_PER_CALL)), op="renew", a_slug="ams")[0] == 200
    before = nyc.sessions
    nyc.kernel.done.clear()
    assert nyc.ams.post(*many(range(MAX_SESSIONS_PER_CALL - 1, MAX_SESSIONS_PER_CALL + 2)), op=op, a_slug="ams") == (
        429,
        TOO_MANY,
    )
    assert nyc.sessions == before
    assert nyc.kernel.done == []
    assert nyc.fra.post(op=op, a_slug="fra", session_ip=ELSEWHERE4, session_ip6=ELSEWHERE6)[0] == 200
    assert nyc.ams.post(*many([0], ipv6=False), op="stop", a_slug="ams")[0] == 200
    assert nyc.ams.post(*many([MAX_SESSIONS_PER_CALL]), op=op, a_slug="ams")[0] == 200, "right after the end of one"
    assert nyc.ams.post(op="renew", a_slug="ams")[0] == 200, "a probe is none"


def test_sixty_thousand_addresses_are_not_sixty_thousand_sessions(nyc: Running) -> None:
    """What is made up costs no more than what there may be."""
    for call in range(60):
        fields = many(range(MAX_SESSIONS_PER_CALL), ipv6=False)
        fields += [("session_ip6", f"fd57:6172:7265:8001::{call:x}:{n:x}") for n in range(MAX_SESSIONS_PER_CALL)]
        assert nyc.ams.post(*fields, op="renew", a_slug="ams")[0] == 200
        assert nyc.leases.count()["ams"] == MAX_SESSIONS_PER_CALL
    assert len(nyc.sessions) == 2 * MAX_SESSIONS_PER_CALL
    for call in range(60):
        fields = [("session_ip6", f"fd57:6172:7265:8001::{call:x}:{n:x}") for n in range(MAX_SESSIONS_PER_CALL)]
        assert nyc.ams.post(*fields, op="renew", a_slug="ams")[1]["reason"] == "session_ip6"
    assert len(nyc.leases.elements()) == 4 * MAX_SESSIONS_PER_CALL


# --- what it refuses

Form = list[tuple[str, str]]
A_THOUSAND_AND_ONE = [("session_ip", f"10.128.{128 + n // 250}.{n % 250}") for n in range(MAX_SESSIONS_PER_CALL + 1)]


def form(op: str, *more: tuple[str, str], **changes: str) -> Form:
    """A good form, but for changes."""
    return [("op", op), *{**GOOD, **changes}.items(), *more]


NO_OP = (400, "op", "op is one of start, renew, tell, stop")
NOT_ONE = (400, "session_ip", "session_ip is missing")
NOT_FRA = (403, "a_slug", "a_slug has to be ams, for that is who asks")
FIELDS = (400, "field", "the fields are op, a_slug, session_ip, session_ip6")
NOT_4 = (400, "session_ip", "session_ip has to be an IPv4 address")
NOT_6 = (400, "session_ip6", "session_ip6 has to be an IPv6 address")
NOT_OURS = (403, "session_prefix", "ams may only speak for 10.128.128.0/17 and fd57:6172:7265:8001::/64")
NOT_EACH = (400, "session_ip6", "session_ip6 is given for each session_ip, or for none")
TWICE = (400, "session_ip", "a session address is given twice")
SAME6 = "FD57:6172:7265:8001:0:0:0:5"
WRONG_4 = ("10.128.128", "10.128.128.5/32", "::ffff:10.128.128.5", "fd57::1", "010.128.128.5", "x", "10.128.128.5 ")
WRONG_6 = ("10.128.128.5", "fd57::%eth0", "fd57::1/64", "[fd57::1]", "::1%1")
OTHERS_4, OTHERS_6 = (ELSEWHERE4, "8.8.8.8", "0.0.0.0"), (ELSEWHERE6, "::ffff:10.128.128.5", "::")
FORMS: list[tuple[Form, tuple[int, str, str]]] = [
    ([], NO_OP),
    ([("op", "")], NO_OP),
    (form("START"), NO_OP),
    (form("start", ("op", "stop")), (400, "op", "op is given more than once")),
    (form("start", ("a_slug", "ams")), (400, "a_slug", "a_slug is given more than once")),
    ([("op", "start"), ("session_ip", "10.128.128.5")], NOT_FRA),
    (form("start", a_slug="fra"), NOT_FRA),
    ([("op", "start"), ("a_slug", "ams")], NOT_ONE),
    ([("op", "stop"), ("a_slug", "ams"), ("session_ip6", GOOD["session_ip6"])], NOT_ONE),
    (form("start", ("exit", "1.2.3.4")), FIELDS),
    *((form(op, ("session_ip", "10.128.128.6")), NOT_EACH) for op in OPS),
    *((form(op, ("session_ip6", "fd57:6172:7265:8001::6")), NOT_EACH) for op in OPS),
    *((form(op, ("session_ip", GOOD["session_ip"]), session_ip6=""), TWICE) for op in OPS),
    *((form(op, ("session_ip", "10.128.128.6"), ("session_ip6", SAME6)), TWICE) for op in OPS),
    ([("op", "renew"), ("a_slug", "ams"), ("session_ip6", GOOD["session_ip6"])], NOT_EACH),
    *((form(op, session_ip=text), NOT_4) for op in OPS for text in WRONG_4),
    *((form(op, session_ip6=text), NOT_6) for op in OPS for text in WRONG_6),
    *((form(op, session_ip=text), NOT_OURS) for op in OPS for text in OTHERS_4),
    *((form(op, session_ip6=text), NOT_OURS) for op in OPS for text in OTHERS_6),
    ([("a_slug", "ams"), *A_THOUSAND_AND_ONE], (413, "sessions", "at most 1000 sessions in one call")),
    (A_THOUSAND_AND_ONE * 3, (400, "form", "this is no form, or has too many fields")),
]


@pytest.mark.parametrize(("wrong", "said"), FORMS)
def test_a_wrong_form_is_refused_and_changes_nothing(nyc: Running, wrong: Form, said: tuple[int, str, str]) -> None:
    nyc.ams.post(op="start", **GOOD)
    nyc.fra.post(op="start", a_slug="fra", session_ip=ELSEWHERE4, session_ip6=ELSEWHERE6)
    before = nyc.sessions
    nyc.kernel.done.clear()
    status, reason, message = said
    assert nyc.ams.post(*wrong) == (status, {"error": message, "reason": reason})
    assert nyc.sessions == before
    assert nyc.kernel.done == []


@pytest.mark.parametrize("op", OPS)
def test_only_the_servers_themselves_are_answered(nyc: Running, op: str) -> None:
    refused = (403, {"error": "only servers of the fleet are answered", "reason": "source"})
    assert nyc.stranger.post(op=op, **GOOD) == refused
    assert nyc.stranger.post(op=op, a_slug="ams") == refused
    assert nyc.fra.post(op=op, **GOOD)[1]["reason"] == "a_slug"
    assert nyc.fra.post(op=op, **{**GOOD, "a_slug": "fra"})[1]["reason"] == "session_prefix"
    assert nyc.sessions == {}


BODY = urllib.parse.urlencode({"op": "start", **GOOD}).encode()
BOMB = gzip.compress(BODY * 9000)


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status", "reason"),
    [
        ("POST", "/mh-backend", BODY, {}, 415, "content_type"),
        ("POST", "/mh-backend", b"{}", {"Content_Type": "application/json"}, 415, "content_type"),
        ("POST", "/mh-backend", BODY, {"Content_Type": "multipart/form-data; boundary=x"}, 415, "content_type"),
        ("POST", "/mh-backend", BODY + b"\xff", {"Content_Type": FORM}, 400, "form"),
        ("POST", "/mh-backend", b"op", {"Content_Type": FORM}, 400, "form"),
        ("POST", "/mh-backend", b"&&", {"Content_Type": FORM}, 400, "form"),
        ("POST", "/mh-backend", b"x=" + b"x" * LARGEST_BODY, {"Content_Type": FORM}, 413, "http"),
        ("POST", "/mh-backend", BODY, {"Content_Type": FORM, "Content_Encoding": "gzip"}, 415, "content_encoding"),
        ("POST", "/mh-backend", BOMB, {"Content_Type": FORM, "Content_Encoding": "gzip"}, 415, "content_encoding"),
        ("GET", "/mh-backend", None, {}, 405, "http"),
        ("PUT", "/mh-backend", BODY, {"Content_Type": FORM}, 405, "http"),
        ("POST", "/metrics", BODY, {"Content_Type": FORM}, 405, "http"),
        ("POST", "/", BODY, {"Content_Type": FORM}, 404, "http"),
        ("GET", "/sessions", None, {}, 404, "http"),
    ],
)
def test_what_is_no_form_is_refused(
    nyc: Running, method: str, path: str, body: bytes | None, headers: dict[str, str], status: int, reason: str
) -> None:
    answered, said = nyc.ams.send(method, path, body, **headers)
    assert (answered, said["reason"]) == (status, reason)
    assert said["error"]
    assert nyc.sessions == {}


def test_what_may_be_done_is_said_where_something_may_not(nyc: Running) -> None:
    response = requests.put(f"http://127.0.0.1:{nyc.port}/mh-backend", timeout=5)
    assert (response.status_code, response.headers["Allow"]) == (405, "POST")


def test_a_body_that_does_not_end_is_no_failure(nyc: Running, caplog: pytest.LogCaptureFixture) -> None:
    head = f"POST /mh-backend HTTP/1.1\r\nHost: nyc\r\nContent-Type: {FORM}\r\nContent-Length: 500\r\n\r\n".encode()
    with caplog.at_level(logging.INFO), socket.create_connection(("127.0.0.1", nyc.port), 5, (AMS, 0)) as sock:
        sock.sendall(head + BODY)
    assert nyc.ams.post(op="renew", a_slug="ams")[0] == 200
    assert nyc.sessions == {}
    assert caplog.messages == []


# --- anything at all

FIELD = st.sampled_from(("op", "a_slug", "session_ip", "session_ip6")) | st.text(max_size=3)
WORDS = (*OPS, "ams", "fra", "", *GOOD.values(), ELSEWHERE4, ELSEWHERE6, "10.128.128.6", "::")
VALUE = st.sampled_from(WORDS) | st.text(max_size=5)
FORM_BODY = st.lists(st.tuples(FIELD, VALUE), max_size=6).map(lambda pairs: urllib.parse.urlencode(pairs).encode())


@given(body=st.binary(max_size=40) | FORM_BODY, source=st.sampled_from((AMS, FRA, STRANGER)))
@settings(max_examples=300, deadline=None)
def test_any_body_is_answered_and_only_a_valid_one_changes_anything(server: Running, body: bytes, source: str) -> None:
    before = server.sessions
    status, said = Caller(server.port, source).send("POST", "/mh-backend", body, Content_Type=FORM)
    if status == 200:
        assert source != STRANGER
        entry = NYC.by_control_address[source]
        changed = {address for address, _exit in before.items() ^ server.sessions.items()}
        assert all(entry.speaks_for(address) for address in changed)
        given_fields = dict(urllib.parse.parse_qsl(body.decode(), keep_blank_values=True))
        assert given_fields["a_slug"] == entry.slug
        assert given_fields["op"] in OPS
    else:
        assert 400 <= status < 500
        assert set(said) == REFUSED_WITH
        assert server.sessions == before


HEADERS = (
    b"Content-Length: 5",
    b"Content-Length: 0",
    b"Content-Length: x",
    b"Transfer-Encoding: chunked",
    b"Expect: 100-continue",
    b"Content-Encoding: gzip",
    b"Content-Encoding: deflate",
    b"Content-Type: \xff; charset=\xff",
    b"Content-Type: application/x-www-form-urlencoded",
    b"Host: [",
    b"Upgrade: websocket",
    b"Connection: upgrade",
)
LINES = (b"POST /mh-backend HTTP/1.1", b"POST /mh-backend HTTP/1.0", b"GET //[ HTTP/1.1", b"OPTIONS * HTTP/1.1")


@given(
    line=st.sampled_from(LINES) | st.binary(max_size=20),
    headers=st.lists(st.sampled_from(HEADERS) | st.binary(max_size=12), max_size=4),
    body=st.binary(max_size=20) | st.just(BODY),
)
@settings(max_examples=100, deadline=None)
def test_any_bytes_are_no_failure(server: Running, line: bytes, headers: list[bytes], body: bytes) -> None:
    before = server.sessions
    data = b"\r\n".join([line, b"Host: nyc", *headers, b"Connection: close", b"", b""]) + body
    assert Caller(server.port, AMS).raw(data, patience=0.05) < 500
    assert {address for address, _exit in before.items() ^ server.sessions.items()} <= set(GOOD.values())


# --- the description


def test_the_description_is_valid_openapi_and_served(nyc: Running) -> None:
    status, said = nyc.stranger.send("GET", "/openapi.json")
    assert (status, said) == (200, json.loads(OPENAPI))
    schema = schemathesis.openapi.from_dict(said)
    schema.validate()
    assert [operation.ok().label for operation in schema.get_all_operations()] == [
        "POST /mh-backend",
        "GET /metrics",
        "GET /openapi.json",
    ]
    for name, part in described().items():
        Draft4Validator.check_schema({"title": name, **part})


def described() -> dict[str, dict[str, Any]]:
    """The schemas of the fields."""
    form = json.loads(OPENAPI)["paths"]["/mh-backend"]["post"]["requestBody"]["content"][FORM]["schema"]
    return dict(form["properties"])


def test_the_description_says_what_is_so() -> None:
    fields = described()
    assert set(fields) == {"op", "a_slug", "session_ip", "session_ip6"}
    assert fields["op"]["enum"] == list(OPS)
    assert {fields[name]["maxItems"] for name in ("session_ip", "session_ip6")} == {MAX_SESSIONS_PER_CALL}
    said = set(json.loads(OPENAPI)["paths"]["/mh-backend"]["post"]["responses"])
    assert said == {"200", "400", "403", "413", "415", "429"}


def deep() -> dict[str, Any]:
    """The description, narrowed to what a server of the fleet sends, so that most calls get far."""
    document = json.loads(OPENAPI)
    fields = document["paths"]["/mh-backend"]["post"]["requestBody"]["content"][FORM]["schema"]["properties"]
    fields["a_slug"]["enum"] = ["ams"]
    fields["session_ip"]["items"] = {"type": "string", "enum": [f"10.128.128.{n}" for n in range(1, 9)]}
    fields["session_ip6"]["items"] = {"type": "string", "enum": [f"fd57:6172:7265:8001::{n}" for n in range(1, 9)]}
    for name in ("session_ip", "session_ip6"):
        fields[name].update(maxItems=2, uniqueItems=True)
    return document  # type: ignore[no-any-return]


SHALLOW_CASES = schemathesis.openapi.from_dict(json.loads(OPENAPI))["/mh-backend"]["POST"]
DEEP_CASES = schemathesis.openapi.from_dict(deep())["/mh-backend"]["POST"]
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


class From(HTTPAdapter):
    """Calls from an address."""

    def init_poolmanager(self, *arguments: Any, **more: Any) -> None:
        super().init_poolmanager(*arguments, **more, source_address=(AMS, 0))


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    with requests.Session() as made:
        made.mount("http://", From())
        yield made


@given(case=SHALLOW_CASES.as_strategy())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_description_holds_whatever_it_allows(server: Running, session: requests.Session, case: Any) -> None:
    call(server, session, case, CHECKS)


@given(case=DEEP_CASES.as_strategy())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_description_holds_for_what_servers_send(server: Running, session: requests.Session, case: Any) -> None:
    call(server, session, case, CHECKS)


@given(case=SHALLOW_CASES.as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_the_description_does_not_allow_is_refused(server: Running, session: requests.Session, case: Any) -> None:
    assert 400 <= call(server, session, case, CHECKS) < 500


def call(server: Running, session: requests.Session, case: Any, checks: list[Any]) -> int:
    """Call the backend and compare its answer with the description."""
    before = server.sessions
    response = case.call(base_url=f"http://127.0.0.1:{server.port}", session=session)
    if response.status_code != 200:
        assert server.sessions == before
    case.validate_response(response, checks=checks)
    return int(response.status_code)


def test_metrics_are_there(nyc: Running) -> None:
    status, text = nyc.ams.send("GET", "/metrics")
    assert status == 200
    assert b"warren_session_starts_total" in text
