#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: record
short_description: Note values in a variables file beside the inventory
version_added: 1.0.0
author:
  - The warren.vpn authors (@warren-vpn)
description:
  - Merges values into one variable of a YAML file that the collection writes and people may read, such as the public
    keys of servers. It runs where the inventory is, on the controller.
attributes:
  check_mode:
    support: full
    description: Writes nothing.
  diff_mode:
    support: full
    description: Shows the file before and after.
  idempotent:
    support: full
    description: The same values give the same file.
options:
  path:
    description:
      - The file, in a C(group_vars) directory.
      - An error if C(all.yml) stands beside its directory C(all), for Ansible would then ignore the former.
    type: path
    required: true
  variable:
    description: The variable in it.
    type: str
    required: true
  values:
    description: What to merge into the variable. Dictionaries in it are merged one level down as well.
    type: dict
    required: true
  prune:
    description: Keys that go.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Note a public key
  warren.vpn.record:
    path: "{{ inventory_dir }}/group_vars/all/warren_public_keys.yml"
    variable: warren_public_keys
    values:
      ams:
        control_mesh: 6uVDFz8bdfIYJzWWP6o4HtXuxFNqTBtTPYWxCzFSbRk=
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
path:
  description: The file.
  returned: always
  type: str
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

from ansible_collections.warren.vpn.plugins.module_utils import _host

try:
    import yaml
except ImportError:
    HAS_YAML = False
else:
    HAS_YAML = True

HEADER = "---\n# Written by warren.vpn. Public: commit it with the inventory.\n"


def merged(old: dict, values: dict, prune: list) -> dict:
    """The variable with the values in it; what it has of a key that both have as a dictionary stays."""
    new = dict(old)
    for key, value in values.items():
        both = isinstance(value, dict) and isinstance(old.get(key), dict)
        new[key] = {**old[key], **value} if both else value
    return {key: value for key, value in new.items() if key not in prune}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "variable": {"type": "str", "required": True},
            "values": {"type": "dict", "required": True},
            "prune": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    if not HAS_YAML:
        module.fail_json(msg=missing_required_lib("PyYAML"))
    path = Path(module.params["path"])
    for suffix in (".yml", ".yaml", ".json"):
        beside = path.parent.with_suffix(suffix)
        if beside.is_file():
            module.fail_json(
                msg=f"{beside} would be ignored by Ansible once {path.parent} exists. "
                f"Move it to {path.parent}/main{suffix}"
            )
    variable = module.params["variable"]
    before = _host.read(path) or ""
    try:
        old = yaml.safe_load(before) or {}
        new = merged(old.get(variable) or {}, module.params["values"], module.params["prune"])
    except (yaml.YAMLError, AttributeError) as error:
        module.fail_json(msg=f"{path} is not what the collection writes, mend or remove it: {error}")
    after = HEADER + yaml.safe_dump({variable: new}, width=200)
    changed = before != after and bool(new or before)
    if changed and not module.check_mode:
        _host.write(path, after, 0o644)
    header = str(path)
    module.exit_json(
        changed=changed,
        path=header,
        diff={"before": before, "after": after if changed else before, "before_header": header, "after_header": header},
    )


if __name__ == "__main__":
    main()
