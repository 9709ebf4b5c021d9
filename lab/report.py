"""Try what the lab promises, and print a table of it. Every row was really tried. Fails if one does not work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NAME = os.environ.get("LAB_NAME") or "warren"
PAGES = {"IPv4": "http://198.51.100.80/ip", "IPv6": "http://[2001:db8:100::80]/ip"}
STATUS = "http://10.31.33.7/api/status"
# Ping every peer of the mesh through the tunnel, then count who has answered.
MESH = r"""
for a in $(wg show wg0ctl allowed-ips | grep -oE '[0-9]+(\.[0-9]+){3}'); do
  ping -q -c 1 -W 3 $a >/dev/null && echo up &
done
wait
"""


def inside(host: str, *command: str) -> str:
    """Run a command in one of the lab's hosts and return what it prints."""
    words = ["podman", "exec", f"{NAME}-{host}", *command]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else ""


def inventory() -> dict:
    """Read the inventory, with the extra servers if there are some."""
    extra = ROOT / ".lab" / NAME / "servers.json"
    command = [
        ROOT / ".venv/bin/ansible-inventory",
        "-i",
        "inventory/lab",
        *(["-i", extra] if extra.exists() else []),
        "--list",
    ]
    done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def members(data: dict, group: str) -> list[str]:
    """List a group's hosts."""
    found = data.get(group, {})
    return [*found.get("hosts", []), *(h for child in found.get("children", []) for h in members(data, child))]


def mesh_row(servers: list[str]) -> tuple[str, bool, str]:
    """Count the pairs of servers that reach each other."""
    with ThreadPoolExecutor(max_workers=4) as pool:
        up = sum(text.count("up") for text in pool.map(lambda host: inside(host, "sh", "-c", MESH), servers))
    pairs = len(servers) * (len(servers) - 1)
    return (
        "control mesh",
        up == pairs,
        f"{up} of {pairs} directed pairs of servers ping each other through their tunnels",
    )


def exits_row(servers: list[str]) -> tuple[str, bool, str]:
    """Count the exits that answer their entries, over the mesh and through their links."""
    with ThreadPoolExecutor(max_workers=4) as pool:
        listed = pool.map(lambda host: json.loads(inside(host, "warrenctl", "exits", "--json") or "[]"), servers)
        up = sum(exit_["reachable"] for exits in listed for exit_ in exits)
    pairs = len(servers) * (len(servers) - 1)
    return ("multihop", up == pairs, f"{up} of {pairs} directed pairs of servers are ready to let clients leave there")


def client_rows(client: dict, hostvars: dict, servers: list[str]) -> Iterator[tuple[str, bool, str]]:
    """See where a client comes out, per family."""
    for family, url in PAGES.items():
        text = inside(client["name"], "curl", "--silent", "--max-time", "10", url)
        seen = json.loads(text)["ip"] if text else "nothing"
        # Another server's, while the client has a session.
        owner = next((name for name in servers if seen in hostvars[name]["server_exit_addresses"]), "")
        said = f"the web sees {seen}" + (f", an exit address of {owner}" if owner else "")
        yield (f"{client['name']}, {family}", bool(owner), said)


def portal_row(clients: list[dict]) -> tuple[str, bool, str]:
    """Count the clients that see in the portal what the web sees of them."""
    right = 0
    for client in clients:
        said = json.loads(inside(client["name"], "curl", "--silent", "--max-time", "10", STATUS) or "{}")
        texts = [inside(client["name"], "curl", "--silent", "--max-time", "10", url) for url in PAGES.values()]
        right += all(texts) and [said.get("exit4"), said.get("exit6")] == [json.loads(text)["ip"] for text in texts]
    text = f"{right} of {len(clients)} clients are told there as whom the web sees them"
    return ("portal", right == len(clients), text)


def main() -> int:
    """Try everything and print it."""
    data = inventory()
    hostvars = data["_meta"]["hostvars"]
    servers = members(data, "warren_servers")
    clients = [
        c
        for c in hostvars[servers[0]].get("warren_clients", [])
        if c.get("server") and c["name"] in members(data, "lab")
    ]
    everyone = servers + members(data, "lab")
    running = sum(inside(host, "echo", "up") == "up\n" for host in everyone)
    rows = [("hosts", running == len(everyone), f"{running} of {len(everyone)} run")]
    rows += [mesh_row(servers), exits_row(servers)]
    for client in clients:
        rows += client_rows(client, hostvars, servers)
    rows.append(portal_row(clients))
    width = max(len(row[0]) for row in rows)
    print()
    for what, good, text in rows:
        print(f"  {'ok    ' if good else 'FAILED'}  {what:{width}}  {text}")
    print("\nTry:")
    print(f"  podman exec {NAME}-ams warrenctl start alice nyc")
    print(f"  podman exec {NAME}-alice curl -s http://198.51.100.80/ip")
    print(f"  podman exec {NAME}-alice curl -s {STATUS}")
    print("  .venv/bin/ansible-playbook playbooks/status.yml")
    return 0 if all(row[1] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
