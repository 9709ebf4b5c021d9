# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Parts and their owners: who may want what beside whom, and what one owner alone leaves to the others."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ansible_collections.warren.vpn.plugins.module_utils import _host, _record


def link(name: str, port: int) -> str:
    return (
        f'{{"name": "{name}", "purpose": "x", "public_key": "k", "listen_port": {port}, "mtu": 1420, "addresses": [],'
        ' "routes": [], "peers": []}'
    )


def read(*parts: dict[str, Any], only: bool = False, last: _record.Network | None = None) -> _record.Network:
    parameters = {"version": "1", "wireguard": "auto", "parts": list(parts), "only": only}
    return _record.network_from(_record.data_from(parameters, last))


TABLE = {"name": "warren_x", "content": "table inet warren_x { }"}
CONFLICTS = {
    "/etc/x.conf": {"files": [{"path": "/etc/x.conf", "content": ""}]},
    "/var/lib/x": {"directories": ["/var/lib/x"]},
    "nftables table warren_x": {"tables": [TABLE]},
    "route blackhole 10.96.0.0/11 table main": {"routes": [{"destination": "10.96.0.0/11", "type": "blackhole"}]},
    "link wg0x": {"links": [link("wg0x", 0)]},
}


@pytest.mark.parametrize("what", CONFLICTS)
def test_two_parts_that_want_the_same_are_an_error_that_names_both(what: str) -> None:
    with pytest.raises(_host.NetworkError) as raised:
        read({"owner": "mine", **CONFLICTS[what]}, {"owner": "yours", **CONFLICTS[what]})
    assert str(raised.value) == (
        f"yours and mine both declare {what}. One of the two roles must leave it out, or name another."
    )


def test_two_links_on_one_port_are_an_error() -> None:
    with pytest.raises(_host.NetworkError, match="yours and mine both declare UDP port 51820"):
        read({"owner": "mine", "links": [link("wg0a", 51820)]}, {"owner": "yours", "links": [link("wg0b", 51820)]})


def test_a_kernel_setting_may_be_wanted_by_two_but_not_differently() -> None:
    setting = {"net.ipv4.ip_forward": 1}
    assert read({"owner": "mine", "sysctl": setting}, {"owner": "yours", "sysctl": setting}).sysctl == {
        "net.ipv4.ip_forward": "1"
    }
    with pytest.raises(_host.NetworkError, match=r"mine both declare kernel setting .*ip_forward \(0, and 1\)"):
        read({"owner": "mine", "sysctl": setting}, {"owner": "yours", "sysctl": {"net.ipv4.ip_forward": 0}})


@pytest.mark.parametrize("owners", [("", "x"), ("x", "x")])
def test_every_part_has_an_owner_of_its_own(owners: tuple[str, str]) -> None:
    with pytest.raises(_host.NetworkError, match="every part has an owner of its own"):
        read(*({"owner": owner} for owner in owners))


def test_one_owner_alone_leaves_the_others_what_they_have() -> None:
    last = read({"owner": "mesh", "links": [link("wg0ctl", 1)]}, {"owner": "access", "packages": ["a"]})
    now = read({"owner": "access", "packages": ["b"]}, {"owner": "new"}, only=True, last=last)
    assert [part.owner for part in now.parts] == ["mesh", "access", "new"]
    assert list(now.links) == ["wg0ctl"]
    assert now.named("packages") == ["b"]
    assert [part.owner for part in read({"owner": "access"}, last=last).parts] == ["access"]
    assert [part.owner for part in read({"owner": "access"}, only=True, last=_record.EMPTY).parts] == ["access"]


def test_one_owner_alone_may_not_take_what_another_has() -> None:
    last = read({"owner": "mesh", "links": [link("wg0ctl", 1)]})
    with pytest.raises(_host.NetworkError, match="access and mesh both declare link wg0ctl"):
        read({"owner": "access", "links": [link("wg0ctl", 2)]}, only=True, last=last)


def test_a_record_of_before_there_were_owners_is_read_and_not_added_to() -> None:
    """As 589dedf wrote it: a link has a mark there, from which routing rules followed."""
    old = {**json.loads(link("wg0mh-r2", 21002)), "mark": 0x70000002}
    data = {
        "version": "1",
        "sysctl": {"a": "1"},
        "tables": [TABLE],
        "links": [old],
        "packages": ["x"],
        "userspace": None,
    }
    last = _record.network_from(data)
    assert (list(last.links), last.sysctl, [table.name for table in last.tables]) == (
        ["wg0mh-r2"], {"a": "1"}, ["warren_x"],
    )  # fmt: skip
    assert last.is_of_before_owners
    assert not read({"owner": "multihop"}, last=last).is_of_before_owners
    with pytest.raises(_host.NetworkError, match=r"noted no owners. Run site.yml once"):
        read({"owner": "multihop"}, only=True, last=last)


def test_options_that_are_not_given_are_not_there() -> None:
    """As Ansible hands a module its parameters."""
    rule = {"priority": 4004, "iif": "wg0x", "action": "unreachable", "table": None, "not": None, "family": None}
    network = read({"owner": "x", "rules": [rule]})
    assert network.data["parts"][0]["rules"] == [{"priority": 4004, "iif": "wg0x", "action": "unreachable"}]
    assert [str(each) for each in network.rules] == [
        f"rule {family} 4004: iif wg0x unreachable" for family in ("-4", "-6")
    ]


def test_a_route_of_no_link_leads_nowhere() -> None:
    good = {"destination": "10.96.0.0/11", "type": "blackhole", "metric": 7, "table": None}
    assert [str(route) for route in read({"owner": "x", "routes": [good]}).routes] == [
        "blackhole 10.96.0.0/11 table main metric 7"
    ]
    for wrong in ({"destination": "10.96.0.0/11"}, {**good, "gateway": "192.0.2.1"}, {**good, "destination": "x"}):
        with pytest.raises(_host.NetworkError, match="a route of no link is not as it should be"):
            read({"owner": "x", "routes": [wrong]})


def test_what_is_to_be_taken_away_stays_on_record_until_it_is() -> None:
    """A run that dies half way, and then a boot that notes what it has restored, must not forget it."""
    files = [{"path": "/etc/x.conf", "content": ""}, {"path": "/etc/y.conf", "content": ""}]
    before = read({"owner": "x", "files": files, "users": ["x"], "sysctl": {"a": 1, "b": 2}})
    last = _record.network_from({**before.data, "found": {"a": "0", "b": "0"}})
    now = _record.network_from(
        {**read({"owner": "x", "files": files[:1], "sysctl": {"a": 1}}).data, "found": {"a": "0"}}
    )
    died = _record.network_from(_record.while_under_way(now, last))
    assert died.unfinished
    assert died.named("files") == ["/etc/x.conf", "/etc/y.conf"]
    assert died.named("users") == ["x"]
    assert (died.sysctl, died.found, died.leaving.sysctl) == ({"a": "1"}, {"a": "0", "b": "0"}, {"b": "2"})
    for again in (_record.network_from(died.data), _record.network_from(_record.while_under_way(now, died))):
        assert again.named("files") == ["/etc/x.conf", "/etc/y.conf"]
    assert _record.LEAVING not in _record.while_under_way(now, now)
    assert now.named("files") == ["/etc/x.conf"]
