"""What a server survives without a run: programs that die, other people's commands, a reboot; and what it refuses."""

from __future__ import annotations

import shlex

import pytest

KEY = "/etc/warren/keys/control_mesh.key"
NEW_FLOWS = """
import socket, sys, time
name = "warren-new-flows"
while True:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s: s.sendto(b"new", (sys.argv[1], 7003))
    time.sleep(0.001)
"""
INNER = "src net 10.0.0.0/8 or src net 100.64.0.0/16 or src net fc00::/7"


def whole(fleet, server="ams", other="fra"):
    """Whether a server's mesh and its clients work, on both families."""
    script = f"ping -c 1 -W 1 {fleet.control(other)} && ping -c 1 -W 1 {fleet.control(other, 6)}"
    return (
        fleet.try_sh(server, script).returncode == 0
        and fleet.answers("alice", fleet.web(6), 1)
        and fleet.answers("alice", fleet.web(4), 1)
    )


@pytest.fixture(autouse=True)
def ends_whole(fleet):
    """Every test here leaves servers that a run finds in order."""
    yield
    fleet.settled()


@pytest.mark.parametrize("command", ["restart", "reload", "stop"])
def test_nftables_service_leaves_our_tables_alone_and_leaks_nothing(fleet, command):
    """alice keeps sending, always as a new flow, while the service that flushes the whole ruleset does what it does."""
    # Without the elements: those are the agent's, a moment later.
    listing = "for table in warren_path warren_control_mesh; do nft -s -t list table inet $table; done"
    tables = fleet.sh("ams", listing)
    fleet.sh("ams", "nft add table inet mine; systemctl start nftables")
    since = fleet.now()
    flood = fleet.background("alice", f"exec python3 -c {shlex.quote(NEW_FLOWS)} {fleet.web()}")
    try:
        fleet.wait_for(lambda: fleet.recorded("udp dst port 7003", since), "the web sees alice's packets")
        for _attempt in range(5):
            script = "nft add table inet mine; systemctl reset-failed nftables; systemctl start nftables; systemctl {}"
            fleet.sh("ams", f"{script.format(command)} nftables")
            assert fleet.sh("ams", listing) == tables
    finally:
        fleet.try_sh("alice", "pkill -f warren-new-flows")
        flood.communicate(timeout=10)
    assert "mine" not in fleet.sh("ams", "nft list tables"), "the service did not flush: the test shows nothing"
    fleet.until_recorded()
    assert fleet.recorded(INNER, since) == []


def test_a_ruleset_that_is_flushed_comes_back_by_itself(fleet):
    """The agent notices, and has all tables put back."""
    listing = "for table in warren_path warren_control_mesh warren_wireguard; do nft -s list table inet $table; done"
    tables = fleet.sh("ams", listing)
    fleet.sh("ams", "nft flush ruleset")
    fleet.wait_for(lambda: fleet.try_sh("ams", listing).stdout == tables, "the tables are back, and clients may pass")
    fleet.wait_for(lambda: whole(fleet), "mesh and clients work again")


def test_userspace_wireguard_that_is_killed_comes_back_by_itself(fleet):
    pids = fleet.sh("ams", "pgrep wireguard-go").split()
    fleet.sh("ams", "pkill -KILL wireguard-go")
    fleet.wait_for(lambda: whole(fleet), "mesh and clients work again", 60)
    assert not set(fleet.sh("ams", "pgrep wireguard-go").split()) & set(pids)


def test_a_reboot_brings_everything_back_and_leaks_nothing(fleet):
    """alice and the web keep sending all the time, so a server that forwards before its rules stand would show."""
    since = fleet.now()
    pings = [fleet.background("alice", f"exec timeout 90 ping -i 0.05 -W 1 {fleet.web(version)}") for version in (4, 6)]
    boot = fleet.sh("ams", "cat /proc/1/stat").split()[21]
    try:
        fleet.podman("restart", "--time", "20", "ams")
        fleet.wait_for(lambda: whole(fleet), "mesh and clients work again", 60)
    finally:
        fleet.sh("alice", "pkill ping || true")
        for ping in pings:
            ping.communicate(timeout=10)
    assert fleet.sh("ams", "cat /proc/1/stat").split()[21] != boot, "it did not reboot"
    fleet.until_recorded()
    assert fleet.recorded(INNER, since) == []
    sources = {
        line.split(" > ")[0].split()[-1]
        for line in fleet.recorded("icmp[icmptype] == icmp-echo or ip6[40] == 128", since)
    }
    exits = {address for version in (4, 6) for address in fleet.exits("ams", version)}
    assert sources & exits, "no ping arrived at all: the test shows nothing"
    assert sources <= exits


def test_a_run_that_fails_half_way_is_finished_by_the_next(fleet):
    """`wg addconf` fails once, after the new link was made and before it has a peer."""
    wrapper = '#!/bin/sh\\ncase $1 in addconf) echo broken on purpose >&2; exit 1;; esac\\nexec /usr/bin/wg "$@"\\n'
    with fleet.unattended("ams"):
        fleet.sh("ams", f"ip link delete wg0ctl; printf '{wrapper}' >/usr/local/sbin/wg; chmod +x /usr/local/sbin/wg")
        try:
            run = fleet.site(ok=False)
        finally:
            fleet.sh("ams", "rm /usr/local/sbin/wg")
        assert run.code != 0
        assert "broken on purpose" in run.failures["ams"]
        assert fleet.site().actions("ams") == ["change link wg0ctl", "set kernel settings"]
    fleet.wait_for(lambda: whole(fleet), "mesh and clients work again")


@pytest.mark.parametrize("link", ["wg0ctl", "wg0access"])
def test_an_interface_of_someone_else_is_refused_and_left_alone(fleet, link):
    with fleet.unattended("fra"):
        fleet.sh(
            "fra",
            f"ip link delete {link}; mv /etc/warren/network.json /root; "
            f"ip link add {link} type bridge; ip addr add 10.1.2.3/32 dev {link}",
        )
        try:
            run = fleet.site(ok=False)
            assert run.code != 0
            assert f"this host has an interface {link} that the collection did not make" in run.failures["fra"]
            assert "10.1.2.3" in fleet.sh("fra", f"ip addr show {link}")
        finally:
            fleet.sh("fra", f"ip link delete {link}; mv /root/network.json /etc/warren")
            assert f"make link {link}" in fleet.site().actions("fra")


@pytest.mark.parametrize("damage", [f"rm {KEY}", f"wg genkey >{KEY}"], ids=["removed", "another one"])
def test_a_private_key_that_is_not_the_one_on_record_is_a_clear_error(fleet, damage):
    fleet.sh("fra", f"cp -p {KEY} /root/kept; {damage}")
    handshake = fleet.wg("fra", "wg0ctl", "peers")
    try:
        run = fleet.site(ok=False)
        assert run.code != 0
        assert f"is not that of {KEY}" in run.failures["fra"]
        assert "take it out of warren_public_keys" in run.failures["fra"]
        assert fleet.wg("fra", "wg0ctl", "peers") == handshake
    finally:
        fleet.sh("fra", f"cp -p /root/kept {KEY}")
