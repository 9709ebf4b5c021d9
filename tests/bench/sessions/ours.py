"""Our side: two agents as they are, tables and rules as site.yml would place them, and a client and a web beside."""

from __future__ import annotations

import base64
import http.client
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from spaces import HERE, PYTHON, CommandError, Helper, Spaces

ROOT = HERE.parents[2]
PLAYBOOK = ROOT / ".venv/bin/ansible-playbook"
AGENT = ROOT / "roles/agent/files"
sys.path.insert(0, str(ROOT / "plugins"))

from module_utils import _interfaces, _record, _rules, _sysctl  # noqa: E402 - what places links and rules on a server

ADDRESSES = {
    "entry": (
        ["198.51.100.1", "2001:db8:1::1"],
        ["198.51.100.11", "198.51.100.12", "2001:db8:1::11", "2001:db8:1::12"],
    ),
    "exit": (["198.51.100.2", "2001:db8:2::1"], ["198.51.100.21", "198.51.100.22", "2001:db8:2::21", "2001:db8:2::22"]),
}
"""Entry and exit addresses of the two servers, on both sides of the comparison."""

PATIENCE = 120.0


@dataclass(frozen=True)
class Session:
    """A client's addresses in the tunnel and between the servers."""

    client4: str
    client6: str
    session4: str
    session6: str


def judged() -> dict[str, str]:
    """The exit addresses as the judge wants them."""
    listed = {f"{name}{family}": [a for a in ADDRESSES[name][1] if (":" in a) == (family == 6)]
              for name in ADDRESSES for family in (4, 6)}  # fmt: skip
    return {name: ", ".join(found) for name, found in listed.items()}


def render(clients: int, directory: Path, agent: Path = AGENT) -> Path:
    """Write what both servers of a made-up fleet would be given: playbooks/render.yml, no host contacted.

    The agent is copied beside it: all runs are then of the same one, whoever works on the checkout meanwhile.
    """

    def key() -> str:
        return base64.b64encode(os.urandom(32)).decode()

    hosts = {
        name: {"server_id": number, "server_entry_addresses": entries, "server_exit_addresses": exits}
        for number, (name, (entries, exits)) in enumerate(ADDRESSES.items(), 1)
    }
    given = [
        {
            "name": f"client{number}",
            "public_key": key(),
            "address": f"10.96.{number // 250 + 1}.{number % 250 + 1}",
            "address6": f"fd57:6172:7265:2::{number + 0x10:x}",
        }
        for number in range(clients)
    ]
    shared = {
        "warren_fleet_secret": key(),
        "warren_clients": given,
        "warren_public_keys": {name: {p: key() for p in ("control_mesh", "multihop", "access")} for name in hosts},
    }
    inventory, top = directory / "inventory", directory / "render"
    (inventory / "group_vars/all").mkdir(parents=True)
    groups = {"warren_servers": {"hosts": hosts}, "warren_access": {"hosts": {name: {} for name in hosts}}}
    (inventory / "hosts.json").write_text(json.dumps(groups))
    (inventory / "group_vars/all/fleet.json").write_text(json.dumps(shared))
    env = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
    env["ANSIBLE_CONFIG"] = str(ROOT / "ansible.cfg")
    command = [PLAYBOOK, "-i", inventory, ROOT / "playbooks/render.yml", "-e", f"render_dir={top}"]
    result = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=False)
    if result.returncode:
        raise CommandError(f"{result.stdout}{result.stderr}\nplaybooks/render.yml failed")
    shutil.copytree(agent / "warrend", directory / "code/warrend", ignore=shutil.ignore_patterns("__pycache__"))
    sys.path.insert(0, str(directory / "code"))
    return top


class Server:
    """One server: its namespace, its agent, and what the inventory says of it."""

    def __init__(self, spaces: Spaces, world: str, name: str, rendered: Path) -> None:
        """Read what it is given."""
        self.spaces, self.space = spaces, spaces.name(world, name)
        self.directory = spaces.directory / f"{world}-{name}"
        self.directory.mkdir()
        self.etc = rendered / name / "etc/warren"
        told = [json.loads((self.etc / name).read_text()) for name in ("agent.json", "clients.json")]
        self.config = told[0] | told[1]
        network = json.loads((self.etc / "network.json").read_text())
        self.network = _record.network_from(network)
        self.settings, self.links = self.network.sysctl, dict(self.network.links)
        self.process: subprocess.Popen | None = None
        self.sockets: dict[str, list[str]] = {}

    def place_links(self, *names: str) -> None:
        """Give links that are there their addresses, routes and rules, in the engine's own words."""
        lines: dict[str, list[str]] = {"-4": [], "-6": []}
        for name in names:
            wanted = self.links[name]
            nothing = replace(wanted, addresses=(), routes=frozenset(), up=False, mtu=0, group=0)
            for line in _interfaces.steps(wanted, nothing):
                lines["-6" if re.match(r"(address|route) \w+ \S*:", line) else "-4"].append(line)
        settings = _sysctl.of_links(self.links[name] for name in names) | self.settings
        self.spaces.run(self.space, "sysctl", "-qw", *(f"{key}={value}" for key, value in settings.items()))
        rules = _rules.steps(self.network.rules, [])
        for family, steps in lines.items():
            self.spaces.ip(self.space, *steps, *rules[family], family=family)

    def place_tables(self) -> None:
        """Load the tables anew, without any element, as after a boot."""
        for path in sorted((self.etc / "nftables.d").iterdir()):
            text = re.sub(r"@secret:\w+@", "1", path.read_text())
            new = f"table inet {path.stem}\ndelete table inet {path.stem}\n{re.sub(r'(?m)^flush table .*$', '', text)}"
            self.spaces.run(self.space, "nft", "-f", "-", text=new)

    def begin(self, code: Path) -> None:
        """Start the agent; do not wait for it."""
        self.notes = self.spaces.listen(self.directory / "notify")
        here = self.config["server"]
        control6 = next(a for a in self.links["wg0ctl"].addresses if ":" in a).partition("/")[0]
        port = self.config["backend_port"]
        sockets = {"backend": [f"{here['control4']}:{port}", f"{control6}:{port}", str(self.directory / "backend")],
                   "control": [str(self.directory / "control")], **self.sockets}  # fmt: skip
        given = [f"{name}={place}" for name, places in sockets.items() for place in places]
        env = {"STATE_DIRECTORY": str(self.directory), "NOTIFY_SOCKET": str(self.directory / "notify")}
        paths = (code, self.etc / "agent.json", self.directory / "no-handshakes")
        with (self.directory / "log").open("a") as log:
            self.process = self.spaces.start(
                self.space, PYTHON, "-B", HERE / "runner.py", *paths, *given, env=os.environ | env, stderr=log
            )

    def wait(self) -> None:
        """Wait until the agent says that it is ready."""
        self.notes.settimeout(0.5)
        end, said = time.monotonic() + PATIENCE, b""
        while said != b"READY=1":
            with suppress(TimeoutError):
                said = self.notes.recv(4096)
            if self.process.poll() is not None or time.monotonic() > end:
                raise CommandError(f"an agent did not start: {(self.directory / 'log').read_text()[-2000:]}")

    def end(self) -> None:
        """Stop the agent."""
        if self.process is not None:
            self.spaces.stop(self.process)
            self.notes.close()
            self.process = None

    def ask(self, method: str, path: str, body: object = None, sock: str = "control") -> Any:
        """Ask the agent as warrenctl does, over a connection of its own."""
        connection = http.client.HTTPConnection("localhost", timeout=PATIENCE)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(self.directory / sock))
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            response = connection.getresponse()
            said = response.read()
        finally:
            connection.close()
        if response.status != 200:
            raise CommandError(f"{method} {path}: {response.status} {said[:500]!r}")
        return said if sock == "backend" else json.loads(said)


class Ours:
    """Two servers with their agents, a client's side and the internet's."""

    SPACES = ("client", "entry", "exit", "web")

    def __init__(self, spaces: Spaces, world: str, rendered: Path, apart: float = 0.0) -> None:
        """Make the namespaces and links. ``apart``: seconds that a packet takes over the mesh."""
        self.spaces, self.world, self.apart = spaces, world, apart
        self.code = rendered.parent / "code"
        spaces.add(world, *self.SPACES)
        client, entry, exit_, self.web = (spaces.name(world, name) for name in self.SPACES)
        self.entry, self.exit = (Server(spaces, world, name, rendered) for name in ("entry", "exit"))
        spaces.join((client, "link"), (entry, "wg0access"))
        spaces.join((entry, "wg0mh-r2"), (exit_, "wg0mh"))
        spaces.join((entry, "uplink"), (self.web, "entry"), 1500)
        spaces.join((exit_, "uplink"), (self.web, "exit"), 1500)
        if apart:
            line = (PYTHON, "-B", HERE / "wire.py", "wg0ctl", str(apart), entry, exit_)
            wire = spaces.start(entry, *line, stdout=subprocess.PIPE, text=True)
            if not wire.stdout.readline():
                raise CommandError("wire.py failed: see above")
        else:
            spaces.join((entry, "wg0ctl"), (exit_, "wg0ctl"))
        self.entry.place_links("wg0ctl", "wg0access", "wg0mh-r2")
        self.exit.place_links("wg0ctl", "wg0mh")
        spaces.judge(self.web, judged())
        for server, name in ((self.entry, "entry"), (self.exit, "exit")):
            uplink(spaces, server.space, name)
        self.client = client
        spaces.tally(client)
        self.sender = Helper(spaces, client, "send.py", "link")
        self.answerers = {name: Helper(spaces, self.web, "send.py", name) for name in ("entry", "exit")}
        self.forgetters = [Helper(spaces, server.space, "send.py", "forget") for server in (self.entry, self.exit)]
        self.clients = self.entry.config["clients"]
        self.sessions: list[Session] = []

    def note(self, number: int) -> None:
        """Have so many sessions on the entry's disk, as an agent left them that was stopped."""
        here = self.entry.config["server"]
        first4 = int.from_bytes(socket.inet_aton(here["session4"].partition("/")[0]), "big")
        first6 = here["session6"].partition("/")[0]
        hosts = random.sample(range(1, 32766), number)
        self.sessions = [
            Session(c["address4"], c["address6"], socket.inet_ntoa((first4 + h).to_bytes(4, "big")), f"{first6}{h:x}")
            for c, h in zip(self.clients, hosts, strict=False)
        ]
        for path in self.entry.directory.glob("sessions.db*"):
            path.unlink()
        from warrend.store import SessionRow, Store  # noqa: PLC0415 - of the copy that render() made

        store = Store(self.entry.directory / "sessions.db")
        store.put_sessions(
            SessionRow(s.client4, s.client6, "exit", s.session4, s.session6, time.time()) for s in self.sessions
        )
        store.close()

    def restart(self) -> tuple[float, float]:
        """Start both servers' tables and agents as after a boot.

        Returns:
            Seconds until the entry is ready for its clients, and until the exit has all sessions too.
        """
        for server in (self.entry, self.exit):
            server.end()
        began = time.perf_counter()
        for server in (self.exit, self.entry):
            server.place_tables()
            server.begin(self.code)
        self.entry.wait()
        ready = time.perf_counter() - began
        self.exit.wait()
        while self.leases() < len(self.sessions):
            if time.perf_counter() - began > PATIENCE:
                raise CommandError(f"the exit has {self.leases()} of {len(self.sessions)} sessions")
            time.sleep(0.02)
        return ready, time.perf_counter() - began

    def leases(self) -> int:
        """How many sessions the exit has."""
        text = self.exit.ask("GET", "/metrics", sock="backend").decode()
        return int(float(re.findall(r'^warren_leases\{entry="entry"\} (\S+)', text, re.MULTILINE)[0]))

    def start(self, client: dict[str, str]) -> float:
        """Start a session; seconds that took."""
        began = time.perf_counter()
        self.entry.ask("POST", "/sessions", {"client": client["name"], "exit": "exit"})
        return time.perf_counter() - began

    def stop(self, client: dict[str, str]) -> float:
        """End a session; seconds that took."""
        began = time.perf_counter()
        said = self.entry.ask("DELETE", f"/sessions/{urllib.parse.quote(client['name'])}")
        took = time.perf_counter() - began
        if not said["exit_told"]:
            raise CommandError("the exit was not reached")
        return took

    def round_trip(self) -> float:
        """Seconds of an ICMP echo over the mesh, the best of some."""
        text = self.spaces.run(
            self.entry.space, "ping", "-qc", "20", "-i", "0.05", self.exit.config["server"]["control4"]
        )
        return float(re.findall(r"= ([\d.]+)/([\d.]+)/", text)[0][1]) / 1000

    def end(self) -> None:
        """Remove it."""
        for server in (self.entry, self.exit):
            server.end()
        self.spaces.remove(self.world)

    def check(self) -> None:
        """Have the agents compare what they want with what is there."""
        for server in (self.entry, self.exit):
            found = server.ask("GET", "/check")
            if found["missing_elements"] or found["surplus_elements"]:
                raise CommandError(f"agent and kernel disagree: {found}")


def uplink(spaces: Spaces, space: str, name: str) -> None:
    """Give a server its addresses and its way to the internet."""
    entries, exits = ADDRESSES[name]
    for family in ("-4", "-6"):
        mine = [a for a in entries + exits if (":" in a) == (family == "-6")]
        lines = [f"address add {a}/{128 if ':' in a else 32} dev uplink{' nodad' if ':' in a else ''}" for a in mine]
        spaces.ip(space, *lines, "route add default dev uplink", family=family)
