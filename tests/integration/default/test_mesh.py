"""The control mesh: who is in it, by which addresses and keys, and that it carries nothing but coordination."""

from __future__ import annotations

import itertools
import json

import pytest

PING_ALL = "for a in {}; do ping -q -c 1 -W 5 $a >/dev/null && echo $a & done; wait"
LISTEN = "python3 -m http.server 8443 --bind {} --directory /run/nothing"


@pytest.mark.kernel
def test_every_pair_of_servers_pings_on_both_families(fleet):
    for server in fleet.servers:
        others = {fleet.control(other, family) for other in fleet.servers if other != server for family in (4, 6)}
        assert set(fleet.sh(server, PING_ALL.format(" ".join(others))).split()) == others, server


def test_names_addresses_and_ports_are_those_of_the_design(fleet):
    for server in fleet.servers:
        (link,) = fleet.ip(server, "address", "show", "dev", "wg0ctl")
        found = {f"{a['local']}/{a['prefixlen']}" for a in link["addr_info"] if a["scope"] == "global"}
        assert found == {f"{fleet.control(server)}/24", f"{fleet.control(server, 6)}/64"}
        assert link["mtu"] == 1420
        assert fleet.sh(server, "wg show wg0ctl listen-port").strip() == "20000"
        others = [other for other in fleet.servers if other != server]
        allowed = fleet.wg(server, "wg0ctl", "allowed-ips")
        assert {key: set(ips.split()) for key, ips in allowed.items()} == {
            fleet.public_key(other): {f"{fleet.control(other)}/32", f"{fleet.control(other, 6)}/128"}
            for other in others
        }
        endpoints = fleet.wg(server, "wg0ctl", "endpoints")
        assert endpoints == {fleet.public_key(other): f"{fleet.entry(other)}:20000" for other in others}


def test_each_pair_has_a_preshared_key_of_its_own_and_no_host_has_anothers(fleet):
    found = {server: fleet.wg(server, "wg0ctl", "preshared-keys") for server in fleet.servers}
    pairs = {}
    for one, other in itertools.combinations(fleet.servers, 2):
        pairs[one, other] = found[one][fleet.public_key(other)]
        assert pairs[one, other] == found[other][fleet.public_key(one)] != "(none)", (one, other)
    assert len(set(pairs.values())) == len(pairs)
    for server in fleet.servers:
        files = fleet.sh(server, "cat /etc/warren/network.json /etc/warren/*/*")
        assert fleet.secret not in files
        assert {pair for pair, key in pairs.items() if key in files} == {pair for pair in pairs if server in pair}


def test_private_keys_are_0600_and_stay_on_their_hosts(fleet):
    controller = "".join(path.read_text(errors="replace") for path in fleet.inventory.rglob("*") if path.is_file())
    for server in fleet.servers:
        listing = fleet.sh(
            server, "cd /etc/warren && stat -c '%a %U %n' keys secrets keys/* secrets/* network.json"
        ).splitlines()
        assert set(listing) == {
            "700 root keys", "700 root secrets", "600 root keys/control_mesh.key", "600 root keys/access.key",
            "600 root keys/multihop.key",
            "600 root secrets/access_exit_seed", "600 root network.json",
        }  # fmt: skip
        for secret in fleet.sh(server, "cat /etc/warren/keys/* /etc/warren/secrets/*").split():
            assert secret not in controller, server


def test_a_listener_cannot_be_reached_over_the_mesh(fleet, version):
    here, there = fleet.servers[:2]
    address = fleet.control(here, version)
    with fleet.listening(here, address):
        assert fleet.connects(here, address, 8443), "nobody listens: the test shows nothing"
        assert not fleet.connects(there, address, 8443)
        assert fleet.answers(there, address)


@pytest.mark.parametrize("name", ["web", "alice"])
def test_the_mesh_cannot_be_reached_from_outside(fleet, version, name):
    """From the web past the tunnels, with each server as next hop, and from a client through its tunnel."""
    via = {"web": fleet.entry("ams", version)}.get(name)
    prefix = "10.77.0.0/24" if version == 4 else "fd57:6172:7265:1::/64"
    if via:
        fleet.sh(name, f"ip route add {prefix} via {via} dev eth0")
    try:
        with fleet.listening("ams", fleet.control("ams", version)):
            assert fleet.reached(name, [fleet.control(server, version) for server in fleet.servers], 8443) == set()
    finally:
        if via:
            fleet.sh(name, f"ip route del {prefix}")


def test_a_forged_packet_from_outside_is_not_taken_for_one_from_the_mesh(fleet, version):
    """The web sends to ams's control address and to its entry address, as if it were fra. The latter takes it."""
    script = (
        "from scapy.all import *\n"
        "import sys\nmac, source, *targets = sys.argv[1:]\n"
        "for to in targets:\n"
        " ip = IPv6(src=source, dst=to) if ':' in to else IP(src=source, dst=to)\n"
        " sendp(Ether(dst=mac)/ip/UDP(sport=1234, dport=9999)/b'forged', iface='eth0', verbose=False)\n"
    )
    control, entry = fleet.control("ams", version), fleet.entry("ams", version)
    mac = fleet.sh("ams", "cat /sys/class/net/eth0/address").strip()
    # An address of the internet as source first: whether the kernel itself refuses it says nothing about us.
    for source in (fleet.web(version), fleet.control("fra", version)):
        with fleet.hearing("ams", 9999) as heard:
            fleet.python("web", script, mac, source, control, entry, control, entry)
            fleet.python("web", script, mac, fleet.web(version), entry)
            fleet.wait_for(lambda heard=heard: entry in heard(), "ams hears what is for its entry address")
            assert control not in heard(), source


def test_a_server_that_was_broken_into_gets_nothing_forwarded_by_the_others(fleet, version):
    """fra takes a route to the web and to alice through ams's mesh address, and WireGuard on both sides allows it."""
    key, back = fleet.public_key("ams"), fleet.public_key("fra")
    web, client = fleet.web(version), fleet.tunnel_address("alice", version)
    length = 32 if version == 4 else 128
    own = fleet.wg("fra", "wg0ctl", "allowed-ips")[key].replace(" ", ",")
    fleet.sh("fra", f"wg set wg0ctl peer {key} allowed-ips {own},{web}/{length},{client}/{length}")
    since = fleet.now()
    try:
        fleet.sh("fra", f"ip route add {web}/{length} dev wg0ctl; ip route add {client}/{length} dev wg0ctl")
        received = int(fleet.wg("ams", "wg0ctl", "transfer")[back].split()[0])
        with fleet.capture("alice", f"host {fleet.control('fra', version)}") as arrived:
            for address in (web, client):
                assert not fleet.answers("fra", address, 1)
            assert int(fleet.wg("ams", "wg0ctl", "transfer")[back].split()[0]) > received, "ams got nothing to forward"
            fleet.until_recorded()
            assert arrived() == []
    finally:
        fleet.sh("fra", f"wg set wg0ctl peer {key} allowed-ips {own}")
        fleet.sh("fra", f"ip route del {web}/{length} dev wg0ctl; ip route del {client}/{length} dev wg0ctl")
    kind = "icmp" if version == 4 else "icmp6"
    assert (
        fleet.recorded(f"{kind} and (src {fleet.control('fra', version)} or host {fleet.entry('ams', version)})", since)
        == []
    )


def test_no_server_forwards_into_the_mesh(fleet, version):
    """ams, which forwards for its clients, is asked by its neighbour to deliver to fra's control address."""
    target = fleet.control("fra", version)
    fleet.sh("web", f"ip route add {target} via {fleet.entry('ams', version)} dev eth0")
    try:
        sent = int(fleet.wg("ams", "wg0ctl", "transfer")[fleet.public_key("fra")].split()[1])
        fleet.try_sh("web", f"ping -q -i 0.01 -c 100 -s 1000 -W 1 {target}")
        # 100 packets of 1000 bytes would show beside keepalives and handshakes.
        assert int(fleet.wg("ams", "wg0ctl", "transfer")[fleet.public_key("fra")].split()[1]) - sent < 10_000
    finally:
        fleet.sh("web", f"ip route del {target}")


def test_the_links_are_ours_and_restored_at_boot(fleet):
    for server in fleet.servers:
        assert fleet.sh(server, "systemctl is-enabled warren-network.service").strip() == "enabled"
        state = json.loads(fleet.sh(server, "cat /etc/warren/network.json"))
        exits = {f"wg0mh-r{fleet.id(other)}" for other in fleet.servers if other != server}
        placed = {link["name"] for part in state["parts"] for link in part.get("links", [])}
        assert placed == {"wg0ctl", "wg0access", "wg0mh"} | exits
