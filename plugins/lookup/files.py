# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: files
short_description: Render templates of this collection to files
version_added: 1.0.0
author:
  - The warren.vpn authors (@warren-vpn)
description:
  - Renders templates as P(warren.vpn.template#lookup) does, and says where the files go. A template's path below
    C(templates) is the path on the server.
  - With O(below), takes programs in Python, and the pages that they serve, as they are.
options:
  _terms:
    description: Templates, as C(ROLE/PATH) below the role's C(templates), or directories below the role's C(files).
    type: list
    elements: str
    required: true
  below:
    description: The terms are directories, and the files in them go below this directory of the server.
    type: path
notes:
  - Every other option is a value of that name in the templates. One that is used and not given is an error.
"""

EXAMPLES = r"""
- name: Show a unit
  ansible.builtin.debug:
    msg: "{{ query('warren.vpn.files', 'server/etc/systemd/system/warren-network.service.j2') }}"
"""

RETURN = r"""
_raw:
  description: The files, in the form of the option O(warren.vpn.network#module:files) of M(warren.vpn.network).
  type: list
  elements: dict
  sample: [{path: /etc/systemd/system/warren-network.service, content: "[Unit]"}]
"""

from typing import Any

from ansible.plugins.lookup import LookupBase

from ansible_collections.warren.vpn.plugins.plugin_utils import _templates


class LookupModule(LookupBase):
    """See DOCUMENTATION."""

    def run(self, terms: list[str], variables: object = None, **kwargs: Any) -> list[Any]:  # noqa: ARG002
        """Render each template."""
        terms = [str(term) for term in terms]
        below = kwargs.pop("below", None)
        if below is not None:
            return [
                {"path": f"{below}/{path}", "content": text}
                for term in terms
                for path, text in _templates.tree(term).items()
            ]
        return [{"path": _templates.target(term), "content": _templates.render(term, kwargs)} for term in terms]
