# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection.
"""What filters over the fleet have in common.

The fleet, and a link with its peers, travel between plays, roles and hosts as JSON text: Ansible walks through a
structure again and again, in every task of every host, and a text it only hands on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from ansible.errors import AnsibleFilterError


@lru_cache(maxsize=1)
def load(fleet: str) -> Mapping[str, Any]:
    """The fleet from its JSON. Callers share it and must not change it."""
    loaded: Mapping[str, Any] = json.loads(fleet)
    return loaded


def of_server(function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that takes the fleet as JSON, a server's name, and whatever else the function takes."""

    def adapter(fleet: str, server: str, *more: Any) -> Any:
        try:
            return function(load(fleet), str(server), *more)
        except KeyError as error:
            raise AnsibleFilterError(f"{server} is not a server of the fleet: no {error}") from error
        except (TypeError, ValueError) as error:
            raise AnsibleFilterError(str(error)) from error

    return adapter


def link_of_server(function: Callable[[Mapping[str, Any], str], dict[str, Any]]) -> Callable[[str, str], str]:
    """A filter like that of :func:`of_server`, which makes a link and returns it as JSON."""
    return of_server(lambda fleet, server: json.dumps(function(fleet, server)))
