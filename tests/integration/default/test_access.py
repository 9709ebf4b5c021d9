"""Clients: where their traffic leaves, and what they and others cannot do."""

from __future__ import annotations

import ipaddress

import pytest

CLIENTS = {"alice": "ams", "bob": "fra"}
SOURCES = 64


@pytest.mark.parametrize("client", CLIENTS)
def test_the_web_sees_an_exit_address_and_a_port_of_the_range(fleet, version, client):
    """bob has no IPv6 of his own, and sits behind a carrier's NAT."""
    for seen in (fleet.curl(client, version), *fleet.seen(client, version)):
        assert seen["ip"] in fleet.exits(CLIENTS[client], version)
        assert 30000 <= seen["port"] <= 51000


def test_what_arrives_at_the_web_has_an_exit_address_whatever_the_protocol(fleet, version):
    since = fleet.now()
    fleet.curl("alice", version)
    fleet.seen("alice", version)
    assert fleet.answers("alice", fleet.web(version))
    fleet.until_recorded()
    kind, request = ("ip", "icmp[icmptype] == icmp-echo") if version == 4 else ("ip6", "ip6[40] == 128")
    for what in ("tcp dst port 80", f"{kind} and udp dst port 80", request):
        packets = fleet.recorded(f"{kind} and {what}", since)
        assert packets, what
        for packet in packets:
            assert any(f" {address}" in packet for address in fleet.exits("ams", version)), packet


def test_a_client_keeps_its_exit_address(fleet, version):
    assert (
        len({fleet.curl("alice", version)["ip"] for _try in range(4)} | {s["ip"] for s in fleet.seen("alice", version)})
        == 1
    )


def test_the_exit_address_is_a_hash_of_the_client_with_a_secret_of_the_server(fleet, many_clients):
    """Of two exits, 64 clients get either about as often, and what one server gives them says nothing of the next."""
    chosen = {}
    for server in CLIENTS.values():
        addresses = many_clients(server)
        for family in (4, 6):
            first = fleet.exits(server, family)[0]
            one, again = (
                [seen["ip"] == first for seen in fleet.seen("alice", family, addresses[family])] for _try in range(2)
            )
            assert one == again
            assert 10 <= sum(one) <= SOURCES - 10  # 5.5 standard deviations
            chosen[server, family] = one
    for family in (4, 6):
        same = [one == other for one, other in zip(chosen["ams", family], chosen["fra", family], strict=True)]
        assert 10 <= sum(same) <= SOURCES - 10


@pytest.fixture
def many_clients(fleet):
    """Alice's peer on ams and on fra may be 64 clients; a function connects her to one and gives their addresses."""
    fleet.client_file("alice", "fra")  # its run would undo what is set here
    key = fleet.sh("alice", "wg show ams public-key").strip()
    base = {4: ipaddress.ip_address("10.100.0.0"), 6: ipaddress.ip_address("fd57:6172:7265:2::1000:0")}
    addresses = {family: [str(base[family] + number) for number in range(SOURCES)] for family in (4, 6)}
    own = {server: fleet.wg(server, "wg0access", "allowed-ips")[key].replace(" ", ",") for server in CLIENTS.values()}

    def connect(server):
        fleet.use_server("alice", server)
        lines = [f"address replace {address} dev {server}" for address in addresses[4]]
        lines += [f"address replace {address} dev {server} nodad" for address in addresses[6]]
        fleet.sh("alice", "ip -batch - <<END\n{}\nEND".format("\n".join(lines)))
        return addresses

    with fleet.unattended(*own):  # or its agent would take those out whom the inventory does not have
        for server, ips in own.items():
            fleet.sh(server, f"wg set wg0access peer {key} allowed-ips {ips},{base[4]}/26,{base[6]}/122")
            for family, listed in addresses.items():
                elements = ", ".join(f"{address} : 0x60000001" for address in listed)
                fleet.sh(server, f"nft add element inet warren_path client_mark{family} '{{ {elements} }}'")
        yield connect
    for server, ips in own.items():
        fleet.sh(server, f"wg set wg0access peer {key} allowed-ips {ips}")
    fleet.use_server("alice", "ams", afresh=True)


def test_the_portal_answers_inside_the_tunnel_only(fleet, version):
    portal = "10.31.33.7" if version == 4 else "fd57:6172:7265:33::7"
    assert fleet.answers("alice", portal)
    fleet.sh("web", f"ip route add {portal} via {fleet.entry('ams', version)} dev eth0")
    try:
        assert not fleet.answers("web", portal, 1)
    finally:
        fleet.sh("web", f"ip route del {portal}")


def test_a_servers_services_cannot_be_reached_through_the_tunnel(fleet, version):
    portal = "10.31.33.7" if version == 4 else "fd57:6172:7265:33::7"
    assert fleet.connects("web", fleet.entry("ams", version), 22), "no sshd: the test shows nothing"
    addresses = [fleet.entry("ams", version), *fleet.exits("ams", version), fleet.control("ams", version), portal]
    assert fleet.reached("alice", addresses, 22) == {f"{portal} by ping"}


def test_wireguard_does_not_answer_on_an_exit_address(fleet):
    key = fleet.public_key("ams", "access")
    since = fleet.now()
    fleet.sh("alice", f"wg set ams peer {key} endpoint {fleet.exits('ams')[0]}:51820")
    try:
        with fleet.capture("alice", f"udp and src {fleet.exits('ams')[0]}") as arrived:
            assert not fleet.answers("alice", "10.31.33.7")
            assert arrived() == [], since
    finally:
        fleet.sh("alice", f"wg set ams peer {key} endpoint {fleet.entry('ams')}:51820")
    fleet.wait_for(lambda: fleet.answers("alice", "10.31.33.7"), "alice is back on the entry address")


@pytest.mark.parametrize("port", [51820, 20000, 20001])
def test_a_client_cannot_send_from_the_port_of_a_service(fleet, version, port):
    since = fleet.now()
    fleet.send("alice", port, fleet.web(version), 7001)
    fleet.send("alice", 40000, fleet.web(version), 7002)
    fleet.wait_for(lambda: fleet.recorded("udp dst port 7002", since), "the web sees a packet from another port")
    fleet.until_recorded()
    assert fleet.recorded("udp dst port 7001", since) == []


def test_packets_of_the_tunnels_size_pass_unfragmented(fleet, version):
    size = 1420 - (28 if version == 4 else 48)
    fleet.sh("alice", f"ping -c 1 -W 5 -M do -s {size} {fleet.web(version)}")


def test_tcp_is_told_the_size_of_the_tunnel(fleet, version):
    """Even if the client does not know it: the size that the web sees is that of the tunnel."""
    since = fleet.now()
    fleet.sh("alice", "ip link set ams mtu 1500")
    try:
        fleet.connects("alice", fleet.web(version), 80, 5)
    finally:
        fleet.sh("alice", "ip link set ams mtu 1420")
    fleet.until_recorded()
    syns = fleet.recorded(f"{'ip' if version == 4 else 'ip6'} and tcp dst port 80", since)
    assert f"mss {1420 - (40 if version == 4 else 60)}," in syns[0], syns
    host = fleet.web(4) if version == 4 else f"[{fleet.web(6)}]"
    size = fleet.sh("alice", f"curl -s -m 20 -o /dev/null -w '%{{size_download}}' http://{host}/bytes/3000000")
    assert size == "3000000"


def test_a_client_may_use_any_server_and_clients_do_not_reach_each_other(fleet, version):
    """alice goes to fra, where bob is, with the tunnel address she has."""
    address, bob = fleet.tunnel_address("alice", version), fleet.tunnel_address("bob", version)
    fleet.use_server("alice", "fra")
    try:
        assert fleet.tunnel_address("alice", version) == address
        assert fleet.curl("alice", version)["ip"] in fleet.exits("fra", version)
        assert fleet.curl("bob", version)["ip"] in fleet.exits("fra", version)
        with fleet.capture("bob", f"src {address} or src {fleet.entry('fra', version)}") as arrived:
            assert not fleet.answers("alice", bob, 1)
            assert not fleet.connects("alice", bob, 22, 1)
            fleet.curl("bob", version)
            assert [line for line in arrived() if bob in line] == []
    finally:
        fleet.use_server("alice", "ams")


def test_nothing_that_the_web_received_in_all_this_had_an_inner_address(fleet):
    inner = "src net 10.0.0.0/8 or src net 100.64.0.0/16 or src net fc00::/7"
    assert fleet.recorded(inner, fleet.started) == []
