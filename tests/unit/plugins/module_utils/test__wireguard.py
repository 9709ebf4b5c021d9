# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Comparing links, without a host: what counts as a difference, and the steps that follow from one."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.warren.vpn.plugins.module_utils import _host, _interfaces, _link, _network, _record

KEY = "E0gQ1eCjVTz3vW6G9VCvmhdbVTWZGgrwTMNmVqGLSB0="
PSK = "q83vEjRWeJC83vEjRWeJC83vEjRWeJC83vEjRWeJq80="


def data(**changes: Any) -> dict[str, Any]:
    peer = {
        "name": "fra",
        "public_key": KEY,
        "preshared_key": PSK,
        "endpoint": "198.51.100.12:20000",
        "allowed_ips": ["fd57::2/128", "10.77.0.2/32"],
        "keepalive": 25,
    }
    return {
        "name": "wg0ctl",
        "purpose": "control_mesh",
        "public_key": "x",
        "listen_port": 20000,
        "mtu": 1420,
        "addresses": ["10.77.0.1/24"],
        "routes": [{"destination": "10.96.0.0/11"}],
        "peers": [peer],
        **changes,
    }


def peer(**changes: Any) -> _link.Peer:
    return replace(_link.link_from(data()).peers[KEY], **changes)


def test_plain_data_is_put_in_canonical_form() -> None:
    given = data(addresses=["FD57:0::1/64", "10.77.0.1/24"], routes=[{"destination": "10.97.0.1/11"}])
    link = _link.link_from(given)
    assert link.addresses == ("10.77.0.1/24", "fd57::1/64")
    assert link.routes == {_link.Route("10.96.0.0/11")}
    assert link.peers[KEY].allowed_ips == ("10.77.0.2/32", "fd57::2/128")


@pytest.mark.parametrize("wrong", [{"mtu": "much"}, {"addresses": "10.77.0.1/24"}, {"addresses": ["10.77.0.1/99"]}])
def test_data_of_the_wrong_form_is_one_clear_error(wrong: dict[str, Any]) -> None:
    with pytest.raises(_host.NetworkError, match="link wg0ctl is not as it should be"):
        _link.link_from(data(**wrong))


@pytest.mark.parametrize(
    "change", [{"preshared_key": ""}, {"allowed_ips": ("10.77.0.2/32",)}, {"keepalive": 0}, {"endpoint": "192.0.2.1:1"}]
)
def test_a_peer_that_differs(change: dict[str, Any]) -> None:
    assert not peer(**change).like(peer())
    assert peer(name="other", handshake=1).like(peer())


def test_a_peer_that_roamed_keeps_its_endpoint_while_it_answers() -> None:
    now = int(time.time())
    assert peer(endpoint="192.0.2.1:1", handshake=now - 100).like(peer())
    assert not peer(endpoint="192.0.2.1:1", handshake=now - 200).like(peer())


def test_a_peer_that_is_to_be_elsewhere_now_is_no_roaming_one() -> None:
    assert not peer(endpoint="192.0.2.1:1", handshake=int(time.time()), may_roam=False).like(peer())


@pytest.mark.parametrize(
    ("noted", "unfinished", "kept"),
    [("198.51.100.12:20000", False, True), ("198.51.100.12:20000", True, False), ("198.51.100.99:20000", False, False)],
)
def test_an_endpoint_noted_by_a_run_that_died_is_not_taken_for_set(
    noted: str, unfinished: bool, kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wanted(endpoint: str) -> dict[str, Any]:
        link = data()
        link["peers"][0]["endpoint"] = endpoint
        return {"version": "1.0.0", "userspace": None, "parts": [{"owner": "mesh", "links": [link]}]}

    monkeypatch.setattr(_record, "STATE_FILE", tmp_path / "network.json")
    marked = {_record.UNFINISHED: True} if unfinished else {}
    _record.STATE_FILE.write_text(_record.text_of({**wanted(noted), **marked}))
    network = _record.network_from(wanted("198.51.100.12:20000"))
    elsewhere = peer(endpoint="198.51.100.77:20000", handshake=int(time.time()))
    last = _record.read()
    assert last
    live = _network._known({"wg0ctl": replace(network.links["wg0ctl"], peers={KEY: elsewhere})}, network, last)  # noqa: SLF001
    assert live["wg0ctl"].peers[KEY].like(network.links["wg0ctl"].peers[KEY]) == kept


def test_a_client_may_come_from_anywhere() -> None:
    assert peer(endpoint="192.0.2.1:1").like(peer(endpoint=""))


def test_steps_touch_only_what_differs() -> None:
    wanted = _link.link_from(data(addresses=["10.77.0.1/24", "fd57::1/64"]))
    assert _interfaces.steps(wanted, wanted) == []
    here = replace(
        wanted,
        mtu=1400,
        addresses=("10.77.0.9/24", "fd57::1/64"),
        routes=frozenset({_link.Route("10.0.0.0/8", "main")}),
    )
    assert _interfaces.steps(wanted, here) == [
        "address delete 10.77.0.9/24 dev wg0ctl",
        "link set dev wg0ctl mtu 1420",
        "address add 10.77.0.1/24 dev wg0ctl",
        "route delete 10.0.0.0/8 table main dev wg0ctl proto 119",
        "route replace 10.96.0.0/11 table main dev wg0ctl proto 119",
    ]


def test_a_link_that_is_down_gets_its_routes_again() -> None:
    wanted = _link.link_from(data())
    assert _interfaces.steps(wanted, replace(wanted, up=False)) == [
        "link set dev wg0ctl up",
        "route replace 10.96.0.0/11 table main dev wg0ctl proto 119",
    ]


def test_a_description_has_no_secret_and_tells_a_changed_one() -> None:
    wanted = _link.link_from(data())
    live = replace(wanted, peers={KEY: peer(preshared_key=PSK.replace("q", "r"))})
    before, after = _link.describe(live), _link.describe(wanted, live)
    assert PSK not in "\n".join(before + after)
    assert before != after
    assert "    pre-shared key set, another one" in after
    assert _link.describe(wanted) == _link.describe(wanted, wanted)


# --- peers that are known by a name


@pytest.mark.parametrize(
    ("endpoint", "is_name"),
    [
        ("198.51.100.12:20000", False), ("[2001:db8::1]:20000", False), ("", False),
        ("vpn.example.org:20000", True), ("12:20000", True),
    ],
)  # fmt: skip
def test_an_endpoint_with_a_name(endpoint: str, is_name: bool) -> None:
    assert _link.has_name(endpoint) == is_name


@pytest.mark.parametrize(
    ("here", "known", "endpoint"),
    [
        ("", ["192.0.2.1:1", "[2001:db8::1]:1"], "192.0.2.1:1"),
        ("[2001:db8::1]:1", ["192.0.2.1:1", "[2001:db8::1]:1"], "[2001:db8::1]:1"),
        ("192.0.2.9:1", ["192.0.2.1:1"], "192.0.2.1:1"),
        ("192.0.2.9:1", [], "192.0.2.9:1"),
        ("", [], ""),
    ],
)
def test_a_peer_by_name_stays_where_it_is_or_goes_where_the_name_says(
    here: str, known: list[str], endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_link, "addresses_of", lambda _endpoint: known)
    link = _link.link_from(data(peers=[{"public_key": KEY, "allowed_ips": [], "endpoint": "vpn.example.org:1"}]))
    live = replace(link, peers={KEY: replace(link.peers[KEY], endpoint=here)})
    found = _network._with_addresses(link, live, ask_names=True)  # noqa: SLF001
    assert found.peers[KEY].endpoint == endpoint
    silent = _network._with_addresses(link, live, ask_names=False)  # noqa: SLF001
    assert silent.peers[KEY].endpoint == here, "before the network is up nobody is asked"


def test_a_name_is_resolved_for_both_families() -> None:
    assert _link.addresses_of("localhost:7") in (
        ["[::1]:7", "127.0.0.1:7"],
        ["127.0.0.1:7", "[::1]:7"],
        ["127.0.0.1:7"],
    )
    assert _link.addresses_of("no such name:7") == []


# --- who has to answer after a change


def test_a_watched_peer_is_asked_where_it_is_before_a_change_and_where_it_is_to_be_after_it() -> None:
    now = int(time.time())
    wanted = data(peers=[{**data()["peers"][0], "allowed_ips": ["10.78.0.2/32"], "watched": True}])
    network = _record.network_from({"version": "1", "parts": [{"owner": "mesh", "links": [wanted]}]})
    live = {"wg0ctl": replace(_link.link_from(data()), peers={KEY: peer(handshake=now)})}
    assert _network._alive(live, network) == {"fra v4": "10.77.0.2", "fra v6": "fd57::2"}  # noqa: SLF001
    assert _network.watched_addresses(network) == {"fra v4": "10.78.0.2"}
    unwatched = _record.network_from({"version": "1", "parts": [{"owner": "mesh", "links": [data()]}]})
    assert _network._alive(live, unwatched) == {}  # noqa: SLF001
