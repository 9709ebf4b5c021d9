"""Whatever of ours is taken away, under traffic: no packet leaves by another way, or as somebody else."""

from __future__ import annotations

import json
import time

import pytest

# Seconds for which is watched what leaves while a loss lasts.
WINDOW = 0.6
# What is placed, in an order that does not depend on what was put back when.
PLACED = """
ip rule | sort; ip -6 rule | sort; ip route show table all proto 119 | sort; ip -6 route show table all proto 119 | sort
ip -d -o link | grep -o ' wg0[^:]*:.*group [0-9a-z]*' | sed 's/<.*group/group/' | sort
for table in warren_control_mesh warren_path warren_wireguard; do nft -s -t list table inet $table; done
"""


def placed(fleet, server):
    """All that we have placed on a server's network, each with the command that takes it away."""
    found = {}
    for line in fleet.sh(server, "nft list tables").splitlines():
        table = line.split()[-1]
        if table.startswith("warren_"):
            found[f"table {table}"] = f"nft delete table inet {table}"
            found[f"rules of table {table}"] = f"nft flush table inet {table}"
    rules = [line.partition(":\t") for line in fleet.sh(server, "ip rule show").splitlines() if "proto 119" in line]
    for priority, _colon, rule in rules:
        selector = rule.replace("from all ", "").replace(" proto 119", "")
        words = (
            f"priority {priority} {selector}".replace("goto", "goto") if "goto" not in rule else f"priority {priority}"
        )
        found[f"rule {priority}: {selector}"] = f"ip rule del {words}; ip -6 rule del {words}"
    parts = json.loads(fleet.sh(server, "cat /etc/warren/network.json"))["parts"]
    links = [link for part in parts for link in part.get("links", [])]
    for link in links:
        found[f"link {link['name']}"] = f"ip link delete {link['name']}"
        found[f"group of {link['name']}"] = f"ip link set {link['name']} group 0"
        for route in link["routes"]:
            table = route.get("table", "main")
            family = "-6" if ":" in route["destination"] else "-4"
            found[f"route {route['destination']} in {table}"] = (
                f"ip {family} route del {route['destination']} dev {link['name']} table {table}"
            )
    for route in (route for part in parts for route in part.get("routes", [])):
        words = f"{route['type']} {route['destination']} metric {route['metric']}"
        found[f"route {words}"] = f"ip {'-6' if ':' in words else '-4'} route del {words}"
    tables = {route["table"] for link in links for route in link["routes"] if "table" in route}
    for table in sorted(tables):
        found[f"routing table {table}"] = f"ip route flush table {table}; ip -6 route flush table {table}"
    return found


def others(fleet, server):
    """What else takes ours away."""
    everything = list(placed(fleet, server).items())
    links = [script for what, script in everything if what.startswith("link ")]
    rest = [script for what, script in everything if not what.startswith("link ")]
    return {
        "the ruleset, flushed": "nft flush ruleset",
        "the ruleset, loaded anew by hand": "nft -f /etc/nftables.conf",
        "nftables.service, stopped": "nft add table inet mine; systemctl start nftables; systemctl stop nftables",
        "nftables.service, restarted": "systemctl restart nftables",
        "flows": "conntrack -F",
        "all rules": "ip rule flush protocol 119; ip -6 rule flush protocol 119",
        "all tables, without the agent": "systemctl kill --signal=KILL warrend; nft flush ruleset",
        "everything at once": "; ".join(f"{{ {script}; }} 2>/dev/null || true" for script in [*links, *rest]),
    }


@pytest.mark.parametrize("server", ["ams", "nyc"])
def test_nothing_leaves_wrongly_when_something_of_ours_is_lost(fleet, busy, server):
    """Each loss with the agent blind first, so that it lasts; then it is put back by itself, and all flows again."""
    damages = {**placed(fleet, server), **others(fleet, server)}
    assert len(damages) > 20
    whole = fleet.sh(server, PLACED)
    assert whole.count("group") > 2
    began, spans, shown = fleet.now(), {}, {}
    for what, script in damages.items():
        since = fleet.now()
        with fleet.unattended(server):
            fleet.try_sh(server, script)
            time.sleep(WINDOW * fleet.slowness)
        shown[what] = fleet.now() - since
        # Traffic may flow before all is back, and the next loss would meet what is left of this one.
        fleet.wait_for(lambda: fleet.try_sh(server, PLACED).stdout == whole, f"all is back after: {what}", 90)
        fleet.wait_for(busy.flowing, f"all flows again after: {what}", 90)
        spans[what] = since, fleet.now()
    wrong = {}
    for server_, line in busy.wrong(began):
        when = float(line.split()[0])
        what = next((name for name, (first, last) in spans.items() if first <= when <= last), "between")
        wrong.setdefault(what, []).append(f"{server_}: {line}")
    assert {what: (len(lines), lines[:3]) for what, lines in wrong.items()} == {}
    for client in ("alice", "carol"):
        assert busy.seen(client, began) > 1000, f"{client} sent too little: nothing is shown"
