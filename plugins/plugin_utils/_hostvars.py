# Copyright (c) 2026 the warren.vpn authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Gets plain data out of hostvars, cheaply enough for thousands of hosts. Private to the collection."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ansible.errors import AnsibleError
from jinja2.exceptions import TemplateError

from ansible_collections.warren.vpn.plugins.plugin_utils._problems import Unreadable

FLEET_WIDE = "warren_"


class _Template(Exception):
    """A value that has to be rendered first."""


def host_variables(hostvars: Any, names: Collection[str], wanted: Collection[str]) -> dict[str, dict[str, object]]:
    """The variables of each of ``names``: those ``wanted`` rendered, as plain types, the others by name only.

    One that cannot be rendered is ``Unreadable``.

    Ansible puts all variables of a host together each time that hostvars is asked for it (about a millisecond), and
    rendering a list of thousands of clients takes far longer. So each host is asked once, only templates are
    rendered, and a value of the fleet that many hosts share is rendered once.
    """
    shared: dict[tuple[str, int], tuple[object, object]] = {}
    return {name: _Host(hostvars, name, shared).variables(wanted) for name in names}


class _Host:
    def __init__(self, hostvars: Any, name: str, shared: dict[tuple[str, int], tuple[object, object]]) -> None:
        self.hostvars, self.name, self.shared = hostvars, name, shared
        self.raw: Mapping[str, Any] = getattr(hostvars, "raw_get", hostvars.__getitem__)(name)
        self.rendered: Mapping[str, Any] | None = None

    def variables(self, wanted: Collection[str]) -> dict[str, object]:
        return {str(name): self.read(name) if name in wanted else None for name in self.raw}

    def read(self, name: str) -> object:
        raw = self.raw[name]
        if not name.startswith(FLEET_WIDE):
            return self.plain(name, raw)
        key = (name, id(raw))
        if key not in self.shared:
            self.shared[key] = (raw, self.plain(name, raw))  # raw is kept, so its id() stays its own
        return self.shared[key][1]

    def plain(self, name: str, raw: object) -> object:
        try:
            try:
                return plain_data(raw, rendered=False)
            except _Template:
                self.rendered = self.rendered or self.hostvars[self.name]
                return plain_data(self.rendered[name], rendered=True)
        except (AnsibleError, TemplateError, TypeError, ValueError) as error:
            return Unreadable(" ".join(str(error).split()))


def plain_data(value: Any, rendered: bool = True) -> Any:
    """``value`` without tags and lazy containers, which are subclasses of the plain types or look like them.

    Unless it is ``rendered`` already, text that is a template raises ``_Template``.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        if not rendered and any(mark in value for mark in ("{{", "{%", "{#")):
            raise _Template
        return str.__str__(value)
    for kind in (int, float):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, Mapping):
        return {plain_data(key, rendered): plain_data(item, rendered) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_data(item, rendered) for item in value]
    return str(value)  # a vaulted value, which this decrypts, or a date
