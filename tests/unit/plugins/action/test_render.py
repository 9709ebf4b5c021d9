"""playbooks/render.yml, run as an operator runs it: on an inventory, with no host to reach."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ansible_collections.warren.vpn.plugins.plugin_utils import _contents

COLLECTIONS = Path(_contents.__file__).parents[5]
PROGRAM = Path(sys.executable).parent / "ansible-playbook"
SECRET = "a secret that is long enough for a fleet"


def key(number: int) -> str:
    return base64.b64encode(bytes([number]) * 32).decode()


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    """Three servers that cannot be reached, with their keys on record."""
    hosts = {
        f"s{number}": {
            "ansible_ssh_executable": "/bin/false",
            "server_id": number,
            "server_entry_addresses": [f"198.51.100.{number}"],
            "server_exit_addresses": [f"198.51.100.{number + 100}"],
        }
        for number in (1, 2, 3)
    }
    shared = {
        "warren_fleet_secret": SECRET,
        "warren_clients": [{"name": "alice", "public_key": key(99)}],
        "warren_public_keys": {
            f"s{number}": {"control_mesh": key(number), "multihop": key(number + 20), "access": key(number + 10)}
            for number in (1, 2, 3)
        },
    }
    access = {"hosts": {"s1": None, "s2": None}}
    directory = tmp_path / "inventory"
    (directory / "group_vars").mkdir(parents=True)
    (directory / "hosts.json").write_text(json.dumps({"warren_servers": {"hosts": hosts}, "warren_access": access}))
    (directory / "group_vars/all.json").write_text(json.dumps(shared))
    return directory


def render(inventory: Path, into: Path, *more: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    env["ANSIBLE_COLLECTIONS_PATH"] = str(COLLECTIONS)
    command = [PROGRAM, "-i", inventory, "warren.vpn.render", "-e", f"render_dir={into}", *more]
    return subprocess.run(command, cwd=inventory, env=env, capture_output=True, text=True, check=False)


def test_every_server_of_the_run_gets_all_its_files(inventory: Path, tmp_path: Path) -> None:
    done = render(inventory, tmp_path / "all", "-vvv", "--diff")
    assert done.returncode == 0, done.stdout + done.stderr
    tables, units = "etc/warren/nftables.d", "etc/systemd/system"
    common = {
        "etc/sysctl.d/60-warren.conf", "etc/sysusers.d/warrend.conf", "etc/warren/agent.json",
        "etc/warren/clients.json", "etc/warren/network.json", f"{tables}/warren_control_mesh.nft",
        f"{tables}/warren_path.nft", f"{units}/warren-endpoints.service", f"{units}/warren-endpoints.timer",
        f"{tables}/warren_wireguard.nft", f"{units}/warrend-restore.socket", f"{units}/warrend-restore@.service",
        f"{units}/nftables.service.d/warren.conf", f"{units}/warren-network.service",
        f"{units}/warren-shutdown.service", f"{units}/warren-wireguard-go@.service", f"{units}/warrend-backend.socket",
        f"{units}/warrend-control.socket", f"{units}/warrend-handshakes.socket",
        f"{units}/warrend-handshakes@.service", f"{units}/warrend.service", "usr/local/sbin/warrenctl",
    }  # fmt: skip
    for server in ("s1", "s2", "s3"):
        top = tmp_path / "all" / server
        found = {str(path.relative_to(top)) for path in top.rglob("*") if path.is_file()}
        assert found - {f"{units}/warrend-portal.socket"} == common
        assert (server == "s3") == (found == common), "access is for its group only"
        assert (top / "etc/warren/network.json").stat().st_mode & 0o777 == 0o600
    recorded = json.loads((tmp_path / "all/s1/etc/warren/network.json").read_text())
    assert [part["owner"] for part in recorded["parts"]] == [
        "server", "control_mesh", "access", "multihop", "packet_path", "agent",
    ]  # fmt: skip
    mesh_link, access_link, arriving, *leaving = [link for part in recorded["parts"] for link in part.get("links", [])]
    assert [peer["name"] for peer in mesh_link["peers"]] == ["s2", "s3"]
    assert [peer["name"] for peer in access_link["peers"]] == ["alice"]
    assert [peer["name"] for peer in arriving["peers"]] == ["s2", "s3"]
    assert [link["name"] for link in leaving] == ["wg0mh-r2", "wg0mh-r3"]
    screen = done.stdout + done.stderr
    assert all(peer["preshared_key"] not in screen for peer in mesh_link["peers"])
    assert SECRET not in screen


def test_a_limited_run_renders_the_same(inventory: Path, tmp_path: Path) -> None:
    render(inventory, tmp_path / "all")
    assert render(inventory, tmp_path / "one", "--limit", "s2").returncode == 0
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["s2"]
    one, same = (tmp_path / top / "s2/etc/warren/network.json" for top in ("one", "all"))
    assert one.read_text() == same.read_text()


def test_what_is_there_is_not_mixed_with_the_render(inventory: Path, tmp_path: Path) -> None:
    (tmp_path / "old/gone").mkdir(parents=True)
    done = render(inventory, tmp_path / "old")
    assert done.returncode
    assert "is there already. Name a directory that is new or empty." in done.stdout + done.stderr


def test_check_mode_writes_nothing(inventory: Path, tmp_path: Path) -> None:
    assert render(inventory, tmp_path / "none", "--check").returncode == 0
    assert not (tmp_path / "none").exists()


def test_a_server_without_a_key_on_record_is_named(inventory: Path, tmp_path: Path) -> None:
    path = inventory / "group_vars/all.json"
    shared = json.loads(path.read_text())
    del shared["warren_public_keys"]["s3"]
    path.write_text(json.dumps(shared))
    done = render(inventory, tmp_path / "new")
    assert done.returncode
    assert "No public key on record: s3. Run site.yml with these hosts" in done.stdout + done.stderr
