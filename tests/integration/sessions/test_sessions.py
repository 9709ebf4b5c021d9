"""Two thousand sessions on each of four servers: all of them work, and all are gone when their clients are."""

from __future__ import annotations

import base64
import json
import os
import random
import shlex

import pytest

SESSIONS = 2000
SAMPLE = 100
PREFIX = {4: "10.96.0.0/11", 6: "fd57:6172:7265:2::/64"}

# Starts the sessions of a server's clients through its agent, eight at a time.
START = """
import json, sys, time
from concurrent.futures import ThreadPoolExecutor
sys.path.insert(0, "/usr/lib/warren")
from warrend.ctl import ask
jobs = json.load(sys.stdin)
def start(job):
    began = time.monotonic()
    status, said = ask("POST", "/sessions", {"client": job[0], "exit": job[1]})
    return job[0], status, said, time.monotonic() - began
with ThreadPoolExecutor(8) as pool: done = list(pool.map(start, jobs))
print(json.dumps(done))
"""


@pytest.fixture(scope="module")
def crowd(fleet):
    """The clients, in the inventory and on every server."""
    names = [f"c{number:04}" for number in range(SESSIONS)]
    clients = [{"name": name, "public_key": base64.b64encode(os.urandom(32)).decode()} for name in names]
    path = fleet.inventory / "group_vars/all/crowd.yml"
    path.write_text(json.dumps({"warren_clients": [{"name": "alice", "server": "ams"}, *clients]}))
    (fleet.inventory / "group_vars/all/fleet.yml").unlink(missing_ok=True)
    fleet.site()
    known = json.loads(fleet.sh("ams", "cat /etc/warren/clients.json"))["clients"]
    return {client["name"]: client for client in known if client["name"] in set(names)}


@pytest.fixture(scope="module")
def started(fleet, crowd):
    """A session for each client on each server, by one of the three other servers; what the agents said, by server."""
    found = {}
    for server in fleet.servers:
        exits = [other for other in fleet.servers if other != server]
        jobs = [(name, exits[number % 3]) for number, name in enumerate(crowd)]
        done = fleet.sh(server, f"python3 -c {shlex.quote(START)}", 300, json.dumps(jobs))
        found[server] = {name: (status, said, seconds) for name, status, said, seconds in json.loads(done)}
    return found


def test_every_one_is_started(fleet, started):
    for server, answers in started.items():
        wrong = [said for status, said, _seconds in answers.values() if status != 200 or said["state"] != "active"]
        assert wrong == [], server
        assert fleet.agrees(server)["sessions"] == SESSIONS
    leases = [fleet.agrees(server)["leases"] for server in fleet.servers]
    assert sum(leases) == SESSIONS * len(fleet.servers)


def test_every_one_works(fleet, crowd, started, version):
    """alice stands for all clients of a server at once; the web sees each as its session's exit address."""
    addresses = {client[f"address{version}"]: name for name, client in crowd.items()}
    for server, answers in started.items():
        fleet.use_server("alice", server)
        link = fleet.sh("alice", "wg show interfaces").strip()
        key = fleet.sh("alice", f"wg show {link} public-key").strip()
        # Taken from peers that nobody is: their handshakes never were.
        allowed = "\n".join(f"AllowedIPs = {address}/{32 if version == 4 else 128}" for address in addresses)
        own = fleet.wg(server, "wg0access", "allowed-ips")[key].replace(" ", ", ")
        peer = f"[Peer]\nPublicKey = {key}\nAllowedIPs = {own}\n{allowed}"
        fleet.sh(server, "wg addconf wg0access /dev/stdin", text=f"{peer}\n")
        # All of the clients' prefix is hers: userspace WireGuard dies of the news of 2,000 addresses.
        fleet.sh("alice", f"ip -{version} route replace local {PREFIX[version]} dev lo")
        seen = fleet.seen("alice", version, list(addresses))
        wrong = [
            (name, answer["ip"], answers[name][1][f"exit{version}"])
            for name, answer in zip(addresses.values(), seen, strict=True)
            if answer["ip"] != answers[name][1][f"exit{version}"]
        ]
        assert wrong == [], server


def test_a_restart_brings_all_of_them_back(fleet, crowd, started):
    sample = random.sample(sorted(crowd), SAMPLE)
    fleet.sh("ams", "systemctl restart warrend")
    assert fleet.agrees("ams")["sessions"] == SESSIONS
    told = {name: started["ams"][name][1]["exit4"] for name in sample}
    fleet.wait_for(
        lambda: {view["client"]: view["exit4"] for view in fleet.ctl("ams", "list") if view["client"] in told} == told,
        "the exits have said as whom they leave",
    )


def test_they_are_gone_when_their_clients_are(fleet, started):
    """No handshake for a minute, as is set now: nothing remains on either server."""
    assert started
    (fleet.inventory / "group_vars/all/idle.yml").write_text("agent_idle_minutes: 1\n")
    fleet.site()
    for server in fleet.servers:
        fleet.wait_for(lambda server=server: fleet.ctl(server, "list") == [], f"{server} has no session", 180)
    for server in fleet.servers:
        fleet.wait_for(lambda server=server: fleet.agrees(server)["leases"] == 0, f"{server} has no lease", 60)
        assert fleet.agrees(server) == dict.fromkeys(fleet.agrees(server), 0)
        assert fleet.elements_of_sessions(server) == ""
