# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection.
"""Renders templates of the collection's roles with the values they are given and no others.

Ansible's own lookup copies all variables of the host and of the fleet for each template, and compiles it each time.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleLookupError
from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError

# Of a program. What Python leaves beside them when it runs is not.
SOURCES = (".css", ".html", ".js", ".json", ".py", ".svg")

ROLES = Path(__file__).resolve().parents[2] / "roles"


@lru_cache(maxsize=1)
def environment() -> Environment:
    """Jinja as Ansible sets it, which keeps what it compiled for as long as the process lives."""
    return Environment(  # noqa: S701 - no HTML is made here
        loader=FileSystemLoader(ROLES),
        auto_reload=False,
        trim_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
    )


def render(term: str, values: Mapping[str, Any]) -> str:
    """The text of ``ROLE/PATH``, a template below the role's ``templates``."""
    role, _slash, path = term.partition("/")
    try:
        return environment().get_template(f"{role}/templates/{path}").render(values)
    except TemplateError as error:
        raise AnsibleLookupError(f"{term}: {error}") from error


@lru_cache
def tree(term: str) -> dict[str, str]:
    """The text of each file of a program, ``ROLE/DIRECTORY`` below the role's ``files``, by its path there."""
    role, _slash, path = term.partition("/")
    top = ROLES / role / "files"
    files = (file for file in sorted((top / path).rglob("*.*")) if file.suffix in SOURCES)
    return {str(file.relative_to(top)): file.read_text("utf-8") for file in files}


def target(term: str) -> str:
    """Where the file of ``ROLE/PATH`` goes: templates mirror the target path."""
    return term.removesuffix(".j2")[term.index("/") :]
