"""From a Debian with nothing but Python and SSH to a mesh: the roles install what they need."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

NEEDED = ("wg", "wireguard-go", "nft", "ip")


def untouched(fleet, server):
    """What a check run must not change."""
    script = """
        dpkg-query -W -f '${Package} '
        ls -d /etc/warren /usr/lib/warren /etc/systemd/system/warren*
        cut -d: -f1 /proc/net/dev
    """
    return fleet.try_sh(server, script).stdout


@pytest.fixture(scope="module")
def runs(fleet):
    """A check run on hosts that nobody touched, and then two runs."""
    before = {server: untouched(fleet, server) for server in fleet.servers}
    as_it_was = {server: as_it_is(fleet, server) for server in fleet.servers}
    assert all(f" {package} " not in text for text in before.values() for package in ("wireguard-tools", "nftables"))
    check = fleet.site("--check", "--diff", ok=False)
    after = {server: untouched(fleet, server) for server in fleet.servers}
    return {
        "as it was": as_it_was,
        "before": before,
        "check": check,
        "after": after,
        "first": fleet.site("--diff"),
        "second": fleet.site(),
    }


def test_a_check_run_on_untouched_hosts_ends_well_and_changes_nothing(fleet, runs):
    assert runs["after"] == runs["before"]
    assert not list(fleet.inventory.glob("group_vars/all/warren_public_keys.yml.*"))
    assert runs["check"].code == 0, runs["check"].text
    for server in fleet.servers:
        assert server in runs["check"].changed


def test_what_is_needed_is_installed_and_no_more_than_that(fleet, runs):
    for server in fleet.servers:
        for command in NEEDED:
            fleet.sh(server, f"command -v {command}")
        new = set(fleet.sh(server, "dpkg-query -W -f '${Package} '").split()) - set(runs["before"][server].split())
        assert {"wireguard-tools", "wireguard-go", "nftables", "iproute2"} <= new
        assert not new & {"openvpn", "haproxy", "linux-image-amd64", "wireguard-dkms", "wireguard"}


def test_the_mesh_is_up_and_a_second_run_changes_nothing(fleet, runs):
    """The minimal hosts have no ping(8); the collection's own is what verify.yml uses."""
    assert runs["second"].changed == {}
    assert {"make link wg0ctl", "make link wg0access"} <= set(runs["first"].actions("ams"))
    fleet.playbook("verify")


# --- what a host is left with

# What a host was before anybody came: kernel settings, users, and files where programs of the collection's could be.
AS_IT_IS = """
import json, pathlib, subprocess
net = pathlib.Path("/proc/sys/net")
def value(path):
    try: return path.read_text()
    except OSError: return ""
settings = {str(path): value(path) for path in sorted(net.rglob("*")) if path.is_file()}
places = "/etc/systemd /etc/sysctl.d /etc/sysusers.d /etc/nftables.d /usr/local".split()
files = [str(path) for place in places for path in pathlib.Path(place).rglob("*")]
files += [str(path) for place in ("/etc", "/usr/lib", "/var/lib") for path in pathlib.Path(place).iterdir()]
owned = subprocess.run(["dpkg", "--search", *files], capture_output=True, text=True).stdout
owned = {line.partition(": ")[2] for line in owned.splitlines()}
users = pathlib.Path("/etc/passwd").read_text() + pathlib.Path("/etc/group").read_text()
links = sorted(path.name for path in pathlib.Path("/sys/class/net").iterdir())
packages = subprocess.run(["dpkg-query", "--show"], capture_output=True, text=True, check=True).stdout
print(json.dumps([settings, sorted(set(files) - owned), users, links, packages]))
"""
# Of packages, and of what comes and goes by itself.
NOT_OURS = re.compile(
    r"/conf/(?!all|default|eth0|lo)|/neigh/|netfilter|/etc/(iproute2|nftables.conf|resolv|.*-$)|dpkg|/apt"
)


def as_it_is(fleet, server):
    """The above, but for what is not ours."""
    settings, files, *rest = json.loads(fleet.python(server, AS_IT_IS))
    settings = {path: text for path, text in settings.items() if not NOT_OURS.search(path)}
    return settings, {path for path in files if not NOT_OURS.search(path)}, *rest


def in_network_of(fleet, server, script):
    """What a shell script prints in a host's network, with the programs of this machine: the host has none."""
    inspect = ["podman", "inspect", "--format", "{{.State.Pid}}", fleet.container(server)]
    pid = subprocess.run(inspect, check=True, capture_output=True, text=True).stdout.strip()
    command = ["nsenter", "--target", pid, "--net", "sh", "-c", script]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_what_leaves_the_fleet_is_as_it_was_before(fleet, runs):
    """A package, rule, table, unit, user or setting that stayed would be found by nobody else."""
    assert runs["second"].changed == {}
    fleet.playbook("remove", "-e", f"remove_servers={','.join(fleet.servers)}")
    for server in fleet.servers:
        settings, files, *rest = as_it_is(fleet, server)
        before = runs["as it was"][server]
        assert settings.items() >= before[0].items(), set(before[0].items()) - set(settings.items())
        assert files - before[1] == set()
        assert tuple(rest) == before[2:]
        rules = in_network_of(fleet, server, "ip rule; ip -6 rule; ip route show table all proto 119; nft list ruleset")
        assert rules == in_network_of(fleet, server, "unshare --net sh -c 'ip rule; ip -6 rule'")
    again = fleet.playbook("remove", "-e", f"remove_servers={','.join(fleet.servers)}")
    assert again.changed == {}


# --- the examples of the roles' own pages

ROLES = Path(__file__).parents[3] / "roles"
EXAMPLE = re.compile(r"^```yaml\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def examples(role):
    """The plays, or the variables, that a role's README shows."""
    return [(text, yaml.safe_load(text)) for text in EXAMPLE.findall((ROLES / role / "README.md").read_text())]


def alone(role):
    """The play of a role's README that has this role alone."""
    (text,) = [text for text, data in examples(role) if isinstance(data, list) and f"warren.vpn.{role}" in text]
    return text


def owners(fleet, server):
    """Whose parts are on record on a server."""
    return [part["owner"] for part in json.loads(fleet.sh(server, "cat /etc/warren/network.json"))["parts"]]


def standing(fleet, server):
    """All that is there of the collection, without when."""
    script = (
        "ip -br link; ip rule; nft -s list ruleset; systemctl list-units --plain --no-legend 'warren*' | cut -d' ' -f1"
    )
    return set(fleet.sh(server, script).splitlines())


def test_each_role_stands_alone_as_its_readme_shows(fleet, runs, tmp_path):
    """One after the other, on hosts with nothing: each brings its part, and touches none that is there."""
    assert runs["second"].changed == {}
    before = {server: set() for server in fleet.servers}
    placed = ["server"]
    for role in ("control_mesh", "access", "multihop", "packet_path", "agent"):
        play = tmp_path / f"{role}.yml"
        play.write_text(alone(role))
        fleet.playbook(str(play))
        placed.append(role)
        for server in fleet.servers:
            assert owners(fleet, server) == placed
            now = standing(fleet, server)
            assert before[server] <= now, f"{role} took away {before[server] - now}"
            assert now > before[server], f"{role} placed nothing"
            before[server] = now
    fleet.settled()
    fleet.playbook("verify")


def test_every_other_play_of_a_readme_runs(fleet, tmp_path):
    plays = [
        text
        for path in sorted(ROLES.glob("*/README.md"))
        for text, data in examples(path.parent.name)
        if isinstance(data, list) and f"warren.vpn.{path.parent.name}" in text and "alone" not in data[0]["name"]
    ]
    assert plays
    for text in plays:
        play = tmp_path / "play.yml"
        play.write_text(text)
        assert fleet.playbook(str(play)).changed == {}


def test_tags_place_the_parts_of_their_roles_alone(fleet):
    for server in fleet.servers:
        fleet.sh(server, "rm /usr/local/sbin/warrenctl")
    with fleet.unattended(*fleet.servers):
        for server in fleet.servers:
            fleet.sh(server, "nft delete table inet warren_control_mesh")
        run = fleet.site("--tags", "control_mesh")
        for server in fleet.servers:
            assert run.actions(server) == ["load nftables table warren_control_mesh"]
        assert fleet.site("--tags", "their_own").changed == {}
    run = fleet.site("--skip-tags", "access,multihop")
    for server in fleet.servers:
        assert "write /usr/local/sbin/warrenctl" in run.actions(server)
        assert not any("link" in action for action in run.actions(server))
    fleet.settled()


def test_a_part_of_ones_own_comes_and_goes_as_the_readme_shows(fleet, tmp_path):
    ((text, data),) = examples("server")
    file = tmp_path / "parts.yml"
    file.write_text(text)
    before = fleet.sh("ams", "cat /proc/sys/net/core/somaxconn")
    shown = fleet.site("-e", f"@{file}", "--diff")
    assert "--- before: nftables table monitoring" in shown.text
    assert "+++ after: /etc/systemd/system/monitoring.service" in shown.text
    assert owners(fleet, "ams")[-1] == data["server_parts"][0]["owner"] == "monitoring"
    assert fleet.sh("ams", "cat /proc/sys/net/core/somaxconn; systemctl is-active monitoring").split() == [
        "8192",
        "active",
    ]
    assert "9100" in fleet.sh("ams", "nft list table inet monitoring")
    assert fleet.site("-e", f"@{file}").changed == {}
    fleet.site()
    assert fleet.sh("ams", "cat /proc/sys/net/core/somaxconn") == before
    assert fleet.try_sh("ams", "systemctl cat monitoring").returncode != 0
    assert "monitoring" not in fleet.sh("ams", "nft list tables")


OWN_LINK = {
    "name": "wgmine",
    "purpose": "control_mesh",
    "public_key": "{{ warren_public_keys[inventory_hostname].control_mesh }}",
    "fwmark": 51,
    "mtu": 1400,
    "addresses": ["192.0.2.1/24"],
    "routes": [
        {"destination": "203.0.113.0/24", "gateway": "192.0.2.9", "source": "192.0.2.1", "metric": 50},
        {"destination": "2001:db8:1::/48", "table": "1234"},
    ],
    "settings": {"ipv4/rp_filter": "2"},
    "peers": [
        {
            "name": "elsewhere",
            "public_key": "6uVDFz8bdfIYJzWWP6o4HtXuxFNqTBtTPYWxCzFSbRk=",
            "endpoint": "elsewhere.example.org:51820",
            "allowed_ips": ["203.0.113.0/24"],
        }
    ],
}
OWN_RULE = {"priority": 3000, "from": "192.0.2.0/24", "to": "203.0.113.0/24", "family": "-4", "table": "1234"}


def test_a_link_of_ones_own_needs_no_port_and_may_have_a_mark_and_a_peer_by_name(fleet):
    name = "sed '/elsewhere/d' /etc/hosts > /tmp/hosts; {}cat /tmp/hosts > /etc/hosts"
    there = "wg show wgmine endpoints | cut -f2"
    fleet.sh("ams", name.format("echo 198.51.100.77 elsewhere.example.org >> /tmp/hosts; "))
    parts = json.dumps({"server_parts": [{"owner": "mine", "links": [OWN_LINK], "rules": [OWN_RULE]}]})
    fleet.site("-e", parts, "--limit", "ams")
    assert fleet.site("-e", parts, "--limit", "ams").changed == {}
    assert fleet.sh("ams", "wg show wgmine fwmark").strip() == "0x33"
    assert int(fleet.sh("ams", "wg show wgmine listen-port")) > 0
    routes = fleet.sh("ams", "ip route show dev wgmine proto 119; ip -6 route show dev wgmine table 1234")
    assert "203.0.113.0/24 via 192.0.2.9 src 192.0.2.1 metric 50" in routes
    assert "2001:db8:1::/48" in routes
    assert "3000:\tfrom 192.0.2.0/24 to 203.0.113.0/24 lookup 1234" in fleet.sh("ams", "ip rule")
    assert fleet.sh("ams", "cat /proc/sys/net/ipv4/conf/wgmine/rp_filter").strip() == "2"
    assert fleet.sh("ams", there).strip() == "198.51.100.77:51820"
    # The name stands for another address, and somebody takes the link away at the same time.
    fleet.sh("ams", name.format("echo 2001:db8::77 elsewhere.example.org >> /tmp/hosts; ") + "; ip link delete wgmine")
    fleet.wait_for(lambda: fleet.try_sh("ams", there).stdout.strip() == "[2001:db8::77]:51820", "it is found", 120)
    fleet.sh("ams", name.format(""))
    fleet.site("--limit", "ams")
    assert "wgmine" not in fleet.sh("ams", "ip -br link")
    assert "3000:" not in fleet.sh("ams", "ip rule")
    assert fleet.try_sh("ams", "systemctl is-active warren-endpoints.timer").stdout.strip() == "inactive"


def test_two_parts_that_want_the_same_are_refused_before_anything_is_changed(fleet):
    parts = json.dumps({"server_parts": [{"owner": "mine", "sysctl": {"net.ipv4.ip_forward": 0}}]})
    run = fleet.site("-e", parts, ok=False)
    assert run.code != 0
    assert "mine and packet_path both declare kernel setting net.ipv4.ip_forward (0, and 1)" in run.failures["ams"]
    fleet.settled()


def test_a_server_without_clients_any_more_loses_what_they_came_by(fleet):
    """It leaves warren_access: the portal, its socket and the interface go; the rest of the part stays."""
    files = [fleet.inventory / name for name in ("hosts.yml", "group_vars/all/fleet.yml")]
    before = [file.read_text() for file in files]
    hosts, settings = (yaml.safe_load(text) for text in before)
    hosts["warren_access"] = {"hosts": {"ams": None}}
    for client in settings["warren_clients"]:
        client["server"] = "ams"
    for file, data in zip(files, (hosts, settings), strict=True):
        file.write_text(yaml.safe_dump(data))
    try:
        run = fleet.site()
        assert {"stop warrend-portal.socket", "remove link wg0access"} <= set(run.actions("fra"))
        left = fleet.sh("fra", "ls /etc/systemd/system /etc/systemd/system/*.wants; ip -br link; ss -Hltn")
        assert "portal" not in left
        assert "wg0access" not in left
        assert "wg0mh " in left
        assert "warrend.service" in left
        fleet.settled()
    finally:
        for file, text in zip(files, before, strict=True):
            file.write_text(text)
    fleet.site()
    fleet.settled()
