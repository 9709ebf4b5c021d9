"""Wire a starting container of a lab into the lab's networks: an OCI createRuntime hook.

Reads the container's state on standard input and does what its annotation "warren.lab" says:

    lab warren; host ams; net internet 198.51.100.1/24; link eth0 internet 198.51.100.11/24; via 198.51.100.1

    lab NAME                 everything is in the network namespace NAME-lab, nothing in the machine's own
    host NAME                names the near ends of the cables
    net NAME [ADDRESS...]    a network: a bridge, and the addresses at which it answers (it forwards nothing)
    link DEV NET ADDRESS...  a cable from the container to a network, and what the provider assigned
    route PREFIX DEV         a prefix that is on that cable too
    via ADDRESS              a default route

lab/down takes the namespace away. Runs on the machine's own Python, standard library only.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import subprocess
import sys
from pathlib import Path

NO_DAD = "net/ipv6/conf/{dev}/accept_dad"


def run(command: list[str], text: str = "") -> None:
    """Run a command; its error output becomes ours, and podman shows it."""
    done = subprocess.run(command, input=text, text=True, capture_output=True, check=False)
    if done.returncode:
        sys.exit(f"lab/plumb: {' '.join(command)}: {done.stderr.strip()}\n{text}")


def ip(program: list[str], *lines: str) -> None:
    """Feed lines to an `ip` that works in some namespace, all in one process."""
    run([*program, "-batch", "-"], "\n".join(lines) + "\n")


def set_sysctls(namespace: list[str], values: dict[str, str]) -> None:
    """Write kernel settings of a network namespace: /proc/sys/net shows the writer's own."""
    script = "\n".join(f"echo {value} >/proc/sys/{key}" for key, value in values.items())
    run([*namespace, "sh", "-ec", script])


def cable(host: str, dev: str) -> str:
    """Name the network's end of a cable, within the kernel's 15 bytes."""
    name = f"{host}.{dev}"
    return name if len(name) <= 15 else f"{dev}.{hashlib.sha256(name.encode()).hexdigest()[:8]}"[-15:]


def network_exists(lab: str, net: str) -> bool:
    """Say whether a network of the lab is there already."""
    done = subprocess.run(["ip", "-n", lab, "link", "show", f"br-{net}"], capture_output=True, check=False)
    return done.returncode == 0


def make_networks(lab: str, nets: dict[str, list[str]]) -> None:
    """Make the lab's namespace and its bridges, unless they are there."""
    inside = ["ip", "netns", "exec", lab]
    with Path("/run/lock/warren-lab-plumb").open("w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not Path(f"/run/netns/{lab}").exists():
            run(["ip", "netns", "add", lab])
            forward = {"net/ipv4/ip_forward": "0", "net/ipv6/conf/all/forwarding": "0"}
            set_sysctls(inside, {**forward, NO_DAD.format(dev="default"): "0"})
            ip(["ip", "-netns", lab], "link set lo up")
        for net, addresses in nets.items():
            if not network_exists(lab, net):
                bridge = f"br-{net}"
                ip(
                    ["ip", "-netns", lab],
                    f"link add {bridge} type bridge mcast_snooping 0",
                    *[f"address add {address} dev {bridge}" for address in addresses],
                    f"link set {bridge} up",
                )


def hardware(near: str) -> str:
    """The hardware address at the far end of a cable. A host keeps it when it restarts, for its neighbours know it."""
    return ":".join(["02", *(f"{byte:02x}" for byte in hashlib.sha256(near.encode()).digest()[:5])])


def wire(lab: str, pid: int, words: list[list[str]]) -> None:
    """Lay the container's cables and assign its addresses and routes."""
    inside = ["nsenter", "--target", str(pid), "--net"]
    host = next(word[1] for word in words if word[0] == "host")
    links = [word[1:] for word in words if word[0] == "link"]
    # A new namespace starts with the machine's own settings; a new server forwards nothing.
    set_sysctls(inside, {"net/ipv4/ip_forward": "0", NO_DAD.format(dev="default"): "0"})
    for dev, net, *_rest in links:
        near = cable(host, dev)
        # After a restart the kernel may not have taken the old cable away yet.
        subprocess.run(["ip", "-n", lab, "link", "delete", near], capture_output=True, check=False)
        ip(
            ["ip", "-netns", lab],
            f"link add {near} type veth peer name {dev} address {hardware(near)} netns {pid}",
            f"link set {near} master br-{net} up",
        )
    lines = ["link set lo up", *[f"link set {dev} up" for dev, *_rest in links]]
    for dev, _net, *addresses in links:
        # What is added first is what the kernel prefers as source on IPv4, what is added last on IPv6.
        lines += [f"address add {a} dev {dev}" for a in addresses if ":" not in a]
        lines += [f"address add {a} dev {dev} nodad" for a in reversed(addresses) if ":" in a]
    lines += [f"route add {word[1]} dev {word[2]}" for word in words if word[0] == "route"]
    lines += [f"route add default via {word[1]}" for word in words if word[0] == "via"]
    ip([*inside, "ip"], *lines)


def main() -> None:
    """Do what the annotation says."""
    state = json.load(sys.stdin)
    words = [part.split() for part in state["annotations"]["warren.lab"].split(";") if part.strip()]
    lab = next(word[1] for word in words if word[0] == "lab") + "-lab"
    make_networks(lab, {word[1]: word[2:] for word in words if word[0] == "net"})
    wire(lab, state["pid"], words)


if __name__ == "__main__":
    main()
