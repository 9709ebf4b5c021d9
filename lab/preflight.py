"""Refuse to start a lab whose prefixes meet a route or an address of this machine.

    python3 lab/preflight.py PREFIX...

The lab is in network namespaces of its own and could not take such traffic away, but its hosts could be mistaken
for the real ones, and a test gone wrong must not have a real network to reach.
"""

from __future__ import annotations

import ipaddress
import json
import subprocess
import sys

REMEDY = """
Change lab_networks in inventory/lab/group_vars/lab_machines.yml, and with it the addresses in
inventory/lab/hosts.yml and inventory/lab/group_vars/lab.yml, to a prefix that is free here."""
WIDE = 3  # 0.0.0.0/1 or 2000::/3 is a default route by another name


def ip(*words: str) -> list[dict]:
    """Run `ip` and return what it says."""
    done = subprocess.run(["ip", "-json", *words], capture_output=True, text=True, check=True)
    return json.loads(done.stdout or "[]")


def machine_prefixes() -> list[tuple[str, str]]:
    """List this machine's own prefixes, with what has them."""
    found = []
    for link in ip("address"):
        for address in link.get("addr_info", []):
            if "local" in address:
                found.append((f"{address['local']}/{address['prefixlen']}", f"an address of {link['ifname']}"))
    for family in ("-4", "-6"):
        for route in ip(family, "route", "show", "table", "all", "type", "unicast"):
            if route["dst"] != "default":
                found.append((route["dst"], f"a route by {route.get('dev') or route.get('gateway', '?')}"))
    return found


def main() -> None:
    """Compare, and stop on the first kind of trouble with all of it."""
    wanted = [ipaddress.ip_network(text) for text in sys.argv[1:]]
    problems = []
    for text, what in machine_prefixes():
        own = ipaddress.ip_interface(text).network
        for lab in wanted:
            if own.prefixlen > WIDE and own.version == lab.version and own.overlaps(lab):
                problems.append(f"the lab's prefix {lab} meets {text}, {what}")
    if problems:
        sys.exit("\n".join(dict.fromkeys(problems)) + REMEDY)


if __name__ == "__main__":
    main()
