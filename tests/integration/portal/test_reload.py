"""Clients that come and go: `systemctl reload warrend`, which returns once that is in force."""

from __future__ import annotations

import json

import pytest

CLIENTS = "/etc/warren/clients.json"
PORTAL = "curl -s -o /dev/null -w '%{http_code}' -m 5 http://10.31.33.7/"


@pytest.fixture
def clients(fleet):
    """The file's clients; at the end it is as it was, and in force."""
    before = fleet.sh("ams", f"cat {CLIENTS}")
    yield json.loads(before)
    fleet.sh("ams", f"cat >{CLIENTS}", text=before)
    fleet.sh("ams", "systemctl reload warrend")
    fleet.without_sessions()


def place(fleet, clients):
    """Put another file there, as a run would."""
    fleet.sh("ams", f"cat >{CLIENTS}", text=json.dumps(clients))


def process(fleet):
    """The agent's, and how often it was started anew."""
    return fleet.sh("ams", "systemctl show warrend --property MainPID,NRestarts,ActiveState,ActiveEnterTimestamp")


def test_one_goes_and_comes_back_and_another_notices_nothing(fleet, clients):
    for name in ("alice", "carol"):
        fleet.ctl("ams", "start", name, "nyc")
        fleet.ctl("ams", "forward", name)
    before, agent = fleet.ctl("ams", "show", "carol"), process(fleet)
    without = [client for client in clients["clients"] if client["name"] != "alice"]
    place(fleet, {**clients, "clients": without})
    fleet.sh("ams", "systemctl reload warrend")
    assert fleet.ctl("ams", "show", "carol") == before
    assert [view["client"] for view in fleet.ctl("ams", "list") + fleet.ctl("ams", "forwards")] == ["carol", "carol"]
    assert fleet.try_sh("ams", "warrenctl show alice").stderr == "warrenctl: alice is no client of ams\n"
    assert fleet.sh("alice", PORTAL) == "403"
    assert fleet.sh("carol", PORTAL) == "200"
    assert fleet.agrees("ams")["sessions"] == 1
    fleet.wait_for(lambda: fleet.agrees("nyc")["leases"] == 1, "the exit is told")
    place(fleet, clients)
    fleet.sh("ams", "systemctl reload warrend")
    assert fleet.sh("alice", PORTAL) == "200"
    assert fleet.ctl("ams", "show", "alice")["state"] == "default"
    assert fleet.ctl("ams", "show", "carol") == before
    assert process(fleet) == agent


def test_a_file_that_is_broken_changes_nothing_and_is_told(fleet, clients):
    agent = process(fleet)
    fleet.sh("ams", f"echo '{{' >{CLIENTS}")
    assert fleet.try_sh("ams", "systemctl reload warrend").returncode != 0
    assert process(fleet) == agent
    assert fleet.sh("alice", PORTAL) == "200"
    assert "broken clients file: 1" in fleet.try_sh("ams", "warrenctl check").stdout
    said = fleet.sh("ams", "journalctl --no-pager -o cat -u warrend --since -1min")
    assert f"ERROR {CLIENTS} is not as site.yml writes it: line 2 is no JSON" in said
    place(fleet, clients)
    fleet.sh("ams", "systemctl kill --signal=HUP --kill-whom=main warrend")
    fleet.wait_for(lambda: fleet.try_sh("ams", "warrenctl check").returncode == 0, "a signal does the same")
    assert process(fleet) == agent
