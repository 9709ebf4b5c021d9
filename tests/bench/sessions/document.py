"""The source document's side: the same two servers, with the rules of ``document.bash`` for each session."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ours import ADDRESSES, Session, judged, uplink
from spaces import HERE, CommandError, Helper, Spaces

PORTS = "30000-51000"
LAST = 32767
"""The largest number of its session pool, which is as wide as ours here."""
LINK, TABLE, PRIORITY = "wg0mh-r2", "102", "10000"
CLIENT_PREFIXES = ("10.96.0.0/11", "fd57:6172:7265:2::/64")
SESSION_PREFIXES = ("10.1.0.0/16", "fd57:6172:7265:8001::/64")


class Shell:
    """The bash of one server, in which the functions of ``document.bash`` are run, one after the other."""

    def __init__(self, spaces: Spaces, space: str, state: Path, **variables: str) -> None:
        """Start it."""
        state.mkdir(parents=True)
        env = os.environ | {"LC_ALL": "C", "STATE": str(state), "PORTS": PORTS, **variables}
        self.state = state
        self._process = spaces.start(
            space, "bash", HERE / "document.bash", env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def do(self, *words: object) -> list[str]:
        """Run a function; what it printed."""
        self._process.stdin.write(" ".join(map(str, words)) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline().split()
        if answer[:1] != ["done"]:
            raise CommandError(f"the document's {words[0]} failed: see above")
        return answer[1:]


class Document:
    """Two servers, a client's side and the internet's."""

    SPACES = ("client", "clients", "entry", "exit", "web")

    def __init__(self, spaces: Spaces, world: str, clients: list[dict[str, str]]) -> None:
        """Make the namespaces and links."""
        self.spaces, self.world, self.clients = spaces, world, clients
        self.directory = spaces.directory / world
        spaces.add(world, *self.SPACES)
        client, self.inner, self.entry, self.exit, self.web = (spaces.name(world, name) for name in self.SPACES)
        spaces.join((client, "link"), (self.inner, "wg0access"))
        spaces.join((self.inner, "out"), (self.entry, "clients"))
        spaces.join((self.entry, LINK), (self.exit, "wg0mh"))
        spaces.join((self.entry, "uplink"), (self.web, "entry"), 1500)
        spaces.join((self.exit, "uplink"), (self.web, "exit"), 1500)
        for family, client_prefix, session_prefix in zip(("-4", "-6"), CLIENT_PREFIXES, SESSION_PREFIXES, strict=True):
            spaces.ip(
                self.inner, "route add default dev out", f"route add {client_prefix} dev wg0access", family=family
            )
            back = (f"route add {prefix} dev clients" for prefix in (client_prefix, session_prefix))
            spaces.ip(self.entry, *back, family=family)
            spaces.ip(self.exit, f"route add {session_prefix} dev wg0mh", family=family)
        spaces.judge(self.web, judged())
        for space, name in ((self.entry, "entry"), (self.exit, "exit")):
            uplink(spaces, space, name)
        self._let_plain_clients_out()
        self.client = client
        spaces.tally(client)
        self.sender = Helper(spaces, client, "send.py", "link")
        self.answerers = {name: Helper(spaces, self.web, "send.py", name) for name in ("entry", "exit")}
        self.forgetters = [Helper(spaces, each, "send.py", "forget") for each in (self.inner, self.entry, self.exit)]
        self.sessions: list[Session] = []
        exits = ADDRESSES["exit"][1]
        self._shells = [
            Shell(spaces, self.entry, self.directory / "entry", CLIENTS=self.inner, LINK=LINK, TABLE=TABLE,
                  ENDPOINT=ADDRESSES["exit"][0][0]),
            Shell(spaces, self.exit, self.directory / "exit", EXITS4=" ".join(a for a in exits if ":" not in a),
                  EXITS6=" ".join(a for a in exits if ":" in a)),
        ]  # fmt: skip

    def _let_plain_clients_out(self) -> None:
        """Clients without a session leave from the entry, as any VPN server does it."""
        for command, prefix in zip(("iptables", "ip6tables"), CLIENT_PREFIXES, strict=True):
            address = next(a for a in ADDRESSES["entry"][1] if (":" in a) == (":" in prefix))
            shown = f"[{address}]" if ":" in address else address
            rule = ("-t", "nat", "-A", "POSTROUTING", "-s", prefix, "-o", "uplink")
            for protocol in ("udp", "tcp"):
                leaving = ("-p", protocol, "-j", "SNAT", "--to-source", f"{shown}:{PORTS}")
                self.spaces.run(self.entry, command, *rule, *leaving)
            self.spaces.run(self.entry, command, *rule, "-j", "SNAT", "--to-source", address)

    def end(self) -> None:
        """Remove it."""
        self.spaces.remove(self.world)
        shutil.rmtree(self.directory)

    # --- many sessions

    def note(self, number: int) -> None:
        """Have so many sessions in the entry's state files."""
        self.sessions = [
            Session(c["address4"], c["address6"], f"10.1.{n >> 8}.{n & 255}", f"fd57:6172:7265:8001::{n:x}")
            for c, n in zip(self.clients, random.sample(range(2, LAST), number), strict=False)
        ]
        for each in self.sessions:
            text = f"SESSION_V4={each.session4}\nSESSION_V6={each.session6}\n"
            (self._shells[0].state / each.client4).write_text(text)

    def restore_in_bulk(self) -> float:
        """Make all rules by a few commands that read them, both servers at the same time; seconds that took."""
        work = [(space, command, "\n".join(lines) + "\n") for space, command, lines in self._bulk()]
        began = time.perf_counter()

        def do(space: str) -> None:
            for where, command, text in work:
                if (where == self.exit) == (space == self.exit):
                    self.spaces.run(where, *command, text=text)

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(do, (self.entry, self.exit)))
        return time.perf_counter() - began

    def _bulk(self) -> list[tuple[str, tuple[str, ...], list[str]]]:
        exits = ADDRESSES["exit"][1]
        found: list[tuple[str, tuple[str, ...], list[str]]] = []
        for family, length, command, icmp in (("4", 32, "iptables", "icmp"), ("6", 128, "ip6tables", "ipv6-icmp")):
            leaving = [address for address in exits if (":" in address) == (family == "6")]
            inner, outer, rules = ["*nat"], ["*nat"], []
            for number, each in enumerate(self.sessions):
                client, session = getattr(each, f"client{family}"), getattr(each, f"session{family}")
                comment = f"-m comment --comment mhop:{client}"
                inner.append(f"-I POSTROUTING 1 -s {client}/{length} {comment} -j SNAT --to-source {session}")
                rules.append(f"rule add pref {PRIORITY} from {session}/{length} table {TABLE}")
                address = leaving[number % len(leaving)]
                to = f"-j SNAT --to-source {f'[{address}]' if family == '6' else address}:{PORTS}"
                start = f"-I POSTROUTING 1 -s {session}/{length}"
                comment = f"-m comment --comment mhop:{session}"
                outer += [f"{start} -p {name} -m {name} --dport 1:65535 {comment} {to}" for name in ("udp", "tcp")]
                outer.append(f"{start} -p {icmp} {comment} -j SNAT --to-source {address}")
            rules.append(f"route replace table {TABLE} default dev {LINK}")
            found += [
                (self.inner, (f"{command}-restore", "--noflush"), [*inner, "COMMIT"]),
                (self.entry, ("ip", f"-{family}", "-batch", "-"), rules),
                (self.exit, (f"{command}-restore", "--noflush"), [*outer, "COMMIT"]),
            ]
        return found

    def restore_one_by_one(self, limit: float) -> tuple[float, int]:
        """Run both servers' commands for each session. Returns the seconds, and for how many until the limit."""
        began, number = time.perf_counter(), 0
        for each in self.sessions:
            if time.perf_counter() - began > limit:
                break
            self._shells[0].do("entry_again", each.client4, each.client6, each.session4, each.session6)
            self._shells[1].do("exit_start", each.session4, each.session6)
            number += 1
        return time.perf_counter() - began, number

    # --- one more

    def start(self, client: dict[str, str]) -> float:
        """Start a session: the entry's part and the exit's, without what goes between them. Seconds that took."""
        began = time.perf_counter()
        self._one = self._shells[0].do("entry_start", client["address4"], client["address6"], LAST)
        self._shells[1].do("exit_start", *self._one)
        return time.perf_counter() - began

    def stop(self, client: dict[str, str]) -> float:
        """End it: delete what it has. Seconds that took."""
        began = time.perf_counter()
        self._shells[0].do("entry_stop", client["address4"], client["address6"], *self._one)
        self._shells[1].do("exit_stop", *self._one)
        return time.perf_counter() - began
