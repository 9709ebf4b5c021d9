"""The built collection, installed in an empty directory outside the checkout and used from there by its full name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def user(fleet, tmp_path_factory):
    """What a user does, who has ansible-core, a tarball and an inventory: a function that runs a command."""
    build, home = tmp_path_factory.mktemp("build"), tmp_path_factory.mktemp("user")
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=fleet.root, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    for name in filter(None, listing.split("\0")):
        if (fleet.root / name).is_file():
            (build / name).parent.mkdir(parents=True, exist_ok=True)
            (build / name).write_bytes((fleet.root / name).read_bytes())
    env = {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "ANSIBLE_COLLECTIONS_PATH": str(home / "collections"),
    }

    def run(*command, ok=True):
        done = subprocess.run(
            command, cwd=home, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0 or not ok, done.stdout + done.stderr
        return done.stdout

    run("ansible-galaxy", "collection", "build", "--output-path", str(home), str(build))
    (tarball,) = home.glob("warren-vpn-*.tar.gz")
    run("ansible-galaxy", "collection", "install", "--offline", "-p", "collections", str(tarball))
    return lambda name, *arguments: run(
        "ansible-playbook", "-i", str(fleet.inventory), *arguments, f"warren.vpn.{name}"
    )


def test_site_makes_a_mesh_and_runs_again_without_a_change(user, fleet):
    assert "failed=0" in user("site")
    recap = user("site").split("PLAY RECAP")[1]
    assert recap.count("changed=0") == recap.count("changed=") > 1
    fleet.wait_for(lambda: fleet.answers("ams", fleet.control("fra"), 1), "the mesh is up")


def test_nothing_came_from_the_checkout(user, fleet):
    shown = user("validate", "-vvvv")
    # The inventory, the way to the hosts, and Ansible itself.
    for known in (fleet.inventory, fleet.root / ".lab", fleet.root / ".venv"):
        shown = shown.replace(str(known), "")
    assert str(fleet.root) not in shown


def test_status_and_verify(user):
    text = user("status", "-e", "output=json")
    assert (
        json.loads(next(line for line in text.splitlines() if line.startswith("{")))["ams"]["links"]["wg0ctl"]["alive"]
        == 1
    )
    assert "failed=0" in user("verify")


def test_clients_get_their_files(user, fleet):
    user("clients")
    for name, server in (("alice", "ams"), ("bob", "fra")):
        for suffix in ("conf", "png", "txt"):
            file = fleet.inventory / f".clients/{name}/{server}.{suffix}"
            assert file.stat().st_mode & 0o777 == 0o600
            assert file.stat().st_size > 100
