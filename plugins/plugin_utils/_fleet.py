# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection.
"""What the filters have in common: how they are made of plain functions, how they fail, and the fleet as text.

The fleet, and a link with its peers, travel between plays, roles and hosts as JSON text: Ansible walks through a
structure again and again, in every task of every host, and a text it only hands on.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible.module_utils.basic import missing_required_lib

from . import _addressing

Filter = Callable[..., Any]


def filters(**functions: Filter) -> type:
    """The class that Ansible looks for in a file of filters, which has these functions by their names as filters.

    What a function raises because of what it was given is an error with the filter's name in front.
    """
    made = {name: _adapter(name, function) for name, function in functions.items()}
    return type("FilterModule", (), {"filters": lambda _self: made})


def _adapter(name: str, function: Filter) -> Filter:
    @functools.wraps(function)
    def adapter(*given: Any, **more: Any) -> Any:
        if not _addressing.HAS_NETADDR:
            raise AnsibleFilterError(missing_required_lib("netaddr", reason="to compute addresses"))
        try:
            return function(*given, **more)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            what = f"no {error}" if isinstance(error, KeyError) else error
            raise AnsibleFilterError(f"warren.vpn.{name}: {what}") from error

    return adapter


@functools.lru_cache(maxsize=1)
def load(fleet: str) -> Mapping[str, Any]:
    """The fleet from its JSON. Callers share it and must not change it."""
    try:
        loaded = json.loads(fleet)
    except (TypeError, ValueError) as error:
        raise ValueError("not a fleet as the role validate_inventory makes it") from error
    return dict(loaded)


def of_server(function: Callable[..., Any]) -> Filter:
    """A filter that takes the fleet as JSON, a server's name, and whatever else the function takes."""

    @functools.wraps(function)
    def adapter(fleet: str, server: str, *more: Any, **named: Any) -> Any:
        loaded, name = load(fleet), str(server)
        if name not in loaded.get("servers", {}):
            raise ValueError(f"{name} is not a server of the fleet")
        return function(loaded, name, *more, **named)

    return adapter


def link_of_server(function: Callable[[Mapping[str, Any], str], dict[str, Any]]) -> Filter:
    """A filter like that of :func:`of_server`, which makes a link and returns it as JSON."""
    return of_server(lambda fleet, server: json.dumps(function(fleet, server)))
