"""Rollout: hosts that are down, runs for one host, changes that are bad; and clients that come and go."""

from __future__ import annotations

import json

# What a change of one client does on a server.
A_CLIENT = [
    "write /etc/warren/clients.json",
    "write /etc/warren/network.json",
    "change link wg0access",
    "reload warrend.service",
]


def test_adding_and_removing_a_client_touches_no_other(fleet, operator):
    fleet.curl("alice")
    key = fleet.sh("alice", "wg show ams public-key").strip()

    def alice():
        return [line for what in ("endpoints", "latest-handshakes", "allowed-ips", "preshared-keys")
                for line in fleet.sh("ams", f"wg show wg0access {what}").splitlines()
                if line.startswith(key)]  # fmt: skip

    before = alice()
    try:
        with operator.nothing_is_lost("ams", "fra"):
            operator.set_clients("alice", "bob", "carol", "dave")
            more = fleet.playbook("clients", "-e", "clients_only=dave")
            peers = {server: len(fleet.wg(server, "wg0access", "allowed-ips")) for server in fleet.servers}
            operator.set_clients("alice", "bob", "carol")
            fewer = fleet.site()
    finally:
        operator.set_clients("alice", "bob", "carol")
    for server in fleet.servers:
        assert more.actions(server) == fewer.actions(server) == A_CLIENT
        assert (peers[server], len(fleet.wg(server, "wg0access", "allowed-ips"))) == (4, 3)
    assert alice() == before or alice()[0] == before[0], "only her handshake may be newer"
    fleet.settled()


def test_a_run_for_one_host_gives_it_all_its_peers(fleet, operator):
    with fleet.unattended("fra"):
        fleet.sh("fra", "ip link delete wg0ctl")
        run = fleet.site("--limit", "fra")
    assert set(run.changed) == {"fra"}
    assert operator.peers("fra") == {"ams", "nyc"}
    assert fleet.site("--limit", "fra").changed == {}
    fleet.wait_for(lambda: fleet.answers("fra", fleet.control("nyc"), 1), "the mesh is whole")


def test_a_host_that_is_down_is_named_and_stays_a_peer_while_the_rest_goes_on(fleet, operator):
    fleet.podman("stop", "--time", "5", "nyc")
    try:
        operator.set_clients("alice", "bob", "carol", "dave")
        run = fleet.site(ok=False)
        assert run.code != 0
        assert "Not reached: nyc." in "".join(run.failures.values())
        for server in ("ams", "fra"):
            assert run.actions(server) == A_CLIENT
            assert "nyc" in operator.peers(server)
        status = fleet.playbook("status", ok=False).text
        assert "NOT REACHED" in next(line for line in status.splitlines() if line.startswith("nyc "))
    finally:
        operator.set_clients("alice", "bob", "carol")
        fleet.podman("start", "nyc")
    fleet.site()
    fleet.settled()
    fleet.wait_for(lambda: fleet.answers("ams", fleet.control("nyc"), 1), "the mesh is whole")


def test_the_first_server_down_does_not_stop_the_rest(fleet, operator):
    fleet.podman("stop", "--time", "5", "ams")
    try:
        with fleet.unattended("fra"):
            fleet.sh("fra", "ip link delete wg0ctl")
            run = fleet.site(ok=False)
        assert run.code != 0
        assert "Not reached: ams." in "".join(run.failures.values())
        assert "make link wg0ctl" in run.actions("fra")
        assert operator.peers("fra") == {"ams", "nyc"}
    finally:
        fleet.podman("start", "ams")
    fleet.settled()
    fleet.wait_for(lambda: fleet.answers("alice", fleet.web(), 1), "alice is back")


def test_a_bad_change_stops_at_the_first_server_and_does_no_harm_there(fleet):
    fleet.wait_for(lambda: fleet.answers("alice", fleet.web(), 1), "alice is connected", 60)
    before = {
        server: fleet.sh(server, "nft -s list ruleset; sha256sum /etc/warren/*.json /etc/warren/*/*")
        for server in fleet.servers
    }
    bad = json.dumps({"packet_path_refused_destinations4": ["no address"]})
    run = fleet.site("-e", bad, ok=False)
    assert run.code != 0
    assert "nftables table warren_path is not accepted" in run.failures["ams"]
    for server in ("fra", "nyc"):
        assert "warren.vpn.server : Place kernel settings, firewall and links" not in {
            r["task"] for r in run.of(server)
        }
    for server, text in before.items():
        assert fleet.sh(server, "nft -s list ruleset; sha256sum /etc/warren/*.json /etc/warren/*/*") == text, server
    assert fleet.curl("alice")["ip"] in fleet.exits("ams")


def test_a_first_server_that_loses_its_peers_stops_the_rollout(fleet):
    """The health gate: a valid change that cuts the first server off the mesh, for the others are not there yet."""
    run = fleet.site("-e", "warren_control_prefix=10.78.0.0/24", "-e", "server_health_seconds=3", ok=False)
    try:
        assert run.code != 0
        assert "fra" in run.failures["ams"]
        assert "nyc" in run.failures["ams"]
        for server in ("fra", "nyc"):
            assert run.actions(server) == []
    finally:
        fleet.site()
    fleet.settled()
    fleet.wait_for(lambda: fleet.answers("ams", fleet.control("fra"), 1), "the mesh is whole")
