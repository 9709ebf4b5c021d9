"""A server of the fleet is in somebody else's hands: its words, and what it asks for. The others do not suffer."""

from __future__ import annotations

import json
import shlex
import time
from contextlib import contextmanager
from pathlib import Path

import hostile
import pytest
from hostile import ANSWERS

# What listens on nyc's mesh address instead of its agent, and answers every call in one way.
PROGRAM = Path(hostile.__file__)

HALVES = """
import resource, socket, sys, time
resource.setrlimit(resource.RLIMIT_NOFILE, (20000, 20000))
held = []
for number in range(int(sys.argv[2])):
    s = socket.socket()
    s.setblocking(False)
    try: s.connect((sys.argv[1], 80))
    except BlockingIOError: pass
    held.append(s)
    if number % 200 == 0: time.sleep(0.01)
time.sleep(0.5)
for s in held:
    try: s.send(b"POST /mh-backend HTTP/1.1\\r\\n")
    except OSError: pass
print("holding", flush=True)
sys.stdin.readline()
"""
MANY = """
import http.client, sys
for call in range(60):
    numbers = range(call * 1000, call * 1000 + 1000)
    fields = [f"session_ip=10.128.{128 + n // 250 % 127}.{n % 250}" for n in numbers]
    fields += [f"session_ip6=fd57:6172:7265:8001::{call:x}:{n:x}" for n in range(1000)]
    c = http.client.HTTPConnection(sys.argv[1], timeout=20)
    c.request("POST", "/mh-backend", "&".join(["op=start", "a_slug=ams", *fields]),
              {"Content-Type": "application/x-www-form-urlencoded"})
    r = c.getresponse()
    print(r.status, r.read()[:80].decode())
"""
SILENT = "127.1.1.1"


def agent(fleet, server):
    """The agent's process id, how often it was started again, and its resident memory in MB."""
    text = fleet.sh(server, "systemctl show warrend --property MainPID,NRestarts --value").split()
    size = fleet.sh(server, f"sed -n 's/VmRSS: *//p' /proc/{text[0]}/status").split()[0]
    return text[0], text[1], int(size) / 1024


@contextmanager
def taken_over(fleet, how):
    """nyc's agent is another program."""
    fleet.sh("nyc", "systemctl stop warrend.service warrend-backend.socket")
    command = f"exec python3 -u -c {shlex.quote(PROGRAM.read_text())} {fleet.control('nyc')} {shlex.quote(how)}"
    process = fleet.background("nyc", command)
    try:
        assert process.stdout.readline() == "ready\n", process.communicate(timeout=10)
        yield
    finally:
        fleet.try_sh("nyc", "pkill -KILL -f warren-[h]ostile")
        process.communicate(timeout=10)
        fleet.sh("nyc", "systemctl start warrend-backend.socket warrend.service")


@pytest.fixture
def carol_by_fra(fleet):
    """carol has a session with an exit that nobody took over."""
    fleet.ctl("ams", "start", "carol", "fra")
    yield
    for version in (4, 6):
        assert fleet.curl("carol", version)["ip"] in fleet.exits("fra", version), "somebody else's session is another"


@pytest.mark.usefixtures("carol_by_fra")
@pytest.mark.parametrize("how", sorted(ANSWERS))
def test_what_an_exit_says_ends_nothing_but_itself(fleet, wire, how):
    """The agent lives, is as large as before, and has said nothing to anybody the exit named."""
    before, since = agent(fleet, "ams"), fleet.now()
    with taken_over(fleet, how):
        began = time.monotonic()
        said = fleet.ctl("ams", "start", "alice", "nyc", status=3)
        assert time.monotonic() - began < 8 * fleet.slowness, "one exit holds up who asks"
        assert said["reason"] == "away"
        assert "\x1b" not in json.dumps(said, ensure_ascii=False)
        shown = fleet.sh("ams", "warrenctl list; warrenctl exits")
        assert "BLOCKED" in fleet.sh("ams", "warrenctl show alice")
        assert "\x1b" not in shown
        assert len(shown) < 2000
        page = fleet.sh("alice", "curl -sS -m 5 http://10.31.33.7/multihop")
        assert "<script>" not in page.replace('<script src="', "").replace("<script defer", "")
        assert len(page) < 30000
        assert fleet.try_sh("ams", "warrenctl show carol").returncode == 0
    after = agent(fleet, "ams")
    assert after[:2] == before[:2], "the agent was started again"
    assert after[2] < before[2] + 15
    assert [m[0] for m in wire.packets("ams", since) if m["to_port"] == "80"] == [], (
        "a session went to the web in clear"
    )
    assert wire.wrong(since, session=False) == []
    assert fleet.agrees("fra")["leases"] == 1, "another server made a session of it"
    fleet.wait_for(lambda: fleet.ctl("ams", "show", "alice")["state"] == "active", "it is itself again", 60)


def test_half_requests_hold_nobody_up(fleet):
    """16,490 connections from one server to another's backend."""
    fleet.ctl("ams", "start", "alice", "nyc")
    before = agent(fleet, "nyc")
    lines = int(fleet.sh("nyc", "journalctl --no-pager | wc -l"))
    holder = fleet.background("fra", f"exec python3 -u -c {shlex.quote(HALVES)} {fleet.control('nyc')} 16490")
    try:
        fleet.wait_for(lambda: "holding" in holder.stdout.readline(), "fra holds what it can", 60)
        for _attempt in range(3):
            assert fleet.agrees("nyc")["leases"] == 1
            assert fleet.ctl("ams", "start", "carol", "nyc")["state"] == "active"
            fleet.ctl("ams", "stop", "carol")
        held = len(fleet.sh("nyc", "ss -Htn state established sport = :80").splitlines())
        assert held < 200
    finally:
        holder.communicate("\n", timeout=30)
    assert agent(fleet, "nyc")[:2] == before[:2]
    assert int(fleet.sh("nyc", "journalctl --no-pager | wc -l")) - lines < 200
    assert fleet.ctl("ams", "show", "alice")["state"] == "active"


def test_an_entry_has_no_more_sessions_than_it_may(fleet):
    """Sixty calls of a thousand each; alice's and others' go on."""
    fleet.ctl("ams", "start", "alice", "nyc")
    said = fleet.python("ams", MANY, fleet.control("nyc"))
    assert "and no client of it is without one" in said
    assert " 200 " not in f" {said}"
    most = json.loads(fleet.sh("nyc", "cat /etc/warren/clients.json"))["most_sessions"]
    assert fleet.agrees("nyc")["leases"] <= most < 100
    assert fleet.agrees("nyc")["missing_elements"] == 0
    assert fleet.curl("alice")["ip"] in fleet.exits("nyc")


@pytest.mark.parametrize("request_line", ["GET / HTTP/1.0", "GET /multihop HTTP/1.0", "POST /multihop HTTP/1.0"])
def test_a_request_without_a_host_asks_no_resolver(fleet, request_line):
    """On a server whose resolver is silent: nobody waits for it."""
    fleet.sh("ams", f"echo 'nameserver {SILENT}' >/run/silent; mount --bind /run/silent /etc/resolv.conf")
    ask = "import socket, sys; s = socket.create_connection(('10.31.33.7', 80), 5)"
    ask += "; s.sendall(sys.argv[1].encode() + b'\\r\\n\\r\\n'); s.recv(99)"
    asker = f"python3 -c {shlex.quote(ask)} {shlex.quote(request_line)}"
    try:
        with fleet.capture("ams", f"udp dst port 53 and dst host {SILENT}") as asked:
            askers = [fleet.background("alice", asker) for _number in range(12)]
            began = time.monotonic()
            fleet.sh("carol", "curl -sS -m 5 -o /dev/null http://10.31.33.7/")
            fleet.sh("ams", "warrenctl list")
            assert time.monotonic() - began < 3 * fleet.slowness
            for each in askers:
                each.communicate(timeout=30)
            assert asked() == []
            fleet.try_sh("ams", "timeout 2 getent hosts example.test")
            fleet.wait_for(asked, "this server does ask that resolver")
    finally:
        fleet.sh("ams", "umount /etc/resolv.conf")


def test_nothing_of_an_ended_session_is_on_disk(fleet):
    """Nor of a switch, a choice and a forwarded port, once they are over."""
    first = fleet.ctl("ams", "start", "alice", "nyc")
    sessions = fleet.sh(
        "ams", "nft list map inet warren_path client_session4; nft list map inet warren_path client_session6"
    )
    fleet.ctl("ams", "start", "alice", "fra")
    sessions += fleet.sh("ams", "nft list map inet warren_path client_session4")
    fleet.ctl("ams", "stop", "alice")
    fleet.ctl("ams", "choose", "alice", fleet.exits("ams")[0])
    fleet.ctl("ams", "forward", "alice", "40000")
    fleet.ctl("ams", "disconnected", "alice")
    words = {word for word in sessions.replace(",", " ").split() if word.startswith(("10.128.", "fd57:"))}
    words |= {first["address4"], first["address6"]}
    assert len(words) >= 4
    script = "grep -c -a -F -e " + " -e ".join(sorted(words)) + " /var/lib/warrend/sessions.db* || true"
    fleet.wait_for(lambda: {line.rpartition(":")[2] for line in fleet.sh("ams", script).split()} == {"0"}, "it is gone")
