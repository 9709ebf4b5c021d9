"""A fleet that an earlier release deployed, brought up to date while a client with a session is at work.

The fixture `upgrade` has lost no ping on the mesh, none of hers through the exit, and no byte of a download.
"""

from __future__ import annotations

import json

# What a release that only notes owners does on a server, besides writing its own programs.
NOTED = {
    "write /etc/warren/network.json",
    "write /etc/warren/agent.json",
    "write /etc/warren/clients.json",
    "set routes",
    "restart warrend.service",
}


def test_the_session_goes_on(upgrade):
    before, after = upgrade["sessions"]
    assert len(before) == 1
    assert after == before


def test_no_link_is_made_anew(upgrade):
    assert upgrade["after"] == upgrade["before"]


def test_nothing_but_programs_and_records_is_another_one(fleet, upgrade):
    for server in fleet.servers:
        programs = ("write /usr/lib/warren/", "remove /usr/lib/warren/", "write /etc/systemd/system/")
        rest = [action for action in upgrade["run"].actions(server) if not action.startswith(programs)]
        assert set(rest) <= NOTED, server


def test_everything_has_an_owner_now(fleet):
    for server in fleet.servers:
        record = json.loads(fleet.sh(server, "cat /etc/warren/network.json"))
        owners = [part["owner"] for part in record["parts"]]
        assert owners == ["server", "control_mesh", "access", "multihop", "packet_path", "agent"]
    fleet.settled()
