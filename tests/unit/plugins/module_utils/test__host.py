# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Commands, files and kernel settings."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from ansible_collections.warren.vpn.plugins.module_utils import _host, _sysctl


def test_a_file_is_replaced_whole_with_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    _host.write(path, "one\n")
    assert _host.in_place(path, "one\n")
    path.chmod(0o644)
    assert not _host.in_place(path, "one\n")
    _host.write(path, "two\n")
    assert path.read_text() == "two\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    _host.write(path, "old\n")
    with pytest.raises(TypeError):
        _host.write(path, b"not text")  # type: ignore[arg-type]
    assert path.read_text() == "old\n"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_failing_command_says_what_it_said() -> None:
    with pytest.raises(_host.NetworkError, match=r"^sh -c echo no >&2; exit 3 failed: no$"):
        _host.run(["sh", "-c", "echo no >&2; exit 3"])


def test_a_missing_command_is_named() -> None:
    with pytest.raises(_host.NetworkError, match="no-such-command is not installed on this host"):
        _host.run(["no-such-command"])
    assert _host.missing_packages({"sh": "dash", "no-such-command": "no-such-package"}) == ["no-such-package"]


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
        ("net/ipv4/conf/eth0.5/rp_filter", "net/ipv4/conf/eth0.5/rp_filter"),
    ],
)
def test_where_a_setting_is(key: str, path: str) -> None:
    assert _sysctl.path(key) == _sysctl.PROC_SYS / path
