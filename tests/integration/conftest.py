"""A fleet of a molecule scenario, as the tests see it: hosts, playbooks, and what the web's recorder saw."""

from __future__ import annotations

import ipaddress
import json
import os
import random
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
from hosts import ROOT, Engine  # noqa: E402 - it is beside this file

SLOWNESS = float(os.environ.get("LAB_SLOWNESS") or 1)
"""How many times longer than usual things may take: an emulated machine is slow, and says how slow (lab/machine)."""

WEB = {4: "198.51.100.80", 6: "2001:db8:100::80"}


def wait_for(condition: Callable[[], object], what: str, seconds: float = 30) -> object:
    """What a condition returns, as soon as that is true; fails with `what` when the time is up."""
    deadline = time.monotonic() + seconds * SLOWNESS
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds * SLOWNESS:.0f} s: {what}")
        time.sleep(0.1)


@dataclass
class Run:
    """A playbook's run.

    Attributes:
        code: exit status.
        text: all it printed.
        results: one dictionary for each result, see callback_plugins/results.py.
    """

    code: int
    text: str
    results: list[dict]

    def of(self, host: str) -> list[dict]:
        """The results of one host."""
        return [result for result in self.results if result["host"] == host]

    def actions(self, host: str) -> list[str]:
        """What the module `network` did on a host, or would do."""
        return [action for result in self.of(host) for action in result["actions"]]

    @property
    def changed(self) -> dict[str, list[str]]:
        """By host, what changed: the tasks, and what the module `network` did."""
        found: dict[str, list[str]] = {}
        for result in self.results:
            if result["changed"]:
                found.setdefault(result["host"], []).append(f"{result['task']}: {', '.join(result['actions'])}")
        return found

    @property
    def failures(self) -> dict[str, str]:
        """By host, why it failed or was not reached."""
        return {r["host"]: r["msg"] for r in self.results if r["state"] in ("failed", "unreachable")}


class Fleet:
    """The lab of a scenario.

    Attributes:
        inventory: the scenario's own copy of the lab's inventory.
        servers, others: names of hosts.
        variables: of the servers, by name, as the inventory has them.
    """

    root = ROOT
    slowness = SLOWNESS

    def __init__(self, inventory: Path, scratch: Path) -> None:
        """Read the scenario's inventory."""
        self.inventory, self._scratch = inventory, scratch
        self.engine = Engine(os.environ.get("LAB_MACHINE", ""))
        hosts = yaml.safe_load((inventory / "hosts.yml").read_text())
        self.lab = yaml.safe_load((inventory / "group_vars/lab_machines/test.yml").read_text())["lab_name"]
        self.secret = yaml.safe_load((inventory / "group_vars/all/test.yml").read_text())["warren_fleet_secret"]
        self.variables = hosts["warren_servers"]["hosts"]
        self.servers, self.others = list(self.variables), list(hosts["lab"]["hosts"] or {})
        self.started = self.now()
        self._runs = 0

    # --- what the design promises of a server

    def id(self, server: str) -> int:
        """Its number."""
        return self.variables[server]["server_id"]

    def control(self, server: str, version: int = 4) -> str:
        """Its address on the mesh, as the design has it and not as the code computes it."""
        return f"10.77.0.{self.id(server)}" if version == 4 else f"fd57:6172:7265:1::{self.id(server):x}"

    def entry(self, server: str, version: int = 4) -> str:
        """Its entry address."""
        return _of_version(self.variables[server]["server_entry_addresses"], version)[0]

    def exits(self, server: str, version: int = 4) -> list[str]:
        """Its exit addresses."""
        return _of_version(self.variables[server]["server_exit_addresses"], version)

    # --- hosts

    def container(self, name: str) -> str:
        """The name of a host's container."""
        return f"{self.lab}-{name}"

    def sh(self, name: str, script: str, seconds: float = 60, text: str = "") -> str:
        """What a shell script on a host prints; it has to succeed. It reads `text`."""
        done = self.try_sh(name, script, seconds, text)
        assert done.returncode == 0, f"{name}: {script}\n{done.stdout}{done.stderr}"
        return done.stdout

    def try_sh(self, name: str, script: str, seconds: float = 60, text: str = "") -> subprocess.CompletedProcess:
        """Run a shell script on a host."""
        limit = str(seconds * SLOWNESS)
        command = self.engine.inside(self.container(name), "timeout", limit, "sh", "-euc", script)
        return subprocess.run(command, input=text, capture_output=True, text=True, check=False)

    def python(self, name: str, script: str, *arguments: str, seconds: float = 60) -> str:
        """What a Python script on a host prints."""
        return self.sh(name, f"python3 -c {shlex.quote(script)} {shlex.join(arguments)}", seconds)

    def podman(self, command: str, *words: str) -> None:
        """Have podman do something with a host, the last word, and wait until it is up again unless it was stopped."""
        *options, name = words
        self.engine.podman(command, self.container(name), *options)

    def background(self, name: str, script: str) -> subprocess.Popen:
        """Start a shell script on a host."""
        command = self.engine.inside(self.container(name), "sh", "-euc", script)
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def ip(self, name: str, *words: str) -> list[dict]:
        """What `ip -json` says on a host."""
        return json.loads(self.sh(name, f"ip -json {shlex.join(words)}") or "[]")

    def wg(self, name: str, link: str, what: str) -> dict[str, str]:
        """One column of `wg show` on a host, by public key."""
        lines = self.sh(name, f"wg show {link} {what}").splitlines()
        return dict(line.partition("\t")[::2] for line in lines)

    def public_key(self, server: str, purpose: str = "control_mesh") -> str:
        """The public key on record."""
        text = (self.inventory / "group_vars/all/warren_public_keys.yml").read_text()
        return yaml.safe_load(text)["warren_public_keys"][server][purpose]

    # --- sessions

    def ctl(self, server: str, *words: str, status: int = 0) -> dict | list:
        """What `warrenctl --json` says on a server; it has to end with this exit status."""
        done = self.try_sh(server, f"warrenctl {shlex.join(words)} --json")
        assert done.returncode == status, f"{server}: warrenctl {words}: {done.returncode}\n{done.stdout}{done.stderr}"
        return json.loads(done.stdout)

    def without_sessions(self) -> None:
        """Every client is gone: no session, choice or forwarded port."""
        with ThreadPoolExecutor() as pool:
            list(pool.map(self._without_sessions, self.servers))

    def _without_sessions(self, server: str) -> None:
        lists = self.sh(server, "warrenctl list --json; warrenctl forwards --json")
        views = [view for line in lists.splitlines() for view in json.loads(line)]
        for client in dict.fromkeys(view["client"] for view in views):
            self.ctl(server, "disconnected", client)

    def elements_of_sessions(self, server: str) -> str:
        """What the kernel of a server has of sessions and choices. Every client has a way from here, always."""
        listing = self.sh(server, "nft list table inet warren_path")
        maps = re.findall(r"^\tmap (\w+) \{\n.*?^\t\}\n", listing, re.MULTILINE | re.DOTALL)
        assert "session_exit4" in maps
        found = re.findall(r"^\tmap (\w+) \{\n[^}]*?elements = (.*?)\t\}\n", listing, re.MULTILINE | re.DOTALL)
        return "\n".join(f"{name}: {elements}" for name, elements in found if not name.startswith("client_mark"))

    def agrees(self, server: str) -> dict:
        """What `warrenctl check` counts on a server; its tables, flows and store have to agree."""
        return self.ctl(server, "check")

    @contextmanager
    def unrepaired(self, *servers: str) -> Iterator[None]:
        """Servers whose agents, and those that are started meanwhile, cannot have put back what is taken away."""
        for server in servers:
            self.sh(server, "chmod 0 /run/warrend-restore.sock")
        try:
            yield
        finally:
            for server in servers:
                self.try_sh(server, "chmod 600 /run/warrend-restore.sock")

    @contextmanager
    def unattended(self, *servers: str) -> Iterator[None]:
        """The same, and their agents do nothing else either."""
        with self.unrepaired(*servers):
            for server in servers:
                self.sh(server, "systemctl kill --signal=STOP warrend.service")
            try:
                yield
            finally:
                for server in servers:
                    self.try_sh(server, "systemctl kill --signal=CONT warrend.service")

    # --- playbooks

    def playbook(self, name: str, *arguments: str, ok: bool = True, env: dict[str, str] | None = None) -> Run:
        """Run one of the collection's playbooks on the scenario's inventory."""
        self._runs += 1
        results = self._scratch / f"run-{self._runs}.json"
        program = os.environ.get("TEST_ANSIBLE_PLAYBOOK") or str(Path(sys.executable).with_name("ansible-playbook"))
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "MOLECULE_"))}
        clean |= {
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".nox/collections"),
            "ANSIBLE_CALLBACK_PLUGINS": str(HERE / "callback_plugins"),
            "ANSIBLE_CALLBACKS_ENABLED": "results",
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_TIMEOUT": str(round(10 * SLOWNESS)),
            "RESULTS": str(results),
        }
        playbook = f"warren.vpn.{name}" if "/" not in name else name
        done = subprocess.run(
            [program, "-i", str(self.inventory), *arguments, playbook],
            env=clean | (env or {}), cwd=self._scratch, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, check=False, timeout=600 * SLOWNESS,
        )  # fmt: skip
        lines = results.read_text().splitlines() if results.exists() else []
        run = Run(done.returncode, done.stdout, [json.loads(line) for line in lines])
        if ok:
            assert run.code == 0, run.text
        return run

    def site(self, *arguments: str, **options: object) -> Run:
        """Run site.yml."""
        return self.playbook("site", *arguments, **options)

    def settled(self, *arguments: str) -> None:
        """Make sure that a run of site.yml has nothing to do."""
        assert self.site(*arguments).changed == {}

    # --- packets

    def recorded(self, expression: str, since: float) -> list[str]:
        """The packets that reached the web since a time, as tcpdump prints them, one a line, time first."""
        # A file that nothing was written to since holds nothing newer. Files have a coarser clock than packets.
        files = f"find /var/lib/lab -name 'packets.pcap*' -newermt @{max(since - 1, 0):.3f}"
        read = 'tcpdump -nn -tt -v -r "$1" -- "$0" 2>/dev/null || true'
        command = f"{files} -exec sh -c {shlex.quote(read)} {shlex.quote(expression)} {{}} ';'"
        text = self.sh("web", command)
        packets = re.sub(r"\n\s+", " ", text).splitlines()
        return sorted(
            (line for line in packets if float(line.split()[0]) >= since), key=lambda line: float(line.split()[0])
        )

    def now(self) -> float:
        """The time, by the clock that all containers share."""
        return self.engine.now()

    def until_recorded(self) -> None:
        """Wait until the web has on record all that reached it up to now: a last packet of our own is the mark."""
        port, since = random.randint(10000, 19999), self.now()  # noqa: S311 - no secret
        self.python(self.servers[0], UDP_SEND, "0", WEB[4], str(port))
        wait_for(lambda: self.recorded(f"udp dst port {port}", since - 1), "the recorder saw a last packet")

    def seen(self, name: str, version: int = 4, sources: list[str] | None = None) -> list[dict]:
        """As whom the web sees a host that asks over UDP, from each of its source addresses."""
        script = f"python3 -c {shlex.quote(UDP_ASK)} {WEB[version]}"
        text = self.sh(name, script, text="\n".join(sources or [""]))
        return [json.loads(line) for line in text.splitlines()]

    def curl(self, name: str, version: int = 4) -> dict:
        """As whom the web sees a host that asks over HTTP."""
        host = WEB[4] if version == 4 else f"[{WEB[6]}]"
        limit = 10 * SLOWNESS
        return json.loads(self.sh(name, f"curl --silent --show-error --fail --max-time {limit} http://{host}/ip"))

    def web(self, version: int = 4) -> str:
        """The web's address."""
        return WEB[version]

    def send(self, name: str, port: int, to: str, to_port: int) -> None:
        """Send one UDP packet from a port of a host."""
        self.python(name, UDP_SEND, str(port), to, str(to_port))

    def wait_for(self, condition: Callable[[], object], what: str, seconds: float = 30) -> object:
        """See :func:`wait_for`."""
        return wait_for(condition, what, seconds)

    @contextmanager
    def listening(self, name: str, address: str) -> Iterator[None]:
        """An HTTP server on port 8443 of one address of a host."""
        server = self.background(name, f"exec python3 -m http.server 8443 --bind {address} --directory /run")
        try:
            wait_for(lambda: self.connects(name, address, 8443), f"{name} listens at {address}")
            yield
        finally:
            self._end(name, server, f"http.server 8443 --bind {address}")

    @contextmanager
    def hearing(self, name: str, port: int) -> Iterator[Callable[[], str]]:
        """The addresses of a host at which UDP packets for a port came in so far, as text."""
        self._runs += 1
        file = f"/run/heard-{self._runs}"
        listener = self.background(name, f"exec python3 -u -c {shlex.quote(UDP_HEAR)} {port} >{file}")
        try:
            wait_for(lambda: "ready" in self.try_sh(name, f"cat {file}").stdout, f"{name} hears")
            yield lambda: self.sh(name, f"cat {file}")
        finally:
            self._end(name, listener, "import socket, struct, sys")

    @contextmanager
    def capture(self, name: str, expression: str) -> Iterator[Callable[[], list[str]]]:
        """The packets, encapsulated or not, that a host received since, as tcpdump prints them."""
        self._runs += 1
        file = f"/run/captured-{self._runs}"
        dump = self.background(
            name, f"exec tcpdump -i any -Q in -nn -l -U {shlex.quote(expression)} >{file} 2>{file}.log"
        )
        try:
            wait_for(lambda: "listening on" in self.try_sh(name, f"cat {file}.log").stdout, f"{name} captures")
            yield lambda: self.sh(name, f"cat {file}").splitlines()
        finally:
            self._end(name, dump, "tcpdump -i any")

    def _end(self, name: str, process: subprocess.Popen, pattern: str) -> None:
        """End what a test started in a container: ending what entered it would leave it there."""
        self.try_sh(name, f"pkill -f -- {shlex.quote(pattern)}")
        process.communicate(timeout=10)

    def tunnel_address(self, name: str, version: int = 4) -> str:
        """A client's address in its tunnel, on whichever server it is."""
        link = self.sh(name, "wg show interfaces").strip()
        (data,) = self.ip(name, "address", "show", "dev", link, "scope", "global")
        return next(a["local"] for a in data["addr_info"] if a["family"] == ("inet" if version == 4 else "inet6"))

    def client_file(self, name: str, server: str) -> Path:
        """A client's file for a server, which clients.yml writes."""
        file = self.inventory / f".clients/{name}/{server}.conf"
        if not file.exists():
            self.playbook("clients", "-e", f"clients_server={server}")
        return file

    def use_server(self, name: str, server: str, afresh: bool = False) -> None:
        """Connect a client to a server with its file; unless it is connected already, or `afresh`."""
        if not afresh and self.sh(name, "wg show interfaces").split() == [server]:
            return
        text = shlex.quote(self.client_file(name, server).read_text())
        script = f"""
            for link in $(wg show interfaces); do systemctl stop wg-quick@$link; done
            (umask 077; printf %s {text} >/etc/wireguard/{server}.conf)
            systemctl start wg-quick@{server}
        """
        self.sh(name, script)
        wait_for(lambda: self.answers(name, "10.31.33.7", 1), f"{name} is connected to {server}")

    def answers(self, name: str, address: str, seconds: int = 2) -> bool:
        """Whether an address answers a ping from a host."""
        return self.try_sh(name, f"ping -c 1 -W {seconds * SLOWNESS} {address}").returncode == 0

    def reached(self, name: str, addresses: list[str], port: int) -> set[str]:
        """Which of the addresses a host reaches, by ping or at a TCP port."""
        return set(self.python(name, REACH, str(SLOWNESS), str(port), *addresses).splitlines())

    def connects(self, name: str, address: str, port: int, seconds: float = 2) -> bool:
        """Whether a TCP connection from a host is taken."""
        return self.python(name, TCP_CONNECT, address, str(port), str(seconds * SLOWNESS)).strip() == "yes"


def _of_version(addresses: list[str], version: int) -> list[str]:
    return [address for address in addresses if ipaddress.ip_address(address).version == version]


# What the tests run on hosts.
UDP_SEND = """
import socket, sys
port, to, to_port = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
s = socket.socket(socket.AF_INET6 if ":" in to else socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("", port))
s.sendto(b"test", (to, to_port))
"""
UDP_ASK = """
import select, socket, sys
to = sys.argv[1]
socks, said = [], {}
for source in sys.stdin.read().splitlines() or [""]:
    port = 51820
    while port == 51820:  # what a service of the server has is refused as a client's port
        s = socket.socket(socket.AF_INET6 if ":" in to else socket.AF_INET, socket.SOCK_DGRAM)
        # IPV6_FREEBIND, IP_FREEBIND: the address may be local by a route only.
        s.setsockopt(*((41, 78, 1) if ":" in to else (0, 15, 1)))
        s.bind((source, 0))
        port = s.getsockname()[1]
    socks.append(s)
# As many at once as the web's buffer takes.
for batch in (socks[start:start + 100] for start in range(0, len(socks), 100)):
    poll = select.poll()
    for s in batch: poll.register(s, select.POLLIN)
    by_number = {s.fileno(): s for s in batch}
    for attempt in range(80):
        asked = [s for s in batch if s not in said]
        for s in asked: s.sendto(b"who am I", (to, 80))
        while len(said.keys() & set(batch)) < len(batch):
            ready = poll.poll(250)
            if not ready: break
            for number, event in ready: said[by_number[number]] = by_number[number].recv(999).decode()
    silent = [s.getsockname()[:2] for s in batch if s not in said]
    if silent: raise SystemExit(f"no answer from {to} for {len(silent)} of {len(batch)} in 20 s: {silent[:5]}")
for s in socks: print(said[s])
"""
UDP_HEAR = """
import socket, struct, sys
socks = []
FAMILIES = (socket.AF_INET, socket.IPPROTO_IP, 8), (socket.AF_INET6, socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO)
for family, level, ask in FAMILIES:
    s = socket.socket(family, socket.SOCK_DGRAM)
    if family == socket.AF_INET6: s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    s.setsockopt(level, ask, 1)
    s.bind(("", int(sys.argv[1])))
    socks.append(s)
print("ready")
import select
while True:
    for s in select.select(socks, [], [])[0]:
        data, extra, flags, sender = s.recvmsg(99, 99)
        raw = extra[0][2]
        print(socket.inet_ntop(s.family, raw[8:12] if s.family == socket.AF_INET else raw[:16]))
"""
REACH = """
import socket, subprocess, sys, threading
seconds, port, *addresses = sys.argv[1:]
def ping(address):
    if subprocess.run(["ping", "-q", "-c", "1", "-W", seconds, address], stdout=subprocess.DEVNULL).returncode == 0:
        print(address, "by ping", flush=True)
def connect(address):
    try: socket.create_connection((address, int(port)), float(seconds)); print(address, "by TCP", flush=True)
    except OSError: pass
for address in addresses:
    for what in (ping, connect): threading.Thread(target=what, args=(address,)).start()
"""
TCP_CONNECT = """
import socket, sys
try: socket.create_connection((sys.argv[1], int(sys.argv[2])), float(sys.argv[3])); print("yes")
except OSError as error: print(error)
"""


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """The fleet of the scenario that molecule started."""
    directory = os.environ.get("MOLECULE_EPHEMERAL_DIRECTORY")
    if not directory:
        pytest.exit(
            "these tests run in a molecule scenario: molecule converge -s NAME, then molecule verify -s NAME", 2
        )
    return Fleet(Path(directory, "fleet"), tmp_path_factory.mktemp("runs"))


@pytest.fixture(params=[4, 6], ids=["v4", "v6"])
def version(request: pytest.FixtureRequest) -> int:
    """IPv4 and IPv6."""
    return request.param
