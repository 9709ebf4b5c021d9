# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection.
"""What filters over the fleet have in common."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError


def of_server(function: Callable[[dict[str, Any], str], Any]) -> Callable[[str, str], Any]:
    """A filter that takes the fleet as JSON and a server's name.

    The fleet travels as text because a large structure among the facts costs every task of every host.
    """

    def adapter(fleet: str, server: str) -> Any:
        try:
            return function(json.loads(fleet), str(server))
        except KeyError as error:
            raise AnsibleFilterError(f"{server} is not a server of the fleet: no {error}") from error
        except (TypeError, ValueError) as error:
            raise AnsibleFilterError(str(error)) from error

    return adapter
