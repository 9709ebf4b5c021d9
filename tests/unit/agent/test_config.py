"""What the agent is told: from the inventory to its file, and from its file to the agent."""

from __future__ import annotations

import difflib
import ipaddress
import json
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from fleets import CITIES, IDLE_SECONDS, SMALL_POOL, clients_of, config, data, fleet, key
from hypothesis import given, settings
from hypothesis import strategies as st
from warrend import clients, links
from warrend import config as config_module
from warrend import exits as exits_module
from warrend.conntrack import (
    EXIT_KIND,
    FORWARD_KIND,
    HANDLES,
    OWN_KIND,
    SESSION_KIND,
    forward_mark,
    handle,
)

from ansible_collections.warren.vpn.plugins.filter import agent_clients, agent_config
from ansible_collections.warren.vpn.plugins.module_utils import _interfaces
from ansible_collections.warren.vpn.plugins.plugin_utils import _addressing, _agent, _links


def clients_text(read: dict[str, Any], slug: str = "ams") -> str:
    return _agent.config_text(_agent.clients(read, f"host-{slug}"))


def text(read: dict[str, Any], slug: str = "ams") -> str:
    return _agent.config_text(_agent.config(read, f"host-{slug}", 60, 1200))


@given(number=st.integers(0, 5), servers=st.integers(1, 3), small=st.booleans(), ipv6=st.booleans())
@settings(max_examples=25, deadline=None)
def test_what_is_written_is_what_is_read(number: int, servers: int, small: bool, ipv6: bool) -> None:
    only4 = {"server_entry_addresses": ["198.51.100.9"], "server_exit_addresses": ["203.0.113.9"]}
    read = fleet(number, servers, {} if ipv6 else {"ams": only4}, **(SMALL_POOL if small else {}))
    for name, server in read["servers"].items():
        slug = server["slug"]
        told = config_module.parse(json.loads(text(read, slug)), clients_of(read, slug))
        assert (told.slug, told.label, told.control4) == (slug, CITIES[slug], server["control4"])
        assert (str(told.session4), str(told.session6)) == (server["session4"], server["session6"])
        assert (list(told.exit4), list(told.exit6)) == (server["exit4"], server["exit6"])
        assert (told.lease_seconds, told.idle_seconds) == (60, 1200)
        remotes = {remote["name"]: remote for remote in _links.remotes(read, name)}
        assert {other.name for other in told.servers.values()} == set(remotes)
        for other in told.servers.values():
            assert other.interface == _addressing.link_interface(remotes[other.name]["id"])
            assert other.mark == remotes[other.name]["mark"]
            assert other.public_key == read["servers"][other.name]["keys"]["multihop"]
            there = read["servers"][other.name]
            assert (list(other.exit4), list(other.exit6)) == (there["exit4"], there["exit6"])
        found = [(c.name, c.public_key, c.address4, c.address6) for c in told.clients.values()]
        assert found == [(c["name"], c["public_key"], c["address4"], c["address6"]) for c in read["clients"]]


def test_the_portal_and_the_ports() -> None:
    read = fleet(warren_access_port=52000, warren_forward_ports="35000-55000")
    plain = _agent.config(read, "host-ams", 60, 1200, ["P.example"])
    told = config_module.parse(json.loads(_agent.config_text(plain)), clients_of(read))
    assert (told.portal, told.portal_names) == (("10.31.33.7", "fd57:6172:7265:33::7"), ("p.example",))
    assert (told.entry4, told.entry6) == ("198.51.100.1", "2001:db8::1")
    assert (told.forward_ports, told.reserved_ports) == ((35000, 55000), {52000})
    assert config().reserved_ports == {51820}


@pytest.mark.parametrize("name", ["", "http://portal", "a b", "portal:80", "-a.example", "a..example", "ä.example"])
def test_what_is_no_name_for_the_portal_is_refused(name: str) -> None:
    write = agent_config.FilterModule().filters()["agent_config"]
    with pytest.raises(AnsibleFilterError, match=r"agent_portal_names: .* is no host name\. Write names such as"):
        write(json.dumps(fleet()), "host-ams", 60, 1200, [name])


def test_the_agents_marks_of_flows_are_those_of_the_rules() -> None:
    """It is not told them, so that they are compared with nothing but each other."""
    marks = _addressing.FLOW_MARKS
    kinds = {"dead": 1, "forward": FORWARD_KIND, "session": SESSION_KIND, "own": OWN_KIND, "exit": EXIT_KIND}
    assert {name: kind << 28 for name, kind in kinds.items()} == marks
    assert len({forward_mark(port) for port in range(65536)}) == 65536, "one port's flows are no other's"


@given(number=st.integers(0, 2**32 - 1), other=st.integers(0, 2**28 - 1))
@settings(max_examples=50)
def test_no_two_clients_and_no_two_sessions_have_one_handle(number: int, other: int) -> None:
    """The end of an address, whatever prefix it is of that has four bits or more."""
    there = number ^ other
    found = [handle(str(ipaddress.IPv4Address(each))) for each in (number, there)]
    assert (found[0] == found[1]) is (other == 0)
    assert max(found) < HANDLES


def test_a_client_is_known_by_what_its_flows_have_of_it() -> None:
    told = config()
    found = {number: told.clients.address_of_handle(0x0A64_0000 + number) for number in range(5)}
    assert found == {0: None, 1: "10.100.0.1", 2: "10.100.0.2", 3: "10.100.0.3", 4: None}


def test_a_clients_own_way_is_no_exit_and_no_hold() -> None:
    told = config()
    own = {OWN_KIND << 28 | handle(address4) for address4 in told.clients}
    assert not own & {told.block_mark, told.hold_mark, *(server.mark for server in told.servers.values())}


def test_the_links() -> None:
    read = fleet()
    told = config("ams", read)
    named = [*_links.multihop_links(read, "host-ams"), _links.control_mesh_link(read, "host-ams")]
    named.append(_links.access_link(read, "host-ams"))
    assert told.links == {link["name"] for link in named}
    assert len(told.links) == 5


@pytest.mark.parametrize(("number", "most"), [(0, 64), (32, 64), (33, 66), (150, 300)])
def test_most_sessions_follow_from_the_clients_of_the_fleet(number: int, most: int) -> None:
    """Twice as many, for one ends while the next begins; and there is no fleet without room to try."""
    assert config("ams", fleet(number)).clients.most_sessions == most


def test_the_marks_are_no_exits() -> None:
    told = config()
    marks = {server.mark for server in told.servers.values()}
    assert not marks & {told.block_mark, told.hold_mark}
    assert told.block_mark != told.hold_mark


def test_the_files_are_read_from_their_places(tmp_path: Path) -> None:
    path = tmp_path / "agent.json"
    path.write_text(text(fleet()), encoding="utf-8")
    (tmp_path / "clients.json").write_text(clients_text(fleet()), encoding="utf-8")
    told = config_module.load(path)
    assert (told.slug, len(told.clients)) == ("ams", 3)
    assert (Path("/etc/warren/agent.json"), Path("/etc/warren/clients.json")) == (config_module.PATH, clients.PATH)


def test_no_secret_is_in_them() -> None:
    read = fleet()
    written = text(read) + clients_text(read)
    assert read["secret"] not in written
    assert not [word for word in ("secret", "private", "preshared") if word in written]


def test_each_server_and_each_client_has_a_line() -> None:
    read = fleet(clients=4)
    lines = (text(read) + clients_text(read)).splitlines()
    for word in ("host-nyc", "host-fra", "c1", "c2", "c3", "c4"):
        assert sum(f'"name": "{word}"' in line for line in lines) == 1


def changed_lines(before: str, after: str) -> list[str]:
    difference = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0)
    return [line for line in difference if line[0] in "+-" and line[:3] not in ("+++", "---")]


def test_a_diff_shows_what_differs() -> None:
    before = text(fleet())
    assert text(fleet()) == before
    label = changed_lines(before, text(fleet(changes={"nyc": {"server_label": "Gotham"}})))
    assert [line[0] for line in label] == ["-", "+"]
    assert "Gotham" in label[1]
    client = changed_lines(clients_text(fleet()), clients_text(fleet(clients=4)))
    assert [line for line in client if "c4" in line] == client[-1:]
    assert len(client) == 3, "and the comma of the line before"
    assert changed_lines(before, before.replace('"lease_seconds": 60', '"lease_seconds": 61')) == [
        '- "lease_seconds": 60,',
        '+ "lease_seconds": 61,',
    ]


@pytest.mark.parametrize("before", [0, 3, 31, 40])
def test_another_client_is_another_text_of_the_clients_file_only(before: int) -> None:
    """On every server, or its agent would be restarted: on one without clients too, which only is an exit."""
    few, more = fleet(before), fleet(before + 1)
    for read in (few, more):
        read["servers"]["host-fra"]["access"] = False
    for slug in CITIES:
        assert text(few, slug) == text(more, slug)
    assert clients_text(few) != clients_text(more)
    assert (clients_text(few, "fra") == clients_text(more, "fra")) is (before < 32)


def test_the_filters_write_these_texts() -> None:
    read = fleet()
    written = agent_config.FilterModule().filters()["agent_config"](json.dumps(read), "host-ams", 60, "1200")
    assert written == text(read)
    assert agent_clients.FilterModule().filters()["agent_clients"](json.dumps(read), "host-ams") == clients_text(read)
    with pytest.raises(AnsibleFilterError, match="nobody is not a server of the fleet"):
        agent_clients.FilterModule().filters()["agent_clients"](json.dumps(read), "nobody")


def test_a_server_without_clients_is_an_exit_only() -> None:
    read = fleet()
    read["servers"]["host-nyc"]["access"] = False
    told = config("nyc", read)
    assert not told.clients_connect
    assert not told.clients
    assert {server.mark for server in told.servers.values()} == {None}
    assert told.links == {told.control_interface, told.multihop_interface}
    assert told.exit("ams") is None
    assert config("ams", read).exit("nyc") is not None


def test_a_client_without_a_key_is_not_told() -> None:
    read = fleet()
    read["clients"][0]["public_key"] = None
    assert [client.name for client in clients_of(read).values()] == ["c2", "c3"]


@pytest.mark.parametrize("word", ["c2", "10.100.0.2", "fd57:6172:7265:2::c2", "FD57:6172:7265:0002::C2"])
def test_a_client_is_found(word: str) -> None:
    found = config().clients.find(word)
    assert found is not None
    assert found.name == "c2"


@pytest.mark.parametrize("word", ["", "c", "c22", "10.100.0.22", "10.100.0.2/32", "fd57::%eth0", "nyc"])
def test_nobody_is_found(word: str) -> None:
    assert config().clients.find(word) is None
    assert config().exit(word) is None or word == "nyc"


def test_a_server_is_found_by_its_addresses_on_the_mesh() -> None:
    told = config()
    assert {address: server.slug for address, server in told.by_control_address.items()} == {
        "10.77.0.2": "nyc",
        "fd57:6172:7265:1::2": "nyc",
        "10.77.0.3": "fra",
        "fd57:6172:7265:1::3": "fra",
    }


@given(number=st.integers(0, 2**16 - 1))
@settings(max_examples=50)
def test_a_server_speaks_for_its_own_prefix(number: int) -> None:
    nyc = config("ams", SMALL_FLEET).servers["nyc"]
    address = str(ipaddress.ip_address("10.1.0.0") + number)
    assert nyc.speaks_for(address) == address.startswith("10.1.2.")
    assert not nyc.speaks_for(f"::ffff:{address}")


SMALL_FLEET = fleet(**SMALL_POOL)


def test_seconds_are_those_of_the_role() -> None:
    assert data(fleet(), "ams", 33)["lease_seconds"] == 33
    assert data(fleet(), "ams")["idle_seconds"] == IDLE_SECONDS


@pytest.mark.parametrize("seconds", [0, 4, 3601])
def test_a_lease_that_other_servers_do_not_take_is_refused(seconds: int) -> None:
    with pytest.raises(
        ValueError, match=rf"^agent_lease_seconds: {seconds} is not from 5 to 3600: .*Leave it out for 60"
    ):
        _agent.config(fleet(), "host-ams", seconds, 60)


def test_both_sides_mean_the_same_leases() -> None:
    assert _agent.LEASES == exits_module.LEASES


def test_what_the_agent_knows_of_links_and_routes_is_what_the_engine_gives_them() -> None:
    assert str(links.PROTOCOL) == _interfaces.PROTOCOL
    assert {group >> 24 for group in _addressing.LINK_GROUPS.values()} == {links.GROUP_BYTE}
    assert {group & _addressing.LINK_GROUPS_MASK for group in _addressing.LINK_GROUPS.values()} == {
        _addressing.LINK_GROUPS_OURS
    }


def test_the_agent_watches_every_link_of_its_server() -> None:
    """Whatever roles place, and those of a server without clients."""
    for access in (True, False):
        read = fleet()
        read["servers"]["host-nyc"]["access"] = access
        placed = [*_links.multihop_links(read, "host-nyc"), _links.control_mesh_link(read, "host-nyc")]
        placed += [_links.access_link(read, "host-nyc")] if access else []
        assert config("nyc", read).links == {link["name"] for link in placed}


GOOD = {"name": "c1", "public_key": key(1), "address4": "10.100.0.1", "address6": "fd57::1"}
OTHER = {"name": "c2", "public_key": key(2), "address4": "10.100.0.2", "address6": "fd57::2"}
TEXTS = "has to have these texts: address4, address6, name, public_key"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "No such file or directory"),
        (b"", "line 1 is no JSON"),
        (b'{\n"clients": [', "line 2 is no JSON"),
        (b"\xff", "it is no JSON"),
        (b"[" * 100_000, "it is no JSON"),
        (b"[]", "it has to be an object with most_sessions and clients"),
        (b'{"clients": []}', "it has to be an object with most_sessions and clients"),
        ({"most_sessions": "64", "clients": []}, "most_sessions has to be a positive number, and clients a list"),
        ({"most_sessions": True, "clients": []}, "most_sessions has to be a positive number, and clients a list"),
        ({"most_sessions": 0, "clients": []}, "most_sessions has to be a positive number, and clients a list"),
        ({"most_sessions": 64, "clients": {}}, "most_sessions has to be a positive number, and clients a list"),
        ([None], f"client 1 {TEXTS}"),
        ([GOOD, {**OTHER, "public_key": None}], f"client 2 {TEXTS}"),
        ([{**GOOD, "more": ""}], f"client 1 {TEXTS}"),
        (
            [GOOD, {**OTHER, "address4": "10.100.0.256"}],
            "address4 of client 2 is no IPv4 address in canonical form",
        ),
        ([{**GOOD, "address4": "fd57::1"}], "address4 of client 1 is no IPv4 address in canonical form"),
        ([{**GOOD, "address6": "fd57:0::1"}], "address6 of client 1 is no IPv6 address in canonical form"),
        ([GOOD, {**OTHER, "name": "c1"}], "two clients have one name"),
        ([GOOD, {**OTHER, "address4": GOOD["address4"]}], "two clients have one address4"),
        ([GOOD, {**OTHER, "address6": GOOD["address6"]}], "two clients have one address6"),
    ],
)
def test_what_is_wrong_with_the_clients_file_is_said_without_naming_any(tmp_path: Path, content: Any, why: str) -> None:
    path = tmp_path / "clients.json"
    if content is not None:
        data_ = {"most_sessions": 64, "clients": content} if isinstance(content, list) else content
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(data_).encode())
    with pytest.raises(clients.ClientsError) as caught:
        clients.load(path)
    assert str(caught.value) == f"{path} is not as site.yml writes it: {why}. Run site.yml for this server again"
