# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Comparing listings of nft, without a host."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.warren.vpn.plugins.module_utils import _host, _nftables

WANTED = """\
table inet warren_t {
\tset live {
\t\ttype ipv4_addr
\t}

\tmap mine {
\t\ttype ipv4_addr : mark
\t\telements = { 10.0.0.1 : 0x00000001 }
\t}

\tchain c {
\t\tip saddr @live jhash ip saddr mod 2 seed 0xdeadbeef vmap { 0 : drop, 1 : accept }
\t}
}
"""


def with_elements(listing: str) -> str:
    """The listing once a program has put elements in its set, on two lines as nft prints many."""
    elements = "\t\ttype ipv4_addr\n\t\telements = { 10.1.0.1, 10.1.0.2,\n\t\t\t     10.1.0.3 }\n"
    return listing.replace("\t\ttype ipv4_addr\n", elements, 1)


def test_elements_of_a_programs_set_are_no_difference() -> None:
    assert with_elements(WANTED) != WANTED
    assert _nftables.comparable(with_elements(WANTED), WANTED) == WANTED


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("10.0.0.1 : 0x00000001", "10.0.0.1 : 0x00000002"),
        ("\t\telements = { 10.0.0.1 : 0x00000001 }\n", ""),
        ("1 : accept", "1 : drop"),
        ("\tchain c", "\tchain d"),
    ],
)
def test_anything_else_is(old: str, new: str) -> None:
    assert _nftables.comparable(WANTED.replace(old, new), WANTED) != WANTED


def test_no_table_is_a_difference() -> None:
    assert _nftables.comparable(None, WANTED) == ""


def test_a_seed_is_not_shown() -> None:
    assert "deadbeef" not in _nftables.redacted(WANTED)
    assert "seed (hidden) vmap" in _nftables.redacted(WANTED)


def test_a_secret_is_made_once_and_on_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_host, "STATE_DIR", tmp_path)
    table = _nftables.Table("warren_t", "table inet warren_t { # @secret:seed@\n}")
    assert "# 0\n" in table.script(create_secrets=False)
    assert not (tmp_path / "secrets").exists()
    script = table.script(create_secrets=True)
    number = int((tmp_path / "secrets/seed").read_text())
    assert f"# {number}\n" in script
    assert (tmp_path / "secrets/seed").stat().st_mode & 0o777 == 0o600
    assert table.script(create_secrets=False) == script
