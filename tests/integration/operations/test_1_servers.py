"""Servers come and go, and change their keys."""

from __future__ import annotations

import pytest
import yaml

MESH = "change link wg0ctl"
# What a further server does on the others.
A_SERVER = {
    "write /etc/warren/agent.json",
    "write /etc/warren/nftables.d/warren_path.nft",
    "load nftables table warren_path",
    "write /etc/warren/nftables.d/warren_wireguard.nft",
    "load nftables table warren_wireguard",
    "set routing rules",
    "write /etc/warren/network.json",
    MESH,
    "change link wg0mh",
    "change link wg0access",
    "make link wg0mh-r5",
    "set kernel settings",
    "restart warrend.service",
}


@pytest.fixture(scope="module")
def added(fleet, operator):
    """A further server, added while traffic runs."""
    operator.add_lon()
    elsewhere = fleet.site("--limit", "ams", ok=False)
    with operator.nothing_is_lost("ams", "fra"):
        run = fleet.site("--diff", "-vvvv")
    return {"elsewhere": elsewhere, "run": run}


def test_a_run_elsewhere_says_that_a_new_server_has_no_key_yet(added):
    assert added["elsewhere"].code != 0
    (message,) = added["elsewhere"].failures.values()
    assert "lon" in message
    assert "warren_public_keys" in message


def test_adding_a_server_touches_only_its_peers(fleet, operator, added):
    """The ping every 5 ms and the download in the fixture lost nothing."""
    for server in ("ams", "fra", "nyc"):
        assert set(added["run"].actions(server)) == A_SERVER
    for server in fleet.servers:
        assert operator.peers(server) == set(fleet.servers) - {server}
        for other in operator.peers(server):
            fleet.wait_for(
                lambda other=other, server=server: fleet.answers(server, fleet.control(other, 6), 1),
                f"{server} reaches {other}",
            )
    fleet.settled()


def test_enrolment_says_no_secret(fleet, added):
    for path in ("keys/control_mesh.key", "keys/multihop.key", "keys/access.key", "secrets/access_exit_seed"):
        secret = fleet.sh("lon", f"cat /etc/warren/{path}").strip()
        assert secret not in added["run"].text
        assert secret not in "".join(file.read_text() for file in fleet.inventory.rglob("*.yml"))
    for key in fleet.wg("lon", "wg0ctl", "preshared-keys").values():
        assert key not in added["run"].text
    assert fleet.secret not in added["run"].text


@pytest.mark.usefixtures("added")
def test_removing_a_server_that_is_down_removes_its_peer_everywhere(fleet, operator):
    fleet.podman("stop", "--time", "5", "lon")
    key = fleet.public_key("lon")
    operator.drop_server("lon")
    with operator.nothing_is_lost("ams", "fra"):
        run = fleet.site()
    for server in fleet.servers:
        assert MESH in run.actions(server)
        assert key not in fleet.sh(server, "wg show wg0ctl peers; cat /etc/warren/network.json")
    fleet.settled()


def test_rotating_a_key_leaves_the_old_one_nowhere(fleet, operator):
    old = fleet.public_key("fra")
    private = fleet.sh("fra", "cat /etc/warren/keys/control_mesh.key").strip()
    fleet.playbook("rotate_keys", "-e", "rotate_keys_servers=fra")
    assert fleet.public_key("fra") != old
    for server in fleet.servers:
        found = fleet.sh(server, "wg show wg0ctl dump; cat /etc/warren/network.json /etc/warren/keys/*")
        assert old not in found
        assert private not in found
        assert operator.peers(server) == set(fleet.servers) - {server}
    for server in ("ams", "nyc"):
        fleet.wait_for(lambda server=server: fleet.answers(server, fleet.control("fra"), 1), f"{server} reaches fra")
    fleet.settled()


def test_a_rotation_that_was_interrupted_is_finished_by_site(fleet, operator):
    """The new key is on record, and no server has it: the first one of the rollout fails."""
    old = fleet.public_key("nyc")
    wrapper = '#!/bin/sh\\ncase $1 in addconf) echo broken on purpose >&2; exit 1;; esac\\nexec /usr/bin/wg "$@"\\n'
    fleet.sh("ams", f"printf '{wrapper}' >/usr/local/sbin/wg; chmod +x /usr/local/sbin/wg")
    try:
        assert fleet.playbook("rotate_keys", "-e", "rotate_keys_servers=nyc", ok=False).code != 0
    finally:
        fleet.sh("ams", "rm /usr/local/sbin/wg")
    assert fleet.public_key("nyc") != old
    assert old in fleet.sh("fra", "wg show wg0ctl peers"), "it was not interrupted: the test shows nothing"
    fleet.site()
    for server in ("ams", "fra"):
        assert operator.peers(server) == set(fleet.servers) - {server}
        fleet.wait_for(lambda server=server: fleet.answers(server, fleet.control("nyc"), 1), f"{server} reaches nyc")
    fleet.settled()


def test_taking_the_fleet_off_a_server_leaves_nothing_of_it(fleet, operator):
    """The last test: nyc leaves; whoever runs it again, as after a run that was cut short, is not told off."""
    key = fleet.public_key("nyc")
    for _run in range(2):
        fleet.playbook("remove", "-e", "remove_servers=nyc")
    left = fleet.sh(
        "nyc",
        "ip -br link; nft list tables; cd /etc/systemd/system; "
        "ls -d /etc/warren /usr/lib/warren warren* *.wants/warren* 2>&- || true",
    )
    assert "wg0" not in left
    assert "warren" not in left
    operator.drop_server("nyc")
    run = fleet.site()
    for server in fleet.servers:
        assert MESH in run.actions(server)
        assert key not in fleet.sh(server, "wg show wg0ctl peers")
    record = yaml.safe_load((fleet.inventory / "group_vars/all/warren_public_keys.yml").read_text())
    assert "nyc" not in record["warren_public_keys"]
    fleet.settled()
