"""From the start of a session to its end, no packet of alice's leaves with an address of ams. The web is the judge."""

from __future__ import annotations

import random
import re
import shlex
import threading
import time

import pytest

KILL = "systemctl kill --signal=KILL warrend.service"
AWAY = "mv /usr/lib/warren/warrend /usr/lib/warren/away"
BACK = "mv /usr/lib/warren/away /usr/lib/warren/warrend; systemctl start warrend.service"


@pytest.mark.kernel
def test_a_start_and_a_switch_and_a_stop(fleet, judge):
    view = fleet.ctl("ams", "start", "alice", "nyc")
    time.sleep(1)
    fleet.ctl("ams", "start", "alice", "fra")
    time.sleep(1)
    called = fleet.now()
    fleet.ctl("ams", "stop", "alice")
    found = judge.nothing_from_ams(view["since"], called)
    assert set(found) & judge.of("nyc"), found
    assert set(found) & judge.of("fra"), found
    since = fleet.now()
    time.sleep(0.5)
    assert set(judge.sources(since)) <= judge.of("ams")


def test_what_follows_a_switch_does_not_leave_by_the_exit_before(fleet, judge):
    fleet.ctl("ams", "start", "alice", "nyc")
    time.sleep(0.5)
    fleet.ctl("ams", "start", "alice", "fra")
    since = fleet.now()
    time.sleep(1)
    assert set(judge.sources(since)) <= judge.of("fra")


def test_an_exit_that_is_off(fleet, judge):
    """Blocked while it is off, told so, and through again by itself."""
    view = fleet.ctl("ams", "start", "alice", "nyc")
    fleet.podman("stop", "--time", "5", "nyc")
    try:
        off = fleet.now()
        fleet.wait_for(lambda: fleet.ctl("ams", "show", "alice")["state"] == "blocked", "alice is told", 30)
        assert "BLOCKED: the exit does not answer" in fleet.sh("ams", "warrenctl show alice")
        assert "DOES NOT ANSWER" in fleet.sh("ams", "warrenctl exits")
        time.sleep(1)
        assert judge.sources(off + 1) == {}
    finally:
        fleet.podman("start", "nyc")
    fleet.wait_for(lambda: judge.flowing("nyc") and judge.flowing("nyc", 6), "alice is through again", 60)
    judge.nothing_from_ams(view["since"])


def test_programs_of_a_blocked_client_fail_at_once(fleet):
    """They are told that there is no way, so that they need not wait."""
    fleet.podman("stop", "--time", "5", "nyc")
    try:
        assert fleet.ctl("ams", "start", "carol", "nyc", status=3)["reason"] == "away"
        for version in (4, 6):
            said = fleet.try_sh("carol", f"ping -c 2 -W 2 {fleet.web(version)}").stdout
            assert "unreachable" in said.lower(), said
        fleet.ctl("ams", "stop", "carol")
    finally:
        fleet.podman("start", "nyc")


def test_a_start_towards_an_exit_that_is_off(fleet, judge):
    fleet.podman("stop", "--time", "5", "nyc")
    try:
        began = fleet.now()
        said = fleet.ctl("ams", "start", "alice", "nyc", status=3)
        assert "blocked until that is over, or until the session is stopped" in said["error"]
        view = fleet.ctl("ams", "show", "alice")
        assert view["state"] == "blocked"
        time.sleep(1)
        assert judge.nothing_from_ams(view["since"]) == {}
        fleet.ctl("ams", "stop", "alice")
        fleet.wait_for(lambda: judge.flowing("ams"), "alice leaves from ams again")
        assert fleet.ctl("ams", "start", "alice", "nyc", status=3)["reason"] == "away"
        since = fleet.ctl("ams", "show", "alice")["since"]
        assert since > began
    finally:
        fleet.podman("start", "nyc")
    fleet.wait_for(lambda: judge.flowing("nyc") and judge.flowing("nyc", 6), "alice is through", 60)
    judge.nothing_from_ams(since)


def test_the_mesh_is_cut(fleet, judge):
    """The servers' coordination is away, then the links too."""
    view = fleet.ctl("ams", "start", "alice", "nyc")
    cut = "table inet cut { chain output { type filter hook output priority 0; oifname wg0ctl drop; }; }"
    fleet.sh("ams", f"nft '{cut}'")
    try:
        fleet.wait_for(lambda: fleet.ctl("ams", "show", "alice")["state"] == "blocked", "alice is blocked", 30)
        fleet.wait_for(
            lambda: fleet.agrees("nyc")["leases"] == 0, "the exit has heard nothing, and dropped her session"
        )
    finally:
        fleet.sh("ams", "nft delete table inet cut")
    fleet.wait_for(lambda: judge.flowing("nyc") and judge.flowing("nyc", 6), "alice is through again", 60)
    judge.nothing_from_ams(view["since"])


@pytest.mark.parametrize(
    ("server", "damage"),
    [
        ("ams", "ip link delete wg0mh-r3"),
        ("ams", "ip link set wg0mh-r3 down"),
        ("ams", "ip link set wg0mh-r3 group 0"),
        (
            "ams",
            "ip route delete default dev wg0mh-r3 table 100003; ip -6 route delete default dev wg0mh-r3 table 100003",
        ),
        ("ams", "ip link delete wg0ctl"),
        ("nyc", "ip link delete wg0mh"),
        ("nyc", "ip route delete 10.128.0.0/9 dev wg0mh"),
    ],
)
def test_what_others_take_away_comes_back_by_itself(fleet, judge, server, damage):
    """Without a run: the agent has it put back, and she is through again."""
    view = fleet.ctl("ams", "start", "alice", "nyc")
    fleet.wait_for(lambda: judge.flowing("nyc") and judge.flowing("nyc", 6), "alice is through")
    fleet.sh(server, damage)
    fleet.wait_for(lambda: fleet.site("--check").changed == {}, "all is there again", 60)
    fleet.wait_for(lambda: judge.flowing("nyc") and judge.flowing("nyc", 6), "alice is through again", 60)
    judge.nothing_from_ams(view["since"])


@pytest.mark.parametrize("server", ["ams", "nyc"])
def test_the_agent_is_killed_and_stays_away(fleet, judge, server):
    """Traffic goes on by what is in the kernel; nothing else does."""
    view = fleet.ctl("ams", "start", "alice", "nyc")
    fleet.sh(server, f"{AWAY}; {KILL}")
    try:
        time.sleep(4)
        assert judge.flowing("nyc")
    finally:
        fleet.sh(server, BACK)
    time.sleep(2)
    assert judge.flowing("nyc")
    judge.nothing_from_ams(view["since"])


@pytest.mark.kernel
def test_the_entry_is_rebooted(fleet, judge):
    """Nothing passes while it is taken apart, and her session is in force before she can pass at all."""
    view = fleet.ctl("ams", "start", "alice", "nyc")
    fleet.podman("restart", "--time", "20", "ams")
    fleet.wait_for(lambda: judge.flowing("nyc") and judge.flowing("nyc", 6), "alice is through again", 60)
    judge.nothing_from_ams(view["since"])
    # WireGuard on her side notices after 15 s that nobody answers.
    fleet.wait_for(lambda: fleet.answers("carol", fleet.web(), 1), "carol is through again, too", 30)
    assert fleet.curl("carol")["ip"] in fleet.exits("ams")


def test_the_entry_is_rebooted_and_its_agent_does_not_start(fleet, judge):
    """Nobody passes, for nobody knows who has a session."""
    view = fleet.ctl("ams", "start", "alice", "nyc")
    fleet.sh("ams", AWAY)
    try:
        fleet.podman("restart", "--time", "20", "ams")
        rebooted = fleet.now()
        fleet.wait_for(lambda: fleet.answers("alice", "10.31.33.7", 1), "alice is connected", 60)
        time.sleep(2)
        assert judge.sources(rebooted) == {}
    finally:
        fleet.sh("ams", BACK)
    fleet.wait_for(lambda: judge.flowing("nyc") and judge.flowing("nyc", 6), "alice is through again", 60)
    judge.nothing_from_ams(view["since"])


@pytest.mark.parametrize("command", ["restart", "reload", "stop"])
def test_the_ruleset_is_loaded_anew(fleet, judge, command):
    """By the distribution's own service, which flushes all there is."""
    view = fleet.ctl("ams", "start", "alice", "nyc")
    fleet.sh("ams", "nft add table inet mine; systemctl start nftables")
    for attempt in range(5):
        fleet.sh("ams", f"nft add table inet mine; systemctl reset-failed nftables; systemctl {command} nftables")
        fleet.wait_for(lambda: judge.flowing("nyc"), f"alice is through again, {attempt}")
        fleet.sh("ams", "systemctl start nftables")
    assert "mine" not in fleet.sh("ams", "nft list tables"), "the service did not flush: the test shows nothing"
    fleet.wait_for(lambda: judge.flowing("nyc", 6), "alice is through again")
    judge.nothing_from_ams(view["since"])
    assert fleet.agrees("ams")["sessions"] == 1


# A table without elements, then all at once: what a load and the agent do, many times a second.
GATE = """
import sys
from nftables import Nftables
nft = Nftables()
def do(commands):
    status, said, error = nft.cmd(commands)
    if status: sys.exit(error)
    return said
shut, opened = [], []
for name in ("client_mark4", "client_mark6", "client_flow4", "client_flow6", "client_session4", "client_session6"):
    elements = do(f"list map inet warren_path {name}").partition("elements = ")[2].partition("}")[0]
    shut.append(f"flush map inet warren_path {name}")
    opened.append(f"add element inet warren_path {name} {elements} }}")
shut, opened = "; ".join(shut), "; ".join(opened)
for number in range(int(sys.argv[1])):
    do(shut)
    do(opened)
"""
OPENINGS = 4000
NEW_FLOWS = """
import socket, sys
name, family = "warren-new-flows", socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
while True:
    with socket.socket(family, socket.SOCK_DGRAM) as s: s.sendto(b"new", (sys.argv[1], 7011))
"""


def test_the_gate_opens_for_no_packet_that_was_on_its_way(fleet):
    """Between two hooks: looked up when the maps were still empty, and judged when the gate was open already."""
    fleet.without_sessions()
    fleet.ctl("ams", "start", "alice", "nyc")
    since = fleet.now()
    flood = fleet.background("alice", f"exec timeout 60 python3 -c {shlex.quote(NEW_FLOWS)} {fleet.web()}")
    try:
        fleet.sh("ams", f"{AWAY}; {KILL}; python3 -c {shlex.quote(GATE)} {OPENINGS}")
    finally:
        fleet.try_sh("alice", "pkill -f warren-new-flows")
        flood.communicate(timeout=10)
        fleet.sh("ams", BACK)
    fleet.wait_for(lambda: fleet.try_sh("ams", "warrenctl stop alice").returncode == 0, "the agent is at work")
    fleet.until_recorded()
    arrived = fleet.recorded("udp dst port 7011", since)
    assert len(arrived) > 1000, "too few packets arrived: the test shows nothing"
    exits = set(fleet.exits("nyc"))
    assert [line for line in arrived if line.split(" > ")[0].split()[-1].rpartition(".")[0] not in exits] == []


def test_our_own_tables_are_loaded_anew(fleet, judge):
    """As a run does when the fleet, or the collection, has changed; once with a chain that has to go."""
    view = fleet.ctl("ams", "start", "alice", "nyc")
    damages = (
        "nft delete table inet warren_path",
        "nft flush chain inet warren_path from_client; nft add chain inet warren_path mine",
        "nft add rule inet warren_path from_client counter",
    )
    for damage in damages:
        fleet.sh("ams", damage)
        fleet.wait_for(lambda: fleet.try_sh("ams", "warrenctl check").returncode == 0, "the agent is at work")
        fleet.site("--limit", "ams")
        fleet.wait_for(lambda: judge.flowing("nyc") and judge.flowing("nyc", 6), f"alice is through after {damage}")
    judge.nothing_from_ams(view["since"])
    fleet.settled("--limit", "ams")


@pytest.mark.usefixtures("judge")
def test_a_second_run_interrupts_nothing(fleet):
    """Not one ping of a session is lost, and nothing is changed."""
    fleet.ctl("ams", "start", "alice", "nyc")
    ping = fleet.background("alice", f"exec ping -i 0.01 -W 1 {fleet.web()}")
    try:
        fleet.settled()
    finally:
        fleet.sh("alice", "pkill -INT ping")
        said = ping.communicate(timeout=10)[0]
    # The last ones were on their way when it ended.
    answered = [int(number) for number in re.findall(r"icmp_seq=(\d+)", said)]
    assert max(answered) > 100
    assert sorted(set(range(1, max(answered))) - set(answered)) == []


@pytest.mark.parametrize("server", ["ams", "nyc"])
def test_the_agent_is_killed_at_any_moment_of_a_start_or_a_stop(fleet, judge, server):
    """Sixteen times on each side; warrenctl asks again until it has an answer, and what it says is so."""
    seed = random.randrange(1 << 32)  # noqa: S311 - no secret
    moments = random.Random(seed)  # noqa: S311
    for attempt in range(8):
        delay = moments.uniform(0, 0.25)
        killer = threading.Timer(delay, lambda: fleet.try_sh(server, KILL))
        killer.start()
        said = fleet.try_sh("ams", "warrenctl start alice nyc")
        killer.join()
        view = fleet.ctl("ams", "show", "alice")
        assert view["exit"] == "nyc", (seed, attempt, said)
        fleet.wait_for(lambda: judge.flowing("nyc") and judge.flowing("nyc", 6), f"through, {seed} {attempt}", 20)
        killer = threading.Timer(moments.uniform(0, 0.25), lambda: fleet.try_sh(server, KILL))
        killer.start()
        called = fleet.now()
        stopped = fleet.try_sh("ams", "warrenctl stop alice")
        killer.join()
        # Asked twice, the second time there is nothing left to stop.
        assert stopped.returncode == 0 or "alice has no session" in stopped.stderr, (seed, attempt, stopped)
        judge.nothing_from_ams(view["since"], called)
        fleet.wait_for(lambda: judge.flowing("ams"), f"back at ams, {seed} {attempt}", 20)
    quiet(fleet, seed)


def quiet(fleet, seed):
    """Once all leases are over, the two servers agree with each other, and their stores with their kernels."""
    time.sleep(10)
    for name in ("ams", "nyc"):
        assert fleet.agrees(name) == dict.fromkeys(fleet.agrees(name), 0), seed
    for name in ("ams", "nyc"):
        assert fleet.elements_of_sessions(name) == "", seed


# In the agent: a clock that can be set, and a look at who is idle every two seconds.
CLOCK = """
import pathlib, time
real, offset = time.time, pathlib.Path("/run/clock/offset")
time.time = lambda: real() + float(offset.read_text())
import warrend.entry
warrend.entry.LIVENESS_SECONDS = 2.0
"""
SET = "echo {} >/run/clock/next; mv /run/clock/next /run/clock/offset"
IDLE = 25
AFRESH = "wg showconf ams >/run/afresh; wg setconf ams /run/afresh; rm /run/afresh; ping -c 1 -W 5 10.31.33.7"


def shake_for(fleet, seconds):
    """alice is there, and shakes hands all the time, as others do every two minutes."""
    end = time.monotonic() + seconds * fleet.slowness
    while time.monotonic() < end:
        fleet.try_sh("alice", AFRESH)
        time.sleep(5)


def test_neither_the_clock_nor_a_link_made_anew_makes_a_client_idle(fleet, judge):
    """With a session that is older than the idle limit."""
    unit = "/run/systemd/system/warrend.service.d"
    fleet.sh("ams", "mkdir -p /run/clock; echo 0 >/run/clock/offset; cat >/run/clock/sitecustomize.py", text=CLOCK)
    fleet.sh(
        "ams",
        f"mkdir -p {unit}; echo '[Service]' >{unit}/clock.conf; "
        f"echo Environment=PYTHONPATH=/run/clock:/usr/lib/warren >>{unit}/clock.conf; "
        f'sed -i \'s/"idle_seconds": [0-9]*/"idle_seconds": {IDLE}/\' /etc/warren/agent.json; '
        "systemctl daemon-reload; systemctl restart warrend.service",
    )
    try:
        view = fleet.ctl("ams", "start", "alice", "nyc")
        shake_for(fleet, IDLE + 10)
        for damage in (SET.format(3600), SET.format(-7200), "pkill -KILL -f 'wireguard-go.*[w]g0access'"):
            fleet.sh("ams", damage)
            shake_for(fleet, 8)
            assert fleet.ctl("ams", "show", "alice")["exit"] == "nyc", damage
        fleet.wait_for(lambda: judge.flowing("nyc") and judge.flowing("nyc", 6), "alice is through", 60)
        judge.nothing_from_ams(view["since"])
        fleet.sh("alice", "systemctl stop wg-quick@ams")
        fleet.wait_for(lambda: fleet.ctl("ams", "list") == [], "who is gone is idle, or the test shows nothing", 60)
    finally:
        fleet.sh("ams", f"rm -rf {unit} /run/clock; systemctl daemon-reload")
        fleet.sh("alice", "systemctl start wg-quick@ams")
        fleet.site("--limit", "ams")
