"""From a Debian with nothing but Python and SSH to a mesh: the roles install what they need."""

from __future__ import annotations

import pytest

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
    assert all(f" {package} " not in text for text in before.values() for package in ("wireguard-tools", "nftables"))
    check = fleet.site("--check", "--diff", ok=False)
    after = {server: untouched(fleet, server) for server in fleet.servers}
    return {"before": before, "check": check, "after": after, "first": fleet.site("--diff"), "second": fleet.site()}


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
