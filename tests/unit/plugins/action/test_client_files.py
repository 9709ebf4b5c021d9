# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The clients' files: real files in a temporary directory, keys, QR codes read back, and every error by its text."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import segno
from ansible.errors import AnsibleFilterError
from ansible.utils.display import Display

from ansible_collections.warren.vpn.plugins.action.client_files import ActionModule
from ansible_collections.warren.vpn.plugins.filter import client_tunnels
from ansible_collections.warren.vpn.plugins.plugin_utils import _client_codes, _client_files

Run = Callable[..., dict[str, Any]]

AMS_KEY, FRA_KEY = (_client_codes.public_half(_client_codes.make_key()) for _server in "12")
SERVERS = {
    "ams": {
        "name": "ams", "slug": "ams", "label": "Amsterdam", "public_key": AMS_KEY, "endpoint": "198.51.100.11:51820",
    },
    "fra": {
        "name": "fra.example.net", "slug": "fra", "label": "Frankfurt", "public_key": FRA_KEY,
        "endpoint": "198.51.100.12:51820",
    },
}  # fmt: skip


def client(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "addresses": ["10.96.0.9/32", "fd57::9/128"], "server": "ams", **more}


def tunnels(*clients: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"mtu": 1420, "portal": "10.31.33.7", "servers": list(SERVERS.values()), "clients": list(clients), **more}


@pytest.fixture(name="open_umask")
def _open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture(name="run")
def _run(tmp_path: Path, act: Callable[..., dict[str, Any]]) -> Run:
    """Calls the action for clients, or with tunnels of one's own, and returns its result."""

    def run(*clients: dict[str, Any], check: bool = False, **options: Any) -> dict[str, Any]:
        given = {"directory": str(tmp_path / "clients"), "tunnels": tunnels(*clients), **options}
        result = act(ActionModule, given, check)
        shown = json.dumps(result)
        for key in private_keys(tmp_path):
            assert key not in shown
        return result

    return run


def private_keys(directory: Path) -> list[str]:
    return [key for path in directory.glob("**/*.conf") if (key := _client_files.private_key_in(path.read_text()))]


def config(tmp_path: Path, name: str = "alice/ams") -> Path:
    return tmp_path / f"clients/{name}.conf"


def on_terminal(content: str) -> list[str]:
    """The modules of a QR code drawn with half blocks, white on black: a row of 0 (light) and 1 (dark) each."""
    drawn = re.sub(r"\x1b\[[0-9;]*m", "", content).splitlines()
    halves = ("█▀", "█▄")
    rows = ["".join("0" if each in half else "1" for each in line) for line in drawn for half in halves]
    return [row[4:-4] for row in rows[4 : 4 + len(rows[0]) - 8]]


def test_file_for_a_client_without_a_key(run: Run, tmp_path: Path) -> None:
    result = run(client("alice"))
    (private_key,) = private_keys(tmp_path)
    assert config(tmp_path).read_text() == (
        "# warren.vpn: client alice, server Amsterdam\n"
        "# Start it on Linux with `wg-quick up ./ams.conf`, or scan ams.png in the WireGuard app.\n"
        "# Once connected, open http://10.31.33.7/\n"
        "[Interface]\n"
        f"PrivateKey = {private_key}\n"
        "Address = 10.96.0.9/32, fd57::9/128\n"
        "MTU = 1420\n"
        "\n"
        "[Peer]\n"
        f"PublicKey = {AMS_KEY}\n"
        "Endpoint = 198.51.100.11:51820\n"
        "AllowedIPs = 0.0.0.0/0, ::/0\n"
        "PersistentKeepalive = 25\n"
    )
    assert result["public_keys"] == {"alice": _client_codes.public_half(private_key)}
    assert result["changed"]


@pytest.mark.usefixtures("open_umask")
def test_modes_whatever_the_umask(run: Run, tmp_path: Path) -> None:
    run(client("alice"))
    found = {str(path.relative_to(tmp_path)): path.stat().st_mode & 0o7777 for path in tmp_path.glob("**/*")}
    assert found == {
        "clients": 0o700,
        "clients/.gitignore": 0o600,
        "clients/alice": 0o700,
        "clients/alice/ams.conf": 0o600,
        "clients/alice/ams.png": 0o600,
        "clients/alice/ams.txt": 0o600,
    }
    assert (tmp_path / "clients/.gitignore").read_text() == "# Private keys.\n*\n"


def test_qr_codes_say_what_the_file_says(run: Run, tmp_path: Path) -> None:
    run(client("alice"))
    path = config(tmp_path)
    said = "".join(f"{line}\n" for line in path.read_text().splitlines() if line and line[0] != "#")
    code = segno.make_qr(said, error="l", boost_error=False)
    assert on_terminal(path.with_suffix(".txt").read_text()) == ["".join(map(str, row)) for row in code.matrix]
    image = io.BytesIO()
    code.save(image, kind="png", scale=6)
    assert _client_files.stamped(image.getvalue(), path.with_suffix(".txt").read_text(), path.read_text()) == (
        path.with_suffix(".png").read_bytes()
    )


def test_second_run_changes_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = run(client("alice"))["public_keys"]["alice"]
    monkeypatch.setattr(_client_codes, "draw_all", lambda configs: pytest.fail("draws codes again") if configs else [])
    result = run(client("alice", public_key=recorded))
    assert (result["changed"], result["changed_files"], result["public_keys"]) == (False, [], {})
    # A run that was cut off after the files and before the record finds the key pair it made.
    result = run(client("alice"))
    assert (result["changed"], result["public_keys"]) == (False, {"alice": recorded})


def test_files_stay_private_keys_stay_when_the_server_changes(run: Run, tmp_path: Path) -> None:
    recorded = run(client("alice"))["public_keys"]["alice"]
    run(client("alice", public_key=recorded, server="fra.example.net"))
    assert len(set(private_keys(tmp_path))) == 1
    assert f"PublicKey = {FRA_KEY}" in config(tmp_path, "alice/fra").read_text()


def test_further_servers_are_kept_up_to_date(run: Run, tmp_path: Path) -> None:
    recorded = run(client("alice"), client("bob"), servers=["fra.example.net"])["public_keys"]
    assert config(tmp_path, "bob/fra").with_suffix(".png").exists()
    moved = tunnels(*(client(name, public_key=key) for name, key in recorded.items()), mtu=1400)
    result = run(tunnels=moved, only=["bob"])
    assert [Path(path).name for path in result["changed_files"]] == [
        "ams.conf", "ams.png", "ams.txt", "fra.conf", "fra.png", "fra.txt",
    ]  # fmt: skip
    assert "MTU = 1400" in config(tmp_path, "bob/fra").read_text()
    assert "MTU = 1420" in config(tmp_path, "alice/fra").read_text()


def test_dns_and_label_on_one_line(run: Run, tmp_path: Path) -> None:
    server = {**SERVERS["ams"], "label": "Amsterdam\nPostUp = reboot"}
    run(tunnels=tunnels(client("alice"), dns=["9.9.9.9", "2620:fe::fe"], servers=[server]))
    lines = config(tmp_path).read_text().splitlines()
    assert lines[0] == "# warren.vpn: client alice, server Amsterdam PostUp = reboot"
    assert "DNS = 9.9.9.9, 2620:fe::fe" in lines


def test_check_mode_writes_nothing_and_tells_all(run: Run, tmp_path: Path) -> None:
    result = run(client("alice"), check=True)
    assert not (tmp_path / "clients").exists()
    assert (result["changed"], result["public_keys"]) == (True, {"alice": ""})
    names = [Path(path).name for path in result["changed_files"]]
    assert names == ["clients", ".gitignore", "alice", "ams.conf", "ams.png", "ams.txt"]
    assert run(client("alice"))["changed_files"] == result["changed_files"]


def test_diff_hides_the_private_key_and_shows_its_public_half(run: Run, tmp_path: Path) -> None:
    result = run(client("alice"))
    diffs = {Path(each["after_header"]).name: each for each in result["diff"]}
    public_key = result["public_keys"]["alice"]
    assert f"PrivateKey = (hidden, its public key is {public_key})\n" in diffs["ams.conf"]["after"]
    assert diffs["ams.png"]["after"] == "QR code of ams.conf\n"
    config(tmp_path).write_text(config(tmp_path).read_text().replace("MTU = 1420", "MTU = 1300\n  privatekey = x"))
    diffs = {Path(each["after_header"]).name: each for each in run(client("alice"))["diff"]}
    assert "PrivateKey = (hidden)\n" in diffs["ams.conf"]["before"]
    assert "MTU = 1300" in diffs["ams.conf"]["before"]


@pytest.mark.parametrize("drift", ["conf", "png", "txt", "stamp"])
def test_content_that_was_changed_is_mended(run: Run, tmp_path: Path, drift: str) -> None:
    run(client("alice"))
    path = config(tmp_path).with_suffix(f".{'png' if drift == 'stamp' else drift}")
    before = path.read_bytes()
    path.write_bytes(before[:50] + b"?" + before[51:] if drift == "stamp" else before + b"\n")
    result = run(client("alice"))
    assert str(path) in result["changed_files"]
    assert path.read_bytes() == before
    assert not run(client("alice"))["changed"]


def test_modes_that_were_changed_are_mended(run: Run, tmp_path: Path) -> None:
    run(client("alice"))
    paths = [config(tmp_path).parent, config(tmp_path), config(tmp_path).with_suffix(".png")]
    for path in paths:
        path.chmod(0o755)
    assert run(client("alice"), check=True)["changed_files"] == [str(path) for path in paths]
    result = run(client("alice"))
    assert result["diff"][1]["before"] == "mode 0755\n"
    assert result["diff"][1]["after"] == "mode 0600\n"
    assert [path.stat().st_mode & 0o7777 for path in paths] == [0o700, 0o600, 0o600]


def test_client_with_a_key_of_its_own(run: Run, tmp_path: Path) -> None:
    private_key = _client_codes.make_key()
    own = client("office", public_key=_client_codes.public_half(private_key), own_key=True)
    result = run(own)
    path = config(tmp_path, "office/ams")
    assert result["public_keys"] == {}
    assert [each.name for each in path.parent.iterdir()] == ["ams.conf"]
    assert path.read_text().splitlines()[1:5] == [
        "# Start it on Linux with `wg-quick up ./ams.conf`.",
        "# Once connected, open http://10.31.33.7/",
        "[Interface]",
        "# PrivateKey = put yours here",
    ]
    assert not run(own)["changed"]
    path.write_text(path.read_text().replace("# PrivateKey = put yours here", f"PrivateKey = {private_key}"))
    assert run(own)["changed"]
    assert f"PrivateKey = {private_key}\n" in path.read_text()
    assert path.with_suffix(".png").exists()
    assert not run(own)["changed"]


def test_client_that_now_brings_its_own_key(run: Run, tmp_path: Path) -> None:
    run(client("alice"))
    own = client("alice", public_key=_client_codes.public_half(_client_codes.make_key()), own_key=True)
    result = run(own)
    assert private_keys(tmp_path) == []
    assert [path.name for path in config(tmp_path).parent.iterdir()] == ["ams.conf"]
    assert [Path(path).name for path in result["changed_files"]] == ["ams.conf", "ams.png", "ams.txt"]


def test_many_codes_are_drawn_alike() -> None:
    configs = [f"[Interface]\nMTU = {number}\n" for number in range(1400, 1400 + _client_codes.MANY)]
    assert _client_codes.draw_all(configs) == [_client_codes.draw(config) for config in configs]


def test_warnings(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    warned: list[str] = []
    monkeypatch.setattr(Display, "warning", lambda _display, warning: warned.append(warning))
    run(client("alice"), client("old"))
    servers = [SERVERS["ams"], {**SERVERS["fra"], "public_key": None}]
    run(tunnels=tunnels(client("alice"), client("bob", server="fra.example.net"), servers=servers))
    assert warned == [
        "No files for bob: fra.example.net has no public key on record yet. Run again once it is enrolled.",
        f"{tmp_path}/clients has files of old, not in warren_clients. Remove them.",
    ]
    assert not (tmp_path / "clients/bob").exists()


def test_private_key_that_is_lost(run: Run, tmp_path: Path) -> None:
    keys = [_client_codes.public_half(_client_codes.make_key()) for _client in range(2)]
    result = run(client("alice", public_key=keys[0]), client("bob", public_key=keys[1]), client("new"))
    where = f"{tmp_path}/clients"
    assert result["msg"] == "\n".join(
        f"{name}: the private key of the public key on record, {key}, is lost: no .conf file in {where}/{name} has it. "
        f"Restore the file. Or remove {name} from warren_client_keys to make a new pair."
        for name, key in (("alice", keys[0]), ("bob", keys[1]))
    )
    assert not (tmp_path / "clients").exists()


def test_private_key_that_is_another(run: Run, tmp_path: Path) -> None:
    run(client("alice"))
    public_key = _client_codes.public_half(_client_codes.make_key())
    where = f"{tmp_path}/clients/alice"
    assert run(client("alice", public_key=public_key))["msg"] == (
        f"alice: the private key of the public key on record, {public_key}, is lost: {where}/ams.conf has another. "
        f"Restore the file. Or remove alice from warren_client_keys, and {where}, to make a new pair."
    )


def test_private_keys_that_differ(run: Run, tmp_path: Path) -> None:
    run(client("alice"))
    other = config(tmp_path, "alice/home")
    other.write_text(f"[Interface]\nPrivateKey={_client_codes.make_key()}\n")
    assert run(client("alice"))["msg"] == (
        f"alice: {tmp_path}/clients/alice/ams.conf and {other} have different private keys, and no public key is on "
        "record. Remove the file that is not in use."
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"only": ["alcie"]}, "alcie is no client. Did you mean alice?"),
        ({"only": ["zoe"]}, "zoe is no client. There are: alice."),
        ({"servers": ["ems"]}, "ems is no server that accepts clients. Did you mean ams?"),
        ({"servers": ["tokyo"]}, "tokyo is no server that accepts clients. There are: ams, fra.example.net."),
    ],
)
def test_names_that_nobody_has(run: Run, options: dict[str, Any], message: str) -> None:
    assert run(client("alice"), **options)["msg"] == message


def test_directory_that_ansible_would_read(run: Run, tmp_path: Path) -> None:
    result = run(client("alice"), inventory_sources=[str(tmp_path)])
    assert result["msg"] == (
        f"{tmp_path}/clients is inside the inventory directory {tmp_path}: Ansible would read the clients' files as "
        f"inventories, and show private keys. Choose a directory outside, or {tmp_path}/.clients."
    )
    hidden = run(client("alice"), inventory_sources=[str(tmp_path)], directory=str(tmp_path / ".clients"))
    assert hidden["changed"]
    beside = run(client("alice"), inventory_sources=[str(tmp_path / "hosts.yml"), "ams,"])
    assert beside["changed"]


def test_directory_that_cannot_be_written(run: Run, tmp_path: Path) -> None:
    (tmp_path / "clients").write_text("")
    assert run(client("alice"))["msg"] == f"[Errno 17] File exists: '{tmp_path}/clients'"


def test_library_that_is_missing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_client_codes, "MISSING", ["segno"])
    message = run(client("alice"))["msg"]
    assert message.startswith("Failed to import the required Python library (segno) on ")
    assert "This is required to write the clients' files." in message


def test_malformed_private_keys_are_none() -> None:
    for line in ("PrivateKey = abc", "PrivateKey = ", "# PrivateKey = put yours here", "PrivateKey = ä"):
        assert _client_files.private_key_in(f"[Interface]\n{line}\n") == ""


FILTER = client_tunnels.FilterModule().filters()["client_tunnels"]
FLEET = {
    "settings": {"mtu": 1420, "client_dns": ["9.9.9.9"], "portal_address": "10.31.33.7", "access_port": 51820},
    "servers": {
        "ams": {
            "slug": "ams", "label": "Amsterdam", "keys": {"access": AMS_KEY}, "entry4": "198.51.100.11", "access": True,
        },
        "new": {"slug": "new", "label": "new", "keys": {}, "entry4": "198.51.100.12", "access": True},
        "out": {"slug": "out", "label": "out", "keys": {}, "entry4": "198.51.100.13", "access": False},
    },
    "clients": [
        {
            "name": "alice", "public_key": None, "own_key": False, "address4": "10.96.0.9", "address6": "fd57::9",
            "server": "ams",
        }
    ],
}  # fmt: skip


def test_filter_takes_the_tunnels_from_the_fleet() -> None:
    assert FILTER(json.dumps(FLEET)) == {
        "mtu": 1420,
        "dns": ["9.9.9.9"],
        "portal": "10.31.33.7",
        "servers": [
            SERVERS["ams"],
            {"name": "new", "slug": "new", "label": "new", "public_key": None, "endpoint": "198.51.100.12:51820"},
        ],
        "clients": [{**client("alice"), "public_key": None, "own_key": False}],
    }


def test_filter_says_what_it_was_given() -> None:
    with pytest.raises(AnsibleFilterError, match=r"^warren\.vpn\.client_tunnels: no 'settings'"):
        FILTER("{}")
