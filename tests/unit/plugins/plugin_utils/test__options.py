"""The options of roles, checked for all hosts at once."""

from __future__ import annotations

from ansible_collections.warren.vpn.plugins.plugin_utils import _options
from ansible_collections.warren.vpn.plugins.plugin_utils._problems import Unreadable

ROLES = {
    "access": {"access_ports": {"type": "list", "elements": "int", "default": []}},
    "server": {"server_wireguard": {"type": "str", "choices": ["auto", "kernel"]}, "server_dir": {"required": True}},
}


def problems(hosts: dict[str, dict[str, object]]) -> list[str]:
    return [str(problem) for problem in _options.check(hosts, ROLES)]


def test_what_is_right_or_not_given_is_no_problem() -> None:
    assert problems({"ams": {"access_ports": [80, "443"], "server_wireguard": "kernel"}, "fra": {"other": 1}}) == []


def test_a_wrong_value_is_named_with_its_host_and_the_rest_too() -> None:
    found = problems({"ams": {"access_ports": ["http"]}, "fra": {"server_wireguard": "userland"}})
    assert found[0].startswith("ams: access_ports = ['http']: ")
    assert "int" in found[0]
    assert found[1].startswith("fra: server_wireguard = userland: ")
    assert "auto, kernel" in found[1]
    assert all(text.endswith("See the role's README for what that option takes.") for text in found)


def test_a_value_that_all_hosts_share_is_reported_once() -> None:
    assert [text.split(":")[0] for text in problems({"ams": {"access_ports": 1.5}, "fra": {"access_ports": 1.5}})] == [
        "all"
    ]


def test_a_template_that_needs_a_play_is_left_to_it() -> None:
    assert problems({"ams": {"access_ports": Unreadable("'control_mesh_part' is undefined")}}) == []


def test_the_options_of_the_roles_are_found() -> None:
    assert _options.role_options()["server"]["server_wireguard"]["choices"] == ["auto", "kernel", "userspace"]
