"""Start the hosts of a lab, or mend what is missing. Run again, it changes nothing.

The options' defaults are the environment's LAB_NAME, LAB_IMAGE, LAB_SERVERS and LAB_MACHINE. See lab/README.md.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
STATE = ROOT / ".lab"
FIRST_EXTRA, MOST = 5, 60  # ams, fra, nyc and sgp are servers 1 to 4

SSH_CONFIG = """\
# Made by lab/up. Reaches the lab's hosts without a network: ssh -F {state}/ssh_config warren-ams
Host *
  User root
  IdentityFile {state}/id_ed25519
  IdentitiesOnly yes
  UserKnownHostsFile {state}/known_hosts
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
  BatchMode yes
  LogLevel ERROR
  ProxyCommand {way}podman exec --interactive %h /usr/sbin/sshd -i
"""
INSIDE = "/srv/warren"  # where lab/machine puts the checkout


RESOLV_CONF = """\
# There is no name server in the lab: fail at once.
nameserver 127.0.0.1
options timeout:1 attempts:1
"""


def options() -> argparse.Namespace:
    """Read the command line."""
    env = os.environ.get
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default=env("LAB_NAME") or "warren", help="the lab's name and its containers' prefix")
    parser.add_argument(
        "--hosts", default="all", help="only these hosts, separated by commas; the others stay as they are"
    )
    parser.add_argument(
        "--image", default=env("LAB_IMAGE") or "bookworm", help="bookworm, trixie, minimal-bookworm, minimal-trixie"
    )
    parser.add_argument(
        "--host-image", action="append", default=[], metavar="HOST=IMAGE", help="another image for one host"
    )
    parser.add_argument(
        "--servers", type=int, default=int(env("LAB_SERVERS") or 0), help="so many servers in all, up to 60"
    )
    parser.add_argument("--inventory", default=str(ROOT / "inventory/lab"), help="default: inventory/lab")
    parser.add_argument(
        "--machine", default=env("LAB_MACHINE") or "", help="the hosts are containers of this machine of lab/machine's"
    )
    args = parser.parse_args()
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,30}", args.name):
        parser.error("--name: letters, digits and hyphens, please")
    if args.servers > MOST:
        parser.error(f"--servers: at most {MOST}")
    return args


def write(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a file, unless it is like that already."""
    if not path.exists() or path.read_text() != text:
        path.touch(mode)
        path.write_text(text)


def make_keys() -> None:
    """Make the key of the person who runs the lab, and the one its hosts show; once per checkout."""
    STATE.mkdir(mode=0o700, exist_ok=True)
    for name in ("id_ed25519", "ssh_host_ed25519_key"):
        if not (STATE / name).exists():
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "warren-lab", "-f", str(STATE / name)]
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    kind, key, *_rest = (STATE / "ssh_host_ed25519_key.pub").read_text().split()
    write(STATE / "known_hosts", f"* {kind} {key}\n")
    write(STATE / "resolv.conf", RESOLV_CONF)
    write(STATE / "ssh_config", SSH_CONFIG.format(state=STATE, way=""))


def extra_server(number: int) -> dict:
    """Describe a server beyond the inventory's own four."""
    return {
        "server_id": number,
        "server_entry_addresses": [f"100.80.0.{number}", f"2001:db8:100::1:{number}"],
        "server_exit_addresses": [f"100.80.{n}.{number}" for n in (1, 2)]
        + [f"2001:db8:100::{n}:{number}" for n in (2, 3)],
    }


def extra_inventory(name: str, count: int) -> list[str]:
    """Write the inventory of the extra servers and drop those that are too many. Without a count all stays."""
    path = STATE / name / "servers.json"
    if count:
        hosts = {f"s{number:03}": extra_server(number) for number in range(FIRST_EXTRA, count + 1)}
        groups = {group: {"hosts": {host: {} for host in hosts}} for group in ("warren_servers", "warren_access")}
        groups["lab_extra"] = {"hosts": hosts, "vars": {"lab_dir": str(STATE)}}
        path.parent.mkdir(exist_ok=True)
        write(path, json.dumps(groups, indent=1))
        listed = subprocess.run([sys.executable, HERE / "containers.py"], capture_output=True, text=True, check=True)
        for container in json.loads(listed.stdout):
            host = container["name"].removeprefix(f"{name}-")
            if container["lab"] == name and re.fullmatch(r"s\d{3}", host) and host not in hosts:
                subprocess.run(["podman", "rm", "--force", "--time", "0", container["name"]], check=True)
        if not hosts:
            path.unlink()
    return ["-i", str(path)] if path.exists() else []


def in_machine(args: argparse.Namespace) -> int:
    """Start the hosts in a machine that lab/machine has started, and write how they are reached from here.

    Where that is: .lab/machines/NAME/kept, which is LAB_DIR for the playbooks, with `ssh_config` and keys as in .lab.
    """
    machine, there = [str(HERE / "machine")], f"{INSIDE}/.lab/inventory"
    state = STATE / "machines" / args.machine / "kept"
    subprocess.run([*machine, "put", args.machine], check=True)
    reach = [*machine, "ssh", args.machine]
    packed = subprocess.run(["tar", "-c", "-C", args.inventory, "."], stdout=subprocess.PIPE, check=True).stdout
    subprocess.run([*reach, f"mkdir -p {there} && tar -x -C {there}"], input=packed, check=True)
    words = ["lab/up", "--name", args.name, "--hosts", args.hosts, "--image", args.image, "--inventory", there]
    words += [word for pair in args.host_image for word in ("--host-image", pair)]
    slowness = (state.parent / "slowness").read_text().strip()
    command = f"cd {INSIDE} && LAB_SLOWNESS={slowness} {shlex.join(words)}"
    code = subprocess.run([*reach, command], stdin=subprocess.DEVNULL, check=False).returncode
    if code == 0:
        fetch = [*reach, f"tar -c -C {INSIDE}/.lab id_ed25519 known_hosts"]
        packed = subprocess.run(fetch, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True).stdout
        subprocess.run(["tar", "-x", "-C", str(state)], input=packed, check=True)
        # Relative to LAB_DIR: what is kept may go on in another checkout, under another name.
        write(
            state / "ssh_config", SSH_CONFIG.format(state="${LAB_DIR}", way="ssh -F ${LAB_DIR}/../ssh_config machine ")
        )
    return code


def main() -> int:
    """Prepare the state directory, then let the playbook do the rest."""
    args = options()
    if args.machine:
        return in_machine(args)
    # Until there are containers that show it, `make clean` of another checkout sees by this that the images are in use.
    in_use = Path("/run/lock/warren-kept").open("a")  # noqa: SIM115 - it ends with the process
    fcntl.flock(in_use, fcntl.LOCK_SH)
    make_keys()
    inventory = Path(args.inventory).resolve()
    inventories = ["-i", str(inventory), *extra_inventory(args.name, args.servers)]
    # The caller may be a test tool with an Ansible configuration of its own.
    env = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
    env |= {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "LAB_NAME": args.name, "LAB_DIR": str(STATE)}
    env |= {"ANSIBLE_DISPLAY_OK_HOSTS": "no", "ANSIBLE_DISPLAY_SKIPPED_HOSTS": "no"}
    program = ROOT / ".venv/bin/ansible-playbook"
    if not program.exists():
        sys.exit("lab/up: there is no .venv yet: run `make venv` first")
    variables = {
        "lab_name": args.name,
        "lab_dir": str(STATE),
        "lab_inventory": str(inventory if inventory.is_dir() else inventory.parent),
        "lab_base_image": args.image,
        "lab_images": dict(pair.split("=", 1) for pair in args.host_image),
    }
    command = [str(program), *inventories, "--limit", args.hosts, "-e", json.dumps(variables), str(HERE / "up.yml")]
    return subprocess.run(command, env=env, stdin=subprocess.DEVNULL, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
