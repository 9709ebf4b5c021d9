"""What operators do to the inventory."""

from __future__ import annotations

import shlex
import subprocess
from contextlib import contextmanager

import pytest
import yaml

LON = {
    "server_id": 5,
    "server_entry_addresses": ["198.51.100.15", "2001:db8:100::15"],
    "server_exit_addresses": ["198.51.100.25", "198.51.100.35", "2001:db8:100::25", "2001:db8:100::35"],
}


class Operator:
    """Edits the scenario's inventory, and lets traffic run meanwhile."""

    def __init__(self, fleet):
        """Take the fleet."""
        self.fleet = fleet

    def edit(self, name, change):
        """Change a YAML file of the inventory by a function."""
        path = self.fleet.inventory / name
        data = yaml.safe_load(path.read_text())
        change(data)
        path.write_text(yaml.safe_dump(data))

    def add_lon(self, name="lon", variables=None):
        """Put a further server in the inventory, and start its host as the provider would."""
        variables = variables or LON
        self.fleet.variables[name] = variables
        self.fleet.servers.append(name)
        self.edit("hosts.yml", lambda data: data["warren_servers"]["hosts"].update({name: variables}))
        program = self.fleet.root / "lab/up"
        command = [program, "--name", self.fleet.lab, "--inventory", self.fleet.inventory, "--hosts", name]
        subprocess.run(command, check=True, capture_output=True)

    def drop_server(self, name):
        """Take a server out of the inventory."""
        del self.fleet.variables[name]
        self.fleet.servers.remove(name)
        self.edit("hosts.yml", lambda data: data["warren_servers"]["hosts"].pop(name))

    def set_clients(self, *names):
        """Have just these clients in the inventory."""
        clients = [{"name": name, "server": "ams"} for name in names]
        self.edit("group_vars/all/fleet.yml", lambda data: data.update(warren_clients=clients))

    def peers(self, server):
        """The names of a server's peers on the mesh."""
        names = {self.fleet.public_key(other): other for other in self.fleet.servers}
        return {names.get(key, key) for key in self.fleet.wg(server, "wg0ctl", "allowed-ips")}

    @contextmanager
    def nothing_is_lost(self, server, other):
        """Ping one server from another over the mesh every 5 ms, the web from alice every 20 ms; let her download."""
        fleet = self.fleet
        running = [
            fleet.background(server, f"exec ping -i 0.005 {fleet.control(other)} >/run/ping"),
            fleet.background("alice", f"exec ping -i 0.02 {fleet.web()} >/run/ping"),
            fleet.background("alice", f"exec python3 -c {shlex.quote(DOWNLOAD)} {fleet.web()}"),
        ]
        try:
            for name in (server, "alice"):
                fleet.wait_for(lambda name=name: self.answered(name), f"pings of {name} are answered")
            fleet.wait_for(lambda: self.loaded()[0], "the download runs")
            yield
            before, _gap = self.loaded()
            fleet.wait_for(lambda: self.loaded()[0] > before, "the download goes on", 5)
            assert self.loaded()[1] < 2, "seconds without a byte of the download"
            assert running[2].poll() is None, "the download ended"
        finally:
            fleet.try_sh(server, "pkill -INT -x ping")
            fleet.try_sh("alice", "pkill -INT -x ping; pkill -f warren-download")
            for process in running:
                process.communicate(timeout=10)
        for name in (server, "alice"):
            numbers = self.answered(name)
            lost = sorted(set(range(1, max(numbers))) - set(numbers))
            assert not lost, f"{name} lost {len(lost)} of {max(numbers)} pings: {lost[:20]}"

    def answered(self, name):
        """The numbers of the pings that were answered."""
        text = self.fleet.try_sh(name, "grep -o 'icmp_seq=[0-9]*' /run/ping | cut -d= -f2").stdout
        return [int(word) for word in text.split()]

    def loaded(self):
        """How many bytes alice's download has brought, and the longest time without one, in seconds."""
        text = self.fleet.try_sh("alice", "cat /run/load").stdout.split()
        return (int(text[0]), float(text[1])) if text else (0, 0.0)


# About 160 kB/s, little enough for userspace WireGuard beside a run, and /run/load says how it goes.
DOWNLOAD = """
import pathlib, socket, sys, time
name = "warren-download"
web = socket.create_connection((sys.argv[1], 80))
web.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
web.sendall(b"GET /bytes/99999999999 HTTP/1.1\\r\\nHost: web\\r\\n\\r\\n")
loaded, longest = 0, 0.0
file = pathlib.Path("/run/load")
while True:
    time.sleep(0.05)
    asked = time.monotonic()
    data = web.recv(8192)
    if not data: break
    loaded, longest = loaded + len(data), max(longest, time.monotonic() - asked)
    file.with_suffix(".new").write_text(f"{loaded} {longest}")
    file.with_suffix(".new").rename(file)
"""


@pytest.fixture(scope="session")
def operator(fleet):
    """An operator of the scenario's fleet."""
    return Operator(fleet)


# The last commit before parts had owners: it noted on hosts what was wanted, but not by whom.
BEFORE = "9995eb3"


@pytest.fixture(scope="session", autouse=True)
def upgrade(fleet, operator, tmp_path_factory):
    """The scenario's fleet is deployed by an earlier release, and brought up to date with a client at work."""
    if fleet.try_sh("ams", "test -e /etc/warren/network.json").returncode == 0:
        return None  # whoever runs some of the tests by hand has been here
    old = tmp_path_factory.mktemp("before")
    tree = old / "ansible_collections/warren/vpn"
    tree.mkdir(parents=True)
    archive = subprocess.run(["git", "archive", BEFORE], cwd=fleet.root, check=True, capture_output=True).stdout
    subprocess.run(["tar", "--extract", "--directory", tree], input=archive, check=True)
    deploy = fleet.root / "molecule/shared/converge.yml"
    fleet.playbook(str(deploy), env={"ANSIBLE_COLLECTIONS_PATH": str(old)})
    fleet.wait_for(lambda: fleet.answers("alice", fleet.web(), 1), "alice is connected", 60)
    fleet.wait_for(lambda: fleet.ctl("ams", "exits")[-1]["reachable"], "nyc is an exit", 60)
    fleet.ctl("ams", "start", "alice", "nyc")
    before = {server: standing(fleet, server) for server in fleet.servers}
    sessions = fleet.ctl("ams", "list")
    with operator.nothing_is_lost("ams", "fra"):
        run = fleet.site()
    after = {server: standing(fleet, server) for server in fleet.servers}
    kept = fleet.ctl("ams", "list")
    fleet.ctl("ams", "stop", "alice")
    return {"run": run, "before": before, "after": after, "sessions": (sessions, kept)}


def standing(fleet, server):
    """What an interruption would make anew: interfaces, and the processes that run them."""
    links = fleet.sh(server, "for link in /sys/class/net/wg0*; do echo ${link##*/} $(cat $link/ifindex); done")
    return links + fleet.sh(server, "systemctl show -p MainPID,ExecMainStartTimestampMonotonic 'warren-wireguard-go@*'")
