# Copyright (c) 2026 the warren.vpn authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All that the agent refuses, to clients, operators and other servers: for programs, for HTTP, and in words."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Refusal:
    """Why something is not done. Names in braces stand for values.

    Attributes:
        code: for programs; in JSON it is the ``reason``.
        status: of HTTP.
        words: for operators and other servers.
        for_clients: for a client on the portal, where that is something else.
        title: of a page of the portal that says nothing but this.
    """

    code: str
    status: int
    words: str
    for_clients: str = ""
    title: str = ""


class RefusedError(Exception):
    """What was asked for is not done, and nothing was changed.

    Attributes:
        refusal: which one.
        reason: its code.
        status: of HTTP.
        for_client: what to say to a client.
        headers: more of the answer's.
    """

    def __init__(self, refusal: Refusal, headers: dict[str, str] | None = None, **values: object) -> None:
        """Fill in the values."""
        super().__init__(refusal.words.format(**values))
        self.refusal, self.headers = refusal, headers or {}
        self.reason, self.status = refusal.code.format(**values), refusal.status
        self.for_client = refusal.for_clients.format(**values) or str(self)


class AwayError(RefusedError):
    """The session is made, but its exit does not answer: the client is blocked until it does, or until the end."""


class NoSessionError(RefusedError):
    """There is no session to end."""


# --- sessions, choices and forwarded ports

UNKNOWN_CLIENT = Refusal("unknown_client", 409, "{client} is no client of {server}")
CLIENT_IS_GONE = Refusal("unknown_client", 409, "{client} is no client of {server} any more")
UNKNOWN_EXIT = Refusal(
    "unknown_exit",
    404,
    "{exit} is no exit. There are: {exits}",
    "There is no such server. Choose one from the list.",
)
EXIT_IS_HERE = Refusal(
    "unknown_exit",
    404,
    "{exit} is this server: a client leaves from it without a session",
    "There is no such server. Choose one from the list.",
)
HAS_CHOICE = Refusal(
    "choice",
    409,
    "{client} has chosen an exit address of {server}. Go back to the default first: the two together are not possible.",
    "You have chosen your own exit address. Go back to the default on the page /changemyip first.",
)
HAS_SESSION = Refusal(
    "session",
    409,
    "{client} leaves by {exit}. Stop that session first: the two together are not possible.",
    "Multihop is on. Disable it on the page /multihop first.",
)
NO_SESSION = Refusal("no_session", 409, "{client} has no session")
UNKNOWN_ADDRESS = Refusal(
    "unknown_address",
    409,
    "this is no exit address of {server}. There are: {addresses}",
    "This is no address of this server. Choose one from the list.",
)
POOL_IS_FULL = Refusal(
    "pool_full",
    409,
    "no session address is free: {server} has {size} of them",
    "This server has no room for you just now. Try again later.",
)
DISK = Refusal("disk", 409, "the server cannot write it down just now, and changed nothing. Try again later.")
AWAY = Refusal(
    "away",
    503,
    "{why}. The client's traffic is blocked until that is over, or until the session is stopped",
    "The server that you chose does not answer. Your traffic is blocked until it does, or until multihop is "
    "disabled, so that nothing leaves by another way.",
)
TOO_MANY_FORWARDS = Refusal("too_many", 409, "{most} ports are forwarded already. Remove one that you do not need.")
NO_FORWARD = Refusal("no_forward", 404, "port {port} is not forwarded to this device: there is nothing to remove")
PORT_OUT_OF_RANGE = Refusal("out_of_range", 409, "port {port} cannot be forwarded. Choose one from {low} to {high}.")
PORT_IS_TAKEN = Refusal("taken", 409, "port {port} is taken. Choose another one, or leave the choice to us.")
NO_PORT_IS_FREE = Refusal("none_free", 409, "no port from {low} to {high} is free. Try again later.")

# --- any request

INTERNAL = Refusal(
    "internal",
    500,
    "the agent failed; its journal says where",
    "Try again. If it stays so, tell your provider.",
    "Something is broken here",
)
BROKEN_BODY = Refusal(
    "body",
    400,
    "the body does not end, or is not encoded as its headers say",
    "Load the page, and press a button there.",
    "This is no request",
)
PACKED = Refusal(
    "content_encoding",
    415,
    "send it as it is: nothing is unpacked here",
    "Send it as it is: nothing is unpacked here.",
    "This is packed",
)
NOT_A_TEXT = Refusal("{name}", 400, "{name} has to be a text", "{name} has to be a text.")
NOT_A_NUMBER = Refusal("{name}", 400, "{name} has to be a number", "{name} has to be a whole number.")

# --- the portal

WRONG_HOST = Refusal("host", 421, "This page is at {home} and nowhere else. Open it there.", title="Wrong address")
FOREIGN_PAGE = Refusal(
    "origin",
    403,
    "Another web page tried to do this in your name. If it was you, do it at {home} instead.",
    title="Not from this page",
)
NOT_CONNECTED = Refusal(
    "no_client",
    403,
    "This page is for devices connected to {server}. Connect, then load it again.",
    title="You are not connected",
)
TOO_OFTEN = Refusal("too_often", 429, "Wait {time}, then try again.", title="Too many requests")
SLOW = Refusal("slow", 408, "Try again.", title="That took too long")
NOT_FOUND = Refusal("not_found", 404, "Go to the first page and look there.", title="There is no such page")
METHOD = Refusal("method", 405, "Load the page, and press a button there.", title="This cannot be done here")
TOO_LARGE = Refusal("too_large", 413, "Send at most {most} bytes.", title="That is too much")
NO_FORM = Refusal("content_type", 415, "Load the page, and press a button there.", title="This is no form")
BROKEN_FORM = Refusal("form", 400, "Load the page, and press a button there.", title="This is no form")
OLD_FORM = Refusal("token", 403, "This page was not up to date. Look at it again, and repeat what you wanted to do.")
NO_BUTTON = Refusal("do", 400, "Press one of the buttons of this page.")
NO_EXIT_CHOSEN = Refusal("exit", 400, "Choose a server first.")
NO_PORT = Refusal("port", 400, "Write the port as a number, such as 40000, or write none.", title="This is no port")
NO_JSON = Refusal("content_type", 415, "Send JSON, with the header Content-Type: application/json.")
WRONG_OBJECT = Refusal("body", 400, "Send a JSON object, with no other names in it than {names}.")

# --- warrenctl

CLIENTS_FILE = Refusal("clients_file", 409, "{why}; the clients of before stay")
SEND_JSON = Refusal("body", 400, "send JSON")
SEND_AN_OBJECT = Refusal("body", 400, "send a JSON object")

# --- the backend

SEND_A_FORM = Refusal("content_type", 415, "send a form: application/x-www-form-urlencoded")
NOT_A_FORM = Refusal("form", 400, "this is no form, or has too many fields")
UNKNOWN_FIELD = Refusal("field", 400, "the fields are {names}")
GIVEN_TWICE = Refusal("{name}", 400, "{name} is given more than once")
TOO_MANY_IN_A_CALL = Refusal("sessions", 413, "at most {most} sessions in one call")
UNKNOWN_OP = Refusal("op", 400, "op is one of {ops}")
UNKNOWN_SERVER = Refusal("source", 403, "only servers of the fleet are answered")
WRONG_SLUG = Refusal("a_slug", 403, "a_slug has to be {slug}, for that is who asks")
NO_SESSION_ADDRESS = Refusal("session_ip", 400, "session_ip is missing")
NOT_AN_ADDRESS = Refusal("{name}", 400, "{name} has to be an IPv{version} address")
WRONG_PREFIX = Refusal("session_prefix", 403, "{slug} may only speak for {prefix4} and {prefix6}")
UNPAIRED = Refusal("session_ip6", 400, "session_ip6 is given for each session_ip, or for none")
ADDRESS_TWICE = Refusal("session_ip", 400, "a session address is given twice")
TOO_MANY_SESSIONS = Refusal("too_many", 429, "{slug} has {most} sessions here, and no client of it is without one")
