"""Network namespaces with the tables that the roles render, packets in them, and what conntrack makes of those."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import ipaddress
import os
import re
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from warrend.conntrack import EXIT_KIND, OWN_KIND, handle

from ansible_collections.warren.vpn.plugins.module_utils import _interfaces, _link, _nftables, _rules, _sysctl
from ansible_collections.warren.vpn.plugins.plugin_utils import _links, _templates, _views

CLONE_NEWNET = 0x4000_0000
OWN = Path("/proc/thread-self/ns/net")
CONNTRACK = Path("/proc/thread-self/net/nf_conntrack")
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x1, 0x1000
LIBC = ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@contextmanager
def fresh() -> Iterator[None]:
    """Put the calling thread in a new network namespace, as unshare(1) does, and back."""
    assert os.geteuid() == 0, "run the agent's tests as root: they make network namespaces"
    with OWN.open("rb") as outside:
        before, cpus = OWN.readlink(), os.sched_getaffinity(0)
        _checked(LIBC.unshare(CLONE_NEWNET))
        try:
            os.sched_setaffinity(0, {min(cpus)})  # see Tun.packets
            assert OWN.readlink() != before, "or the tests would change the firewall of this machine"
            command("ip", "link", "set", "lo", "up")
            yield
        finally:
            _checked(LIBC.setns(outside.fileno(), CLONE_NEWNET))
            os.sched_setaffinity(0, cpus)
    assert OWN.readlink() == before


def command(*words: str, text: str | None = None) -> str:
    """What a command says."""
    done = subprocess.run(words, input=text, capture_output=True, text=True, check=False)
    assert not done.returncode, f"{words}: {done.stderr}"
    return done.stdout


def nft(script: str) -> str:
    """Have nft(8) run a script: somebody else's transaction."""
    return command("nft", "--file", "-", text=script)


TABLES = {
    "warren_path": ("packet_path", _views.packet_path),
    "warren_wireguard": ("server", _views.wireguard),
    "warren_control_mesh": ("control_mesh", _views.control_mesh),
}
"""The role that has each table's template, and what the template reads of the fleet."""


def table_script(fleet: dict[str, Any], name: str, table: str) -> str:
    """The file of a table on a server, as its role renders it."""
    more = {
        "warren_path": {
            "refused_destinations4": ["10.0.0.0/8"],
            "refused_destinations6": ["fd00::/8"],
            "portal_tcp_ports": [80],
        },
        "warren_control_mesh": {"tcp_ports": []},
    }
    role, view = TABLES[table]
    values = {"server": view(fleet, name), **more.get(table, {})}
    content = _templates.render(f"{role}/etc/warren/nftables.d/{table}.nft.j2", values)
    return _nftables.Table(table, content).script(create_secrets=False)


def load_tables(fleet: dict[str, Any], name: str, *tables: str) -> None:
    """Load the tables of a server that a client's packet passes, or these."""
    for table in tables or ("warren_path", "warren_wireguard"):
        nft(table_script(fleet, name, table))


def approve(address4: str, address6: str, mark: int | None = None) -> None:
    """Give a client's packets a mark, as the agent does: to leave from here, or by an exit that has this mark."""
    own, by_exit = (kind << 28 | handle(address4) for kind in (OWN_KIND, EXIT_KIND))
    for family, address in (("4", address4), ("6", address6)):
        nft(f"add element inet warren_path client_mark{family} {{ {address} : {mark or own} }}")
        nft(f"add element inet warren_path client_flow{family} {{ {address} : {by_exit} }}")


def udp(source: str, destination: str, source_port: int = 1000, port: int = 9) -> bytes:
    """A UDP packet."""
    payload = struct.pack(">HHHH", source_port, port, 12, 0) + b"test"
    if ":" in source:
        ends = b"".join(socket.inet_pton(socket.AF_INET6, address) for address in (source, destination))
        return struct.pack(">IHBB", 6 << 28, len(payload), socket.IPPROTO_UDP, 64) + ends + payload
    ends = socket.inet_aton(source) + socket.inet_aton(destination)
    header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, 64, socket.IPPROTO_UDP, 0) + ends
    total = sum(struct.unpack(">10H", header))
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    return header[:10] + struct.pack(">H", checksum) + header[12:] + payload


def source_of(packet: bytes) -> str:
    """Where a packet comes from."""
    if packet[0] >> 4 == 6:
        return socket.inet_ntop(socket.AF_INET6, packet[8:24])
    return socket.inet_ntop(socket.AF_INET, packet[12:16])


def send_over_lo(source: str, source_port: int = 1000) -> None:
    """Send a packet over lo from whatever address."""
    family, target = (socket.AF_INET6, ("::1", 0, 0, 0)) if ":" in source else (socket.AF_INET, ("127.0.0.1", 0))
    with socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
        sock.sendto(udp(source, str(target[0]), source_port), target)


class Tun:
    """A network interface whose packets come from here and end here."""

    def __init__(self, name: str) -> None:
        """Make it, up."""
        self._file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(self._file, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
        command("ip", "link", "set", name, "up")

    def send(self, packet: bytes) -> None:
        """Have a packet come in there."""
        os.write(self._file, packet)

    def packets(self, *protocols: int) -> list[bytes]:
        """The packets of these protocols, TCP and UDP if none is given, that went out there.

        On a busy machine the kernel puts off what was sent, on the processor of who sent it: nothing is waiting there.
        """
        backlog, end = 1, time.monotonic() + 10
        while backlog and time.monotonic() < end:
            rows = [line.split() for line in Path("/proc/net/softnet_stat").read_text().splitlines()]
            (cpu,) = os.sched_getaffinity(0)
            backlog = next(int(row[11], 16) for row in rows if int(row[12], 16) == cpu)
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                packet = os.read(self._file, 2000)
                if packet[6 if packet[0] >> 4 == 6 else 9] in (protocols or (socket.IPPROTO_TCP, socket.IPPROTO_UDP)):
                    found.append(packet)
        return found

    def sources(self) -> list[str]:
        """Where the UDP packets come from that went out there."""
        return [source_of(packet) for packet in self.packets(socket.IPPROTO_UDP)]

    def close(self) -> None:
        """Remove it."""
        os.close(self._file)


def rules_of(fleet: dict[str, Any], name: str) -> list[_rules.Rule]:
    """The routing rules that a server's roles declare."""
    roles = ["control_mesh", *(["access"] if fleet["servers"][name]["access"] else []), "multihop"]
    data = [rule for role in roles for rule in _links.routing_rules(fleet, name, role)]
    return [rule for each in data for rule in _rules.rules_from(each)]


@contextmanager
def router(fleet: dict[str, Any], name: str) -> Iterator[dict[str, Tun]]:
    """A server's tables, routes and interfaces: of clients, of links, and towards the internet (``uplink``)."""
    access = fleet["servers"][name]["access"]
    listed = [
        *_links.multihop_links(fleet, name),
        _links.control_mesh_link(fleet, name),
        *([_links.access_link(fleet, name)] if access else []),
    ]
    links = [_link.link_from(link) for link in listed]
    for setting in ("ipv4/ip_forward", "ipv6/conf/all/forwarding", "ipv4/conf/all/src_valid_mark"):
        Path("/proc/sys/net", setting).write_text("1")
    load_tables(fleet, name)
    tuns = {each: Tun(each) for each in (*(link.name for link in links), "uplink")}
    try:
        nothing = _link.Link("", "", "", 0, 1500, (), frozenset())
        steps = [step for link in links for step in _interfaces.steps(link, nothing)]
        _interfaces.apply(steps)
        _interfaces.batch(_rules.steps(rules_of(fleet, name), []))
        for key, value in _sysctl.of_links(links).items():
            Path("/proc/sys", key).write_text(value)
        entry = fleet["servers"][name]
        for address in (entry["entry4"], entry["entry6"]):
            command("ip", "address", "add", address, "dev", "uplink", *(["nodad"] if ":" in address else []))
        for six in ("-4", "-6"):
            command("ip", six, "route", "add", "default", "dev", "uplink")
        yield tuns
    finally:
        for tun in tuns.values():
            tun.close()


ENTRY = re.compile(r"src=(?P<source>\S+) dst=\S+ sport=(?P<port>\d+) .*?mark=(?P<mark>\d+)")


def flows() -> dict[tuple[str, int], int]:
    """The marks of all flows by the address and the port that began them, as the kernel itself lists them."""
    found = {}
    for line in CONNTRACK.read_text().splitlines():
        match = ENTRY.search(line)
        assert match, line
        found[str(ipaddress.ip_address(match["source"])), int(match["port"])] = int(match["mark"])
    return found
