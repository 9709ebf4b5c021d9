# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: template
short_description: Render a template of this collection with the values it is given
version_added: 1.0.0
author:
  - The warren.vpn authors (@warren-vpn)
description:
  - Renders a template of one of the collection's roles from any role, with the values that it is given and no others.
  - P(ansible.builtin.template#lookup) copies all variables of the host and of the fleet for each template, which costs
    more the larger the fleet is.
options:
  _terms:
    description: Templates, as C(ROLE/PATH) below the role's C(templates).
    type: list
    elements: str
    required: true
notes:
  - Every other option is a value of that name in the template. One that is used and not given is an error.
  - Filters and tests are those of Jinja itself.
"""

EXAMPLES = r"""
- name: Show a table of this server
  ansible.builtin.debug:
    msg: >-
      {{ lookup('warren.vpn.template', 'control_mesh/etc/warren/nftables.d/warren_control_mesh.nft.j2',
         server=warren_fleet | warren.vpn.view(inventory_hostname, 'control_mesh'), tcp_ports=[]) }}
"""

RETURN = r"""
_raw:
  description: The rendered text, one for each template.
  type: list
  elements: str
"""

from typing import Any

from ansible.plugins.lookup import LookupBase

from ansible_collections.warren.vpn.plugins.plugin_utils import _templates


class LookupModule(LookupBase):
    """See DOCUMENTATION."""

    def run(self, terms: list[str], variables: object = None, **kwargs: Any) -> list[Any]:  # noqa: ARG002
        """Render each template."""
        return [_templates.render(str(term), kwargs) for term in terms]
