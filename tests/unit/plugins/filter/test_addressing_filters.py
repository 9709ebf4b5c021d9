# Copyright (c) 2026 the warren.vpn authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The adapters over _addressing: values, and errors as Ansible wants them."""

from __future__ import annotations

import importlib

import pytest
from ansible.errors import AnsibleFilterError

CASES = [
    ("control_address", (3, "10.77.0.0/24"), "10.77.0.3", (255, "10.77.0.0/24"), "server id 255 does not fit in"),
    ("link_interface", (3,), "wg0mh-r3", (0,), "server id 0 is not between"),
    ("link_port", (3, 21000), 21003, (3, "21000"), "link_port: "),
    ("link_table", (3,), 100003, ("3",), "a server id is a whole number: '3'"),
    ("link_mark", (3,), 0x70000003, (-1,), "server id -1 is not between"),
    ("session_prefix", (7, "10.1.0.0/16", 24), "10.1.7.0/24", (7, "10.1.0.0/16", 8), "10.1.0.0/16 cannot be cut in /8"),
    ("client_address", ("x", "10.0.0.0/30"), "10.0.0.2", ("x", "10.0.0.0"), "client prefix 10.0.0.0 has no room"),
    ("access_address", ("10.96.0.0/11",), "10.96.0.1", ("nope",), "not a network prefix: 'nope'"),
]


def load(name: str):  # type: ignore[no-untyped-def]
    module = importlib.import_module(f"ansible_collections.warren.vpn.plugins.filter.{name}")
    return module.FilterModule().filters()[name]


@pytest.mark.parametrize(("name", "good", "expected", "bad", "message"), CASES)
def test_adapter(name: str, good: tuple, expected: object, bad: tuple, message: str) -> None:
    assert load(name)(*good) == expected
    with pytest.raises(AnsibleFilterError, match=f"warren.vpn.{name}: .*") as caught:
        load(name)(*bad)
    assert message in str(caught.value)
