# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection.
"""What a role declares for a host, without a play that has the role.

A role declares a part in its variable ``<role>_part``. Its defaults and variables are read here as Ansible reads them
for a play, so which roles a host has is a question for the table of kinds, and no playbook has a list of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleLookupError

ROLES = Path(__file__).resolve().parents[2] / "roles"


def part_of(role: str, variables: Mapping[str, Any], loader: Any, templar: Any) -> dict[str, Any]:
    """The part that a role of this collection declares, with the role as its owner.

    Args:
        role: its short name.
        variables: those of the host.
        loader: Ansible's ``DataLoader``.
        templar: Ansible's ``Templar``.

    Raises:
        AnsibleLookupError: there is no such role, or it declares nothing.
    """
    defaults, own = (_read(loader, ROLES / role / where / "main.yml") for where in ("defaults", "vars"))
    name = f"{role}_part"
    if name not in own:
        raise AnsibleLookupError(f"{role}: no role of warren.vpn that declares a part ({ROLES / role}/vars/main.yml)")
    # As in a play: the inventory stands over a role's defaults, and a role's own variables over the inventory.
    inside = templar.copy_with_new_env(available_variables={**defaults, **variables, **own})
    return {**inside.template(own[name]), "owner": role}


def _read(loader: Any, path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    return loader.load_from_file(str(path), trusted_as_template=True) or {}
