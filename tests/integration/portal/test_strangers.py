"""Who must not press the buttons: web pages elsewhere, other clients, the internet; and who must not hold them up."""

from __future__ import annotations

import json
import shlex
import time

import pytest

PORTAL = "10.31.33.7"
NEIGHBOUR = "10.31.34.9"
"""A private address beside alice: Chromium keeps most requests of the internet from the portal, but not these."""

EVIL = """<!doctype html><title>Win a prize</title><link rel=icon href="data:,">
<form id=form method=post action="http://10.31.33.7/multihop">
<input name=do value=enable><input name=exit value=nyc></form>
<iframe id=frame src="http://10.31.33.7/multihop"></iframe>
"""
FETCHES = """
async () => {
  const form = new URLSearchParams({do: "enable", exit: "nyc"});
  const tried = [
    fetch("http://10.31.33.7/multihop", {method: "POST", mode: "no-cors", body: form}),
    fetch("http://10.31.33.7/api/forwards", {method: "POST", mode: "no-cors", body: "{}"}),
    fetch("http://10.31.33.7/api/forwards",
          {method: "POST", body: "{}", headers: {"Content-Type": "application/json"}}),
    fetch("http://10.31.33.7/api/multihop", {method: "PUT", body: '{"exit": "nyc"}'}),
    fetch("http://10.31.33.7/api/status").then(answer => answer.text()),
    fetch("http://10.31.33.7/multihop").then(answer => answer.text()),
  ];
  const done = await Promise.allSettled(tried);
  return done.map(each => each.status == "fulfilled" ? each.value.type || "read " + each.value : "refused");
}
"""
SLOW = """
import socket, sys, time
held = []
for number in range(200):
    s = socket.create_connection((sys.argv[1], 80), 5)
    rest = b"X: " if number % 2 else b"Content-Length: 99\\r\\n\\r\\n"
    s.send(b"POST /multihop HTTP/1.1\\r\\nHost: 10.31.33.7\\r\\n" + rest)
    held.append(s)
print("holding", flush=True)
began = time.monotonic()
for s in held:
    s.settimeout(30)
    try: s.recv(9999)
    except ConnectionError: pass
    except TimeoutError: print("still there")
print("over after", time.monotonic() - began)
"""


@pytest.fixture(autouse=True)
def clean(fleet):
    """Every test starts and ends without sessions and forwards."""
    fleet.use_server("alice", "ams")
    fleet.without_sessions()
    yield
    fleet.without_sessions()


@pytest.fixture(params=["internet", "neighbour"])
def evil(request, fleet):
    """A web page that means ill, of the internet or of a device beside alice; its URL."""
    if request.param == "internet":
        name, address = "web", fleet.web()
    else:
        name, address = "alice", NEIGHBOUR
        fleet.sh(name, f"ip address add {NEIGHBOUR}/32 dev lo")
    fleet.sh(name, "mkdir -p /run/evil; cat >/run/evil/index.html", text=EVIL)
    server = fleet.background(name, f"cd /run/evil; exec python3 -m http.server 8081 --bind {address}")
    try:
        fleet.wait_for(lambda: fleet.connects("alice", address, 8081), "the page is there")
        yield f"http://{address}:8081/"
    finally:
        fleet.try_sh(name, "pkill -f 'http.server 8081'; rm -r /run/evil")
        server.communicate(timeout=10)
        if request.param == "neighbour":
            fleet.sh(name, f"ip address del {NEIGHBOUR}/32 dev lo")


def nothing_happened(fleet):
    """Assert that alice is as she was."""
    assert fleet.ctl("ams", "list") == []
    assert fleet.ctl("ams", "forwards") == []


def test_a_form_of_another_page_is_refused(fleet, opened, evil):
    """What a browser does not stop: a form that is sent to the portal, and shown."""
    with opened("alice", expected="refused to connect|violates|status of 403|Local Network") as page:
        page.goto(evil)
        with page.expect_navigation() as navigation:
            page.evaluate("document.getElementById('form').submit()")
        assert navigation.value.status == 403
        assert "Another web page tried to do this in your name" in page.inner_text("main")
    nothing_happened(fleet)


def test_no_script_of_another_page_does_or_reads_anything(fleet, opened, evil):
    with opened("alice", expected=".") as page:
        page.goto(evil)
        done = page.evaluate(FETCHES)
        assert set(done) <= {"refused", "opaque"}, done
        frame = page.frames[1]
        assert "multihop" not in frame.evaluate("document.body.innerText").lower(), "it is shown in a frame"
    nothing_happened(fleet)


def test_a_name_that_leads_to_the_portal_is_not_enough(fleet, opened):
    """DNS rebinding: the browser takes the portal for evil.test, so its scripts could read and press everything."""
    with opened("alice", expected="status of 421|MIME type") as page:
        page.goto("http://evil.test/multihop")
        assert "Wrong address" in page.inner_text("main")
        for method, path in (("GET", "/multihop"), ("GET", "/api/status"), ("POST", "/api/forwards")):
            script = f"fetch('{path}', {{method: '{method}'}}).then(a => a.text().then(text => [a.status, text]))"
            status, text = page.evaluate(script)
            assert status == 421
            assert "token" not in text
            assert fleet.exits("ams")[0] not in text
    nothing_happened(fleet)


def test_only_clients_reach_it(fleet):
    """Not the internet, even with a route; and no other address of the server answers clients."""
    url = f"http://{PORTAL}/api/status"
    assert json.loads(fleet.sh("alice", f"curl -sS -m 5 {url}"))["entry"] == "ams"
    fleet.sh("web", f"ip route replace {PORTAL} via {fleet.entry('ams')} dev eth0 onlink")
    try:
        with fleet.capture("ams", f"tcp dst port 80 and dst host {PORTAL}") as captured:
            assert fleet.try_sh("web", f"curl -sS -m 2 {url}").returncode != 0
        assert captured(), "the packets did get there"
    finally:
        fleet.sh("web", f"ip route del {PORTAL}")
    listening = fleet.sh("ams", "ss -Hltn sport = :80").split()
    local = {word for word in listening if word.endswith(":80")}
    control = {a["local"] for link in fleet.ip("ams", "address", "show", "dev", "wg0ctl") for a in link["addr_info"]}
    assert {a.removesuffix(":80").strip("[]") for a in local} == {PORTAL, "fd57:6172:7265:33::7", *control} - {
        a for a in control if a.startswith("fe80")
    }
    assert fleet.reached("alice", [fleet.entry("ams"), "10.96.0.1"], 80) == set()


def test_a_client_sees_and_changes_only_its_own(fleet):
    fleet.ctl("ams", "start", "alice", "nyc")
    fleet.ctl("ams", "forward", "alice", "40000")
    for path in ("/", "/multihop", "/changemyip", "/fwd", "/api/status", "/api/forwards"):
        text = fleet.sh("carol", f"curl -sS -m 5 http://{PORTAL}{path}")
        assert "40000" not in text
        assert fleet.tunnel_address("alice") not in text
    assert json.loads(fleet.sh("carol", f"curl -sS http://{PORTAL}/api/status"))["state"] == "default"
    status = "curl -sS -o /dev/null -w '%{{http_code}}' -X DELETE http://{}/api/{}"
    assert fleet.sh("carol", status.format(PORTAL, "forwards/40000")) == "404"
    assert fleet.sh("carol", status.format(PORTAL, "multihop")) == "200"
    assert fleet.ctl("ams", "show", "alice")["exit"] == "nyc"
    assert len(fleet.ctl("ams", "forwards")) == 1


def test_slow_clients_do_not_hold_the_portal(fleet):
    """Two hundred connections of alice that never get to their point; carol is served all the while."""
    address = fleet.tunnel_address("alice")
    slow = fleet.background("alice", f"exec python3 -u -c {shlex.quote(SLOW)} {PORTAL}")
    try:
        fleet.wait_for(lambda: "holding" in slow.stdout.readline(), "alice holds what she can")
        began = time.monotonic()
        while time.monotonic() - began < 5:
            # Less than a slow request is given; a busy machine takes its time.
            fleet.sh("carol", f"curl -sS --fail -m 5 -o /dev/null http://{PORTAL}/multihop")
            held = fleet.sh("ams", f"ss -Htn state established 'sport = :80 and dst {address}'").splitlines()
            assert len(held) <= 16
            time.sleep(0.2)  # as a browser does: asking without a pause, she is told that it is too often
        rest = slow.communicate(timeout=40)[0]
    except BaseException:
        fleet.try_sh("alice", "pkill -f 'number % 2'")
        slow.communicate(timeout=10)
        raise
    assert "still there" not in rest, rest
    fleet.sh("alice", f"curl -sS --fail -m 2 -o /dev/null http://{PORTAL}/multihop")


def test_whoever_asks_too_often_is_told(fleet):
    ask = f"for n in $(seq 200); do curl -sS -o /dev/null -w '%{{http_code}}\n' http://{PORTAL}/; done | sort | uniq -c"
    parallel = f"for n in 1 2 3 4; do ({ask}) & done; wait"
    assert " 429" in fleet.sh("alice", parallel)
    answer = fleet.sh("alice", f"curl -sS -i http://{PORTAL}/")
    if "429" in answer.splitlines()[0]:
        assert "retry-after:" in answer.lower()
        assert "Too many requests" in answer
    fleet.sh("carol", f"curl -sS --fail -o /dev/null http://{PORTAL}/")
    fleet.wait_for(lambda: fleet.try_sh("alice", f"curl -sS --fail http://{PORTAL}/").returncode == 0, "a while later")


def test_the_portal_needs_no_multihop_and_no_agent_elsewhere(fleet):
    """It is where a client whose exit is away turns multihop off."""
    fleet.ctl("ams", "start", "alice", "nyc")
    fleet.podman("stop", "--time=2", "nyc")
    try:
        fleet.wait_for(lambda: fleet.ctl("ams", "show", "alice")["state"] == "blocked", "the exit is away", 100)
        assert fleet.try_sh("alice", f"curl -sS -m 2 http://{fleet.web()}/ip").returncode != 0
        said = json.loads(fleet.sh("alice", f"curl -sS -m 5 -X DELETE http://{PORTAL}/api/multihop"))
        assert (said["state"], said["exit"]) == ("default", "ams")
        assert fleet.curl("alice")["ip"] == said["exit4"]
    finally:
        fleet.podman("start", "nyc")
