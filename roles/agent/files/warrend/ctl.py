# Copyright (c) 2026 the warren.vpn authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``warrenctl``: sessions from the command line of a server.

Exit status: 0 done; 1 refused, nothing was changed; 2 wrong usage; 3 the exit is away, the client is blocked until it
answers or the session is stopped; 4 the agent does not answer.
"""

from __future__ import annotations

import argparse
import http.client
import json
import socket
import sys
import time
import urllib.parse
from collections.abc import Callable, Sequence
from typing import Any

SOCKET = "/run/warrend.sock"
PATIENCE_SECONDS = 10.0
"""An agent that is being restarted is back sooner. What is asked twice does no harm."""

DONE, REFUSED, AWAY, NO_AGENT = 0, 1, 3, 4

WRONG = ("missing_elements", "surplus_elements", "wrong_flows", "broken_clients_file")
"""What ``check`` counts that should be none."""


class Connection(http.client.HTTPConnection):
    """HTTP over the agent's socket."""

    def __init__(self) -> None:
        super().__init__("localhost", timeout=30)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(30)
        self.sock.connect(SOCKET)


def ask(method: str, path: str, body: object = None) -> tuple[int, Any]:
    """Ask the agent; if it goes away meanwhile, ask again when it is back."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            connection = Connection()
            connection.request(method, path, None if body is None else json.dumps(body))
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        except PermissionError:
            raise SystemExit("warrenctl: only root may do this") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            if time.monotonic() > deadline:
                raise ConnectionError(f"warrend does not answer ({error}). See: journalctl -u warrend") from error
            time.sleep(0.1)
        finally:
            connection.close()


def parser() -> argparse.ArgumentParser:
    main_parser = argparse.ArgumentParser(
        prog="warrenctl", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = main_parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, help_text: str, *arguments: tuple[str, str]) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=help_text, description=help_text)
        for argument, meaning in arguments:
            added.add_argument(argument, help=meaning)
        added.add_argument("--json", action="store_true", help="print JSON, for programs")
        return added

    client = ("client", "name or tunnel address of a client")
    command("start", "have a client leave by another server", client, ("exit", "slug or name of that server"))
    command("stop", "have a client leave from this server again", client)
    command("show", "how a client leaves", client)
    command("list", "the clients that do not leave in the default way")
    command("exits", "the servers that clients can leave by, and whether they answer")
    choose = command("choose", "have a client leave from one of this server's own exit addresses", client)
    choose.add_argument("address", nargs="+", help="an exit address of each family that is to change; or: default")
    forward = command("forward", "forward a port of the entry address to a client", client)
    forward.add_argument("port", nargs="?", type=int, help="left out: one that is free")
    unforward = command("unforward", "forward a port to a client no more", client)
    unforward.add_argument("port", type=int)
    command("forwards", "the ports that are forwarded to clients")
    command("disconnected", "a client is gone: it has no session, choice or forwarded port any more", client)
    command("check", "whether the kernel's tables and flows agree with the agent, and its clients' file can be used")
    command("reload", "read the clients' file again, as systemctl reload warrend does; return once it is in force")
    return main_parser


def line_of(view: dict[str, Any]) -> str:
    """A client in one sentence."""
    addresses = ", ".join(filter(None, (view["exit4"], view["exit6"])))
    where = f"{view['client']} leaves from {view['exit']}" + (f": {addresses}" if addresses else "")
    notes = {
        "held": "held until it can",
        "blocked": "BLOCKED: the exit does not answer",
        "silent": "the exit has not answered lately",
    }
    return f"{where} ({notes[view['state']]})" if view["state"] in notes else where


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows with aligned columns."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def sessions_table(views: list[dict[str, Any]]) -> str:
    """The table of ``list``."""
    rows = [("client", "exit", "state", "IPv4", "IPv6", "since")]
    for view in views:
        since = _time(view["since"]) if view["since"] else "-"
        rows.append((view["client"], view["exit"], view["state"], view["exit4"] or "-", view["exit6"] or "-", since))
    return table(rows)


def exits_table(views: list[dict[str, Any]]) -> str:
    """The table of ``exits``."""
    rows = [("exit", "label", "region", "round trip", "")]
    for view in views:
        time_taken = "-" if view["round_trip_ms"] is None else f"{view['round_trip_ms']} ms"
        state = "ok" if view["reachable"] else ("LINK DOWN" if view["backend"] else "DOES NOT ANSWER")
        rows.append((view["exit"], view["label"], view["region"] or "-", time_taken, state))
    return table(rows)


def forward_text(view: dict[str, Any]) -> str:
    """What ``forward`` says."""
    addresses = [
        f"{view['entry4']}:{view['port']}",
        *([f"[{view['entry6']}]:{view['port']}"] if view["entry6"] else []),
    ]
    return f"{', '.join(addresses)} goes to {view['client']}"


def forwards_table(views: list[dict[str, Any]]) -> str:
    """The table of ``forwards``."""
    rows = [("client", "port", "since")]
    rows += [(view["client"], str(view["port"]), _time(view["since"])) for view in views]
    return table(rows)


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def check_text(found: dict[str, int]) -> str:
    """What ``check`` says."""
    lines = [f"{name.replace('_', ' ')}: {number}" for name, number in found.items()]
    if found["broken_clients_file"]:
        lines.append("The clients are those of before the last reload. See: journalctl -u warrend")
    return "\n".join(lines)


def stopped_text(view: dict[str, Any]) -> str:
    """What ``stop`` says."""
    return line_of(view) + ("" if view["exit_told"] else ". The exit was not reached; it ends the session by itself")


def request_of(args: argparse.Namespace) -> tuple[str, str, object, Callable[[Any], str]]:
    """What to ask for a command: method, path, body, and how to show what the agent says."""
    client = urllib.parse.quote(getattr(args, "client", ""), safe="")
    if args.command == "start":
        return "POST", "/sessions", {"client": args.client, "exit": args.exit}, line_of
    if args.command == "choose":
        addresses = [] if args.address == ["default"] else args.address
        chosen = {"exit6" if ":" in address else "exit4": address for address in addresses}
        return "PUT", f"/choices/{client}", chosen, line_of
    if args.command == "forward":
        return "POST", f"/forwards/{client}", {"port": args.port}, forward_text
    if args.command == "unforward":
        return (
            "DELETE",
            f"/forwards/{client}/{args.port}",
            None,
            lambda view: f"port {view['port']} does not go to {view['client']} any more",
        )
    plain: dict[str, tuple[str, str, Callable[[Any], str]]] = {
        "stop": ("DELETE", f"/sessions/{client}", stopped_text),
        "show": ("GET", f"/sessions/{client}", line_of),
        "list": ("GET", "/sessions", sessions_table),
        "exits": ("GET", "/exits", exits_table),
        "forwards": ("GET", "/forwards", forwards_table),
        "disconnected": ("POST", f"/disconnected/{client}", line_of),
        "check": ("GET", "/check", check_text),
        "reload": ("POST", "/reload", lambda view: f"{view['clients']} clients may connect"),
    }
    method, path, show = plain[args.command]
    return method, path, None, show


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is above."""
    args = parser().parse_args(arguments)
    try:
        method, path, body, show = request_of(args)
        status, said = ask(method, path, body)
    except ConnectionError as error:
        status, said = 0, {"error": str(error), "reason": "no_agent"}
    failed = isinstance(said, dict) and "error" in said
    if args.json:
        print(json.dumps(said))
    elif failed:
        print(f"warrenctl: {said['error']}", file=sys.stderr)
    else:
        print(show(said))
    if failed:
        return {0: NO_AGENT, 503: AWAY}.get(status, REFUSED)
    wrong = args.command == "check" and any(said[key] for key in WRONG)
    return REFUSED if wrong else DONE
