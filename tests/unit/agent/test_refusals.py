"""The one list of what is refused, and the one table of what programs can ask the portal for."""

from __future__ import annotations

import ast
import http
import re
import string
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import AGENT
from fleets import config
from warrend import refusals
from warrend.portal_api import Api
from warrend.refusals import AwayError, Refusal, RefusedError
from warrend.routes import OPERATIONS

REFUSALS = {name: each for name, each in vars(refusals).items() if isinstance(each, Refusal)}


@pytest.mark.parametrize("name", REFUSALS)
def test_each_has_a_code_a_status_and_words(name: str) -> None:
    refusal = REFUSALS[name]
    values = {field for text in (refusal.code, refusal.words, refusal.for_clients) for field in fields_of(text)}
    error = RefusedError(refusal, **dict.fromkeys(values, "x"))
    assert re.fullmatch(r"[a-z_0-9]+", error.reason)
    assert 400 <= http.HTTPStatus(error.status) < 500 or error.status in (500, 503)
    assert "{" not in str(error) + error.for_client
    assert error.for_client


def fields_of(text: str) -> set[str]:
    return {field for _text, field, _format, _conversion in string.Formatter().parse(text) if field}


def test_what_is_said_to_clients_names_nobody() -> None:
    assert not [r for r in REFUSALS.values() if "client" in fields_of(r.for_clients)]
    error = AwayError(refusals.AWAY, why="nyc does not answer")
    assert "nyc" in str(error)
    assert "nyc" not in error.for_client


def test_each_is_used_and_nothing_else_is_refused() -> None:
    """Nobody makes a refusal of his own, but for what aiohttp refuses by itself."""
    used: set[str] = set()
    for path in (AGENT / "warrend").glob("*.py"):
        names = [node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)]
        if path.name != "refusals.py":
            used |= set(names)
            assert names.count("Refusal") <= (path.name in ("portal_guard.py", "routes.py")) * 2, path
    assert not REFUSALS.keys() - used


def test_the_server_has_all_operations_of_the_table_and_no_other() -> None:
    nothing: Any = SimpleNamespace()
    api = Api(config(), nothing, nothing, nothing)
    assert api._methods.keys() == {operation.name for operation in OPERATIONS}  # noqa: SLF001 - a table of its own
    assert len({(operation.method, operation.path) for operation in OPERATIONS}) == len(OPERATIONS)


def test_no_description_is_typed_by_hand() -> None:
    assert [path.name for path in Path(AGENT, "warrend").glob("*.json")] == ["backend.json"]
