# Copyright (c) 2026 the warren.vpn authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The description of the portal's API (OpenAPI 3.1), made of the table in ``routes.py``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .portal_guard import CHANGES_A_SECOND, CHANGES_AT_ONCE, REQUESTS_A_SECOND, REQUESTS_AT_ONCE
from .routes import OPERATIONS, PORT, SCHEMAS, Field, Operation

TYPES = {str: "string", int: "integer"}
A_SECOND = {1: "one"}

DESCRIPTION = (
    "How a client of this server leaves for the internet, and the ports forwarded to it. Served inside the tunnel, to "
    "clients only; the client is known by its tunnel address. What changes something is sent as application/json. A "
    "refusal is JSON that says why, unless what was sent is no HTTP that the server knows. At most "
    f"{REQUESTS_AT_ONCE} requests at once and {REQUESTS_A_SECOND} a second, {CHANGES_AT_ONCE} changes at once and "
    f"{A_SECOND.get(CHANGES_A_SECOND, CHANGES_A_SECOND)} a second."
)

REFUSED = {
    "description": "Nothing was changed, unless the reason is away: then the client's traffic is blocked until the "
    "exit answers, or until multihop is disabled; or internal: then ask for the status",
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Refusal"}}},
}


def document() -> dict[str, Any]:
    """The whole of it."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": "The portal of warren.vpn", "version": "1.0.0", "description": DESCRIPTION},
        "paths": paths,
        "components": {"responses": {"Refused": REFUSED}, "schemas": SCHEMAS},
    }


def _operation(operation: Operation) -> dict[str, Any]:
    status, words = operation.done
    answer: dict[str, Any] = {"description": words}
    if operation.answer is not None:
        answer["content"] = {"application/json": {"schema": operation.answer}}
    statuses = sorted({refusal.status for refusal in operation.all_refusals})
    refused = {str(each): {"$ref": "#/components/responses/Refused"} for each in statuses}
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "responses": {str(status): answer, **refused},
    }
    if operation.fields is not None:
        schema = _body(operation.fields)
        described["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": PORT}
        for name in re.findall(r"{(\w+)}", operation.path)
    ]
    return {**described, "parameters": parameters} if parameters else described


def _body(fields: Mapping[str, Field]) -> dict[str, Any]:
    schema: dict[str, Any] = {
        "type": "object",
        "additionalProperties": False,
        "properties": {name: _field(each) for name, each in fields.items()},
    }
    required = [name for name, each in fields.items() if each.required]
    return {**schema, "required": required} if required else schema


def _field(of: Field) -> dict[str, Any]:
    kind = TYPES[of.kind]
    described: dict[str, Any] = {"type": kind if of.required else [kind, "null"]}
    return {**described, "description": of.description} if of.description else described
