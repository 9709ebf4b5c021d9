# Copyright (c) 2026 the warren.vpn authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The portal's API in one table: the server routes by it and checks what is sent; ``openapi.py`` describes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .refusals import (
    AWAY,
    BROKEN_BODY,
    DISK,
    FOREIGN_PAGE,
    HAS_CHOICE,
    HAS_SESSION,
    INTERNAL,
    NO_FORWARD,
    NO_JSON,
    NO_PORT,
    NO_PORT_IS_FREE,
    NOT_CONNECTED,
    POOL_IS_FULL,
    PORT_IS_TAKEN,
    PORT_OUT_OF_RANGE,
    SLOW,
    TOO_LARGE,
    TOO_MANY_FORWARDS,
    TOO_OFTEN,
    UNKNOWN_ADDRESS,
    UNKNOWN_EXIT,
    WRONG_HOST,
    WRONG_OBJECT,
    Refusal,
)

ALWAYS = (WRONG_HOST, FOREIGN_PAGE, NOT_CONNECTED, TOO_OFTEN, INTERNAL)
"""What any operation may be refused for."""

OF_A_CHANGE = (BROKEN_BODY, SLOW, TOO_LARGE)
"""What any change may be refused for."""

OF_JSON = (NO_JSON, WRONG_OBJECT)
"""What any change may be refused for that has to be sent as JSON."""


@dataclass(frozen=True)
class Field:
    """A value of the JSON object that is sent.

    Attributes:
        kind: ``str`` or ``int``.
        required: whether it has to be there; one that need not be there may also be null.
        description: for people.
    """

    kind: type
    required: bool = False
    description: str = ""


@dataclass(frozen=True)
class Operation:
    """Something that programs of clients can ask for.

    Attributes:
        name: of the method of ``portal_api.Api``, and for programs (``operationId``).
        method, path: of HTTP; a path may have ``{port}`` in it.
        summary: for people.
        answer: the JSON schema of the answer; None if there is nothing to say.
        done: the status of HTTP with which it is done, and that in words.
        fields: of the JSON object that is sent; None if none is.
        refusals: what it may be refused for, besides what any operation of its kind may.
    """

    name: str
    method: str
    path: str
    summary: str
    answer: Mapping[str, Any] | None
    done: tuple[int, str] = (200, "Done")
    fields: Mapping[str, Field] | None = None
    refusals: tuple[Refusal, ...] = field(default=())

    @property
    def all_refusals(self) -> tuple[Refusal, ...]:
        """All that it may be refused for."""
        of_a_change = OF_A_CHANGE if self.method != "GET" else ()
        return (*ALWAYS, *of_a_change, *(OF_JSON if self.fields is not None else ()), *self.refusals)


def _schema(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _list_of(items: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _object(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "required": list(properties), "properties": properties}


IPV4 = {"type": "string", "format": "ipv4"}
IPV6 = {"type": "string", "format": "ipv6"}
IPV6_OR_NONE = {"type": ["string", "null"], "format": "ipv6"}
PORT = {"type": "integer", "minimum": 1, "maximum": 65535}

SCHEMAS = {
    "Refusal": _object(
        {
            "error": {"type": "string", "description": "for people: what to do"},
            "reason": {"type": "string", "description": "for programs"},
        }
    ),
    "Status": _object(
        {
            "entry": {"type": "string"},
            "entry_label": {"type": "string"},
            "exit": {"type": "string"},
            "exit_label": {"type": "string"},
            "state": {
                "enum": ["default", "chosen", "held", "active", "silent", "blocked"],
                "description": "default and chosen: leaves from the entry. active: by the exit. silent: by the exit, "
                "which has not answered lately. held: is about to. blocked: the exit does not answer, and nothing "
                "leaves but answers on forwarded ports.",
            },
            "exit4": {
                "type": ["string", "null"],
                "format": "ipv4",
                "description": "as whom the internet sees the client; null where that is not known yet, or there is "
                "no way",
            },
            "exit6": IPV6_OR_NONE,
            "ipv6": {"type": "boolean", "description": "whether the exit has IPv6"},
        }
    ),
    "Exit": _object(
        {
            "exit": {"type": "string"},
            "label": {"type": "string"},
            "region": {"type": "string"},
            "reachable": {"type": "boolean"},
            "round_trip_ms": {"type": ["number", "null"], "description": "between the two servers"},
            "ipv6": {"type": "boolean"},
        }
    ),
    "Forward": _object(
        {
            "port": PORT,
            "entry4": IPV4,
            "entry6": IPV6_OR_NONE,
            "since": {"type": "number", "description": "Unix time"},
        }
    ),
}

STATUS = _schema("Status")

OPERATIONS = (
    Operation("status", "GET", "/api/status", "How the client leaves", STATUS),
    Operation("exits", "GET", "/api/exits", "The servers that the client can leave by", _list_of(_schema("Exit"))),
    Operation(
        "enableMultihop",
        "PUT",
        "/api/multihop",
        "Leave by another server; answered once that server has agreed",
        STATUS,
        fields={"exit": Field(str, required=True, description="one of /api/exits")},
        refusals=(UNKNOWN_EXIT, HAS_CHOICE, POOL_IS_FULL, DISK, AWAY),
    ),
    Operation("disableMultihop", "DELETE", "/api/multihop", "Leave from this server again", STATUS),
    Operation(
        "exitAddresses",
        "GET",
        "/api/exit-addresses",
        "The exit addresses of this server",
        _object({"exit4": _list_of(IPV4), "exit6": _list_of(IPV6)}),
    ),
    Operation(
        "chooseExitAddresses",
        "PUT",
        "/api/exit-addresses",
        "Leave from one of this server's exit addresses; a family that is left out, or null, has its default",
        STATUS,
        fields={"exit4": Field(str), "exit6": Field(str)},
        refusals=(UNKNOWN_ADDRESS, HAS_SESSION, DISK),
    ),
    Operation(
        "forgetExitAddresses",
        "DELETE",
        "/api/exit-addresses",
        "Leave from the default exit addresses again",
        STATUS,
        refusals=(HAS_SESSION, DISK),
    ),
    Operation(
        "forwards", "GET", "/api/forwards", "The ports that are forwarded to the client", _list_of(_schema("Forward"))
    ),
    Operation(
        "addForward",
        "POST",
        "/api/forwards",
        "Forward a port, TCP and UDP, to the client; without a number, a free one",
        _schema("Forward"),
        done=(201, "Forwarded"),
        fields={"port": Field(int)},
        refusals=(TOO_MANY_FORWARDS, PORT_OUT_OF_RANGE, PORT_IS_TAKEN, NO_PORT_IS_FREE, DISK),
    ),
    Operation(
        "removeForward",
        "DELETE",
        "/api/forwards/{port}",
        "Forward a port no more",
        None,
        done=(204, "Removed"),
        refusals=(NO_PORT, NO_FORWARD, DISK),
    ),
    Operation("describe", "GET", "/api/openapi.json", "This document", {"type": "object"}),
)
