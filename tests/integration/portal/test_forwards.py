"""Where a forwarded port leads: connections from the web, over the entry's address, to a program on alice."""

from __future__ import annotations

import json
import shlex
from contextlib import contextmanager

import pytest

PORT = 40000

# Answers whoever connects or sends, on every address, with who that is; and says so on its output.
SERVER = """
import selectors, socket, sys
port = int(sys.argv[1])
selector = selectors.DefaultSelector()
for family in (socket.AF_INET, socket.AF_INET6):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        s = socket.socket(family, kind)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6: s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        s.bind(("", port))
        if kind == socket.SOCK_STREAM: s.listen()
        selector.register(s, selectors.EVENT_READ)
print("ready", flush=True)
while True:
    for key, event in selector.select():
        s = key.fileobj
        if s.type == socket.SOCK_DGRAM:
            data, peer = s.recvfrom(99)
            s.sendto(f"{data.decode()} from {peer[0]}".encode(), peer)
        elif s.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            connection, peer = s.accept()
            selector.register(connection, selectors.EVENT_READ, peer)
        else:
            data = s.recv(99)
            if data: s.sendall(f"{data.decode()} from {key.data[0]}".encode())
            else: selector.unregister(s); s.close()
"""
ASK = """
import socket, sys
kind, address, port, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
s = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET,
                  socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
s.settimeout(seconds)
try:
    s.connect((address, port))
    s.send(b"hello")
    print(s.recv(99).decode())
except OSError as error: print(type(error).__name__)
"""
# One TCP connection that says something every time it is told to, and what comes back.
KEEP = """
import socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)
s.settimeout(5)
for line in sys.stdin:
    s.send(line.strip().encode())
    try: print(s.recv(99).decode(), flush=True)
    except OSError as error: print(type(error).__name__, flush=True)
"""


@pytest.fixture(autouse=True)
def clean(fleet):
    """Every test starts and ends without sessions and forwards."""
    fleet.without_sessions()
    yield
    fleet.without_sessions()


@contextmanager
def serving(fleet, name, port=PORT):
    """The program on a host."""
    server = fleet.background(name, f"exec python3 -u -c {shlex.quote(SERVER)} {port}")
    try:
        assert server.stdout.readline() == "ready\n"
        yield
    finally:
        fleet.try_sh(name, "pkill -f selectors.DefaultSelector")
        server.communicate(timeout=10)


def ask(fleet, kind, address, name="web", port=PORT, seconds=5):
    """What a port of an address answers a host, or why it does not."""
    return fleet.python(name, ASK, kind, address, str(port), str(seconds)).strip()


@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_the_web_reaches_alice_and_she_sees_who_it_is(fleet, version, kind):
    fleet.ctl("ams", "forward", "alice", str(PORT))
    with serving(fleet, "alice"):
        assert ask(fleet, kind, fleet.entry("ams", version)) == f"hello from {fleet.web(version)}"


@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_multihop_does_not_touch_it(fleet, version, kind):
    """She leaves from nyc, and answers from ams's entry address whoever came in there."""
    fleet.ctl("ams", "forward", "alice", str(PORT))
    fleet.ctl("ams", "start", "alice", "nyc")
    with serving(fleet, "alice"):
        assert ask(fleet, kind, fleet.entry("ams", version)) == f"hello from {fleet.web(version)}"
        assert fleet.curl("alice", version)["ip"] in fleet.exits("nyc", version)


def test_a_connection_outlives_multihop_being_turned_on_and_off(fleet, version):
    fleet.ctl("ams", "forward", "alice", str(PORT))
    with serving(fleet, "alice"):
        command = f"exec python3 -u -c {shlex.quote(KEEP)} {fleet.entry('ams', version)} {PORT}"
        kept = fleet.background("web", command)
        try:
            for change in (None, ("start", "alice", "nyc"), ("start", "alice", "fra"), ("stop", "alice")):
                if change:
                    fleet.ctl("ams", *change)
                kept.stdin.write("still\n")
                kept.stdin.flush()
                assert kept.stdout.readline().strip() == f"still from {fleet.web(version)}", change
        finally:
            kept.communicate(timeout=10)


@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_nobody_gets_in_who_should_not(fleet, version, kind):
    address = fleet.entry("ams", version)
    with serving(fleet, "alice"):
        assert ask(fleet, kind, address, seconds=1) == "ConnectionRefusedError"
        fleet.ctl("ams", "forward", "alice", str(PORT))
        # Not by another port, another address, from another client, nor without the entry.
        assert "hello" not in ask(fleet, kind, address, port=PORT + 1, seconds=1)
        assert "hello" not in ask(fleet, kind, fleet.exits("ams", version)[0], seconds=1)
        assert "hello" not in ask(fleet, kind, address, name="carol", seconds=1)
        assert "hello" not in ask(fleet, kind, fleet.tunnel_address("alice", version), name="carol", seconds=1)
        assert "hello" in ask(fleet, kind, address)


@pytest.mark.parametrize("end", [("unforward", "alice", str(PORT)), ("disconnected", "alice")], ids=["remove", "gone"])
def test_an_end_ends_open_connections_too(fleet, version, end):
    """And whoever gets the port next does not get what was somebody else's."""
    fleet.ctl("ams", "forward", "alice", str(PORT))
    with serving(fleet, "alice"), serving(fleet, "carol"):
        command = f"exec python3 -u -c {shlex.quote(KEEP)} {fleet.entry('ams', version)} {PORT}"
        kept = fleet.background("web", command)
        try:
            kept.stdin.write("first\n")
            kept.stdin.flush()
            assert kept.stdout.readline().strip() == f"first from {fleet.web(version)}"
            fleet.ctl("ams", *end)
            assert "hello" not in ask(fleet, "tcp", fleet.entry("ams", version), seconds=1)
            fleet.ctl("ams", "forward", "carol", str(PORT))
            kept.stdin.write("second\n")
            kept.stdin.flush()
            assert "second" not in kept.stdout.readline()
            assert "hello" in ask(fleet, "tcp", fleet.entry("ams", version))
        finally:
            kept.communicate(timeout=10)
    assert fleet.agrees("ams")["forwards"] == 1


def test_a_program_of_the_server_keeps_its_port(fleet, version):
    """An operator's own service, started before or after, is not taken over."""
    fleet.ctl("ams", "forward", "alice", str(PORT))
    with serving(fleet, "alice"):
        assert ask(fleet, "tcp", fleet.entry("ams", version)).startswith("hello from")
        with serving(fleet, "ams"):
            fleet.sh("ams", f"conntrack -D -p tcp --dport {PORT} 2>/dev/null || true")
            with fleet.capture("alice", f"tcp port {PORT}") as captured:
                assert ask(fleet, "tcp", fleet.entry("ams", version)) == f"hello from {fleet.web(version)}"
                assert captured() == []


def test_they_are_there_after_a_restart_and_a_reload(fleet):
    fleet.ctl("ams", "forward", "alice", str(PORT))
    view = fleet.ctl("ams", "forward", "carol")
    before = fleet.ctl("ams", "forwards")
    fleet.sh("ams", "systemctl restart warrend")
    assert fleet.ctl("ams", "forwards") == before
    fleet.sh("ams", "systemctl restart nftables")
    fleet.wait_for(lambda: fleet.agrees("ams")["missing_elements"] == 0, "the elements are there")
    fleet.sh("ams", "nft flush map inet warren_path forward4")
    fleet.wait_for(lambda: f"{view['port']} :" in fleet.sh("ams", "nft list map inet warren_path forward4"), "mended")
    with serving(fleet, "alice"):
        assert ask(fleet, "tcp", fleet.entry("ams")).startswith("hello from")
    fleet.podman("restart", "ams")
    fleet.wait_for(lambda: fleet.try_sh("ams", "warrenctl forwards --json").returncode == 0, "the agent is back")
    assert fleet.ctl("ams", "forwards") == before
    for name in ("alice", "carol"):
        fleet.wait_for(lambda name=name: fleet.answers(name, "10.31.33.7", 1), f"{name} is connected")
    with serving(fleet, "alice"):
        assert ask(fleet, "udp", fleet.entry("ams")).startswith("hello from")


def test_site_yml_takes_nothing_away(fleet):
    fleet.ctl("ams", "forward", "alice", str(PORT))
    fleet.settled()
    assert [view["port"] for view in fleet.ctl("ams", "forwards")] == [PORT]


def test_by_a_script_in_the_tunnel(fleet):
    """As the README says."""
    said = fleet.sh(
        "alice",
        "curl -sS --fail-with-body -H 'Content-Type: application/json' -d '{}' http://10.31.33.7/api/forwards",
    )
    port = json.loads(said)["port"]
    with serving(fleet, "alice", port):
        assert ask(fleet, "tcp", fleet.entry("ams"), port=port).startswith("hello from")
    fleet.sh("alice", f"curl -sS --fail-with-body -X DELETE http://10.31.33.7/api/forwards/{port}")
    assert json.loads(fleet.sh("alice", "curl -sS http://10.31.33.7/api/forwards")) == []
