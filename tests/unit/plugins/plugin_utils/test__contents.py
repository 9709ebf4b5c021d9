"""The files that a server gets, without a server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ansible_collections.warren.vpn.plugins.module_utils import _host, _record
from ansible_collections.warren.vpn.plugins.plugin_utils import _contents

LINK = {
    "name": "wg0ctl", "purpose": "control_mesh", "public_key": "A" * 43 + "=", "listen_port": 20000, "mtu": 1420,
    "addresses": ["10.77.0.1/24"], "routes": [],
    "peers": [{"name": name, "public_key": name, "allowed_ips": ["10.77.0.2/32"]} for name in ("fra", "nyc")],
}  # fmt: skip
TABLE = {"name": "warren_x", "content": "table inet warren_x {\n  # @secret:seed@\n}\n"}


def parameters(link: str) -> dict:
    unit = {"path": "/etc/systemd/system/x.service", "content": "[Unit]\n"}
    config = {"path": "/etc/x.conf", "content": "x\n", "mode": "640", "group": "x"}
    program = {"path": "/usr/lib/warren/x/y.py", "content": "pass\n"}
    one = {"owner": "one", "sysctl": {"net.ipv4.ip_forward": 1}, "tables": [TABLE], "files": [unit]}
    other = {"owner": "other", "links": [link], "packages": ["python3-x"], "files": [config, program]}
    return {"version": "1", "wireguard": "auto", "parts": [one, other]}


def test_text_and_mode_of_every_file() -> None:
    found = _contents.contents(parameters(json.dumps(LINK)))
    table = "table inet warren_x\nflush table inet warren_x\ntable inet warren_x {\n  # @secret:seed@\n}\n"
    assert found.pop(Path("/etc/warren/nftables.d/warren_x.nft")) == (table, 0o600)
    assert found.pop(Path("/etc/systemd/system/x.service")) == ("[Unit]\n", 0o644)
    assert found.pop(Path("/etc/x.conf")) == ("x\n", 0o640)
    assert found.pop(Path("/etc/sysctl.d/60-warren.conf"))[0].endswith("net.ipv4.ip_forward = 1\n")
    text, mode = found.pop(Path("/etc/warren/network.json"))
    assert mode == 0o600
    assert not found
    assert json.loads(text) == {
        "version": "1", "userspace": None,
        "parts": [
            {"owner": "one", "files": ["/etc/systemd/system/x.service"], "sysctl": {"net.ipv4.ip_forward": "1"},
             "tables": [TABLE]},
            {"owner": "other", "files": ["/etc/x.conf", "/usr/lib/warren/x/y.py"], "links": [LINK],
             "packages": ["python3-x"]},
        ],
    }  # fmt: skip


def test_each_peer_has_a_line_of_its_own() -> None:
    data = {"version": "1", "parts": [{"owner": "x", "links": [LINK, {**LINK, "peers": []}]}, {"owner": "y"}]}
    text = _record.text_of(data)
    assert [line.count('"allowed_ips"') for line in text.splitlines()].count(1) == 2
    assert json.loads(text) == data
    assert json.loads(_record.text_of({"parts": []})) == {"parts": []}


def test_a_link_that_is_not_json_is_refused() -> None:
    with pytest.raises(_host.NetworkError, match="a link is not JSON"):
        _contents.contents(parameters("{"))


@pytest.mark.parametrize("part", ["link", "peer"])
def test_a_misspelt_key_is_refused(part: str) -> None:
    link = {**LINK, "endpont": "x"} if part == "link" else {**LINK, "peers": [{**LINK["peers"][0], "endpont": "x"}]}
    with pytest.raises(_host.NetworkError, match=r"link wg0ctl is not as it should be: .*it has no endpont"):
        _record.network_from({"version": "1", "parts": [{"owner": "x", "links": [link]}]})
