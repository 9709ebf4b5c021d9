"""Sends packets in a namespace as quickly as one CPU can, lists flows and forgets them. Asked by lines of JSON.

    send.py INTERFACE    {"sources": [...], "packets": N}    each address sends so many, to one port
                         {"sources": [...], "seconds": S}    the same again and again for so long
                         {"sources": [...], "flows": N, "seconds": S}    each packet begins a flow, at most N
                         {"answers": [[address, port], ...], "seconds": S}    the targets answer flows again and again
    send.py forget       {}: forget all flows of this namespace
                         {"list": true}: as which address and port each flow to the targets is seen by them

Answers, but to the last, with the packets sent and the seconds it took. A packet goes all its way, through every
namespace, before sendmmsg(2) comes back: so one sender measures what one CPU forwards.
"""

from __future__ import annotations

import ctypes
import ipaddress
import itertools
import json
import os
import socket
import struct
import sys
import time
from pathlib import Path

AT_ONCE = 32
ETHERNET = bytes.fromhex("020000000001" * 2)
PAYLOAD = bytes(22)
UDP, PORT, FIRST_PORT = 17, 9, 40000
TARGET = {4: ipaddress.ip_address("198.51.100.128"), 6: ipaddress.ip_address("2001:db8:80::")}
TARGETS = 100

libc = ctypes.CDLL(None, use_errno=True)


def checksum(data: bytes) -> int:
    """The checksum of the internet protocols, of an even number of bytes."""
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def frame(source: str, number: int, sport: int, dport: int, back: bool = False) -> bytes:
    """An Ethernet frame from an address to the target of that number, or ``back`` from there."""
    sender = ipaddress.ip_address(source)
    target = TARGET[sender.version] + number
    sender, target = (target, sender) if back else (sender, target)
    length = 8 + len(PAYLOAD)
    if sender.version == 4:
        ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + length, 0, 0, 64, UDP, 0, sender.packed, target.packed)
        ip = ip[:10] + struct.pack(">H", checksum(ip)) + ip[12:]
        return ETHERNET + b"\x08\x00" + ip + struct.pack(">HHHH", sport, dport, length, 0) + PAYLOAD
    ip = struct.pack(">IHBB16s16s", 6 << 28, length, UDP, 64, sender.packed, target.packed)
    pseudo = sender.packed + target.packed + struct.pack(">II", length, UDP)
    ports = struct.pack(">HHH", sport, dport, length)
    total = checksum(pseudo + ports + bytes(2) + PAYLOAD) or 0xFFFF
    return ETHERNET + b"\x86\xdd" + ip + ports + struct.pack(">H", total) + PAYLOAD


def new_flows(sources: list[str], number: int) -> list[bytes]:
    """A frame for each of so many flows: no two have the same target and port."""
    frames = []
    for source, begin in zip(sources, itertools.count()):
        first = bytearray(frame(source, 0, FIRST_PORT, 0))
        ip, start = first[14:34], 34
        targets = {}
        for target in range(TARGETS):
            ip[16:20] = (TARGET[4] + target).packed
            ip[10:12] = bytes(2)
            targets[target] = bytes(ip[:10]) + struct.pack(">H", checksum(bytes(ip))) + bytes(ip[12:])
        head, sport, tail = bytes(first[:14]), bytes(first[start : start + 2]), bytes(first[start + 4 :])
        frames += [
            head + targets[index % TARGETS] + sport + (1024 + index // TARGETS).to_bytes(2, "big") + tail
            for index in range(begin, number, len(sources))
        ]
    return frames


class Messages:
    """Frames as sendmmsg(2) takes them (struct mmsghdr of 64-bit Linux), made before the clock starts."""

    def __init__(self, frames: list[bytes]) -> None:
        """Lay them out one after the other."""
        self.number = len(frames)
        self._data = ctypes.create_string_buffer(b"".join(frames))
        places = itertools.accumulate(map(len, frames), initial=ctypes.addressof(self._data))
        pairs = (struct.pack("=QQ", place, len(each)) for place, each in zip(places, frames, strict=False))
        self._vectors = ctypes.create_string_buffer(b"".join(pairs))
        first = ctypes.addressof(self._vectors)
        headers = (struct.pack("=QQQQQQQQ", 0, 0, first + 16 * i, 1, 0, 0, 0, 0) for i in range(self.number))
        self._headers = ctypes.create_string_buffer(b"".join(headers))

    def send(self, sock: socket.socket, seconds: float, again: bool) -> tuple[int, float]:
        """Send for so long, or until each is sent once. Returns how many, and how long that took."""
        descriptor, first, sent, place = sock.fileno(), ctypes.addressof(self._headers), 0, 0
        began = now = time.perf_counter()
        while now - began < seconds and (again or sent < self.number):
            number = min(AT_ONCE, self.number - place)
            done = libc.sendmmsg(descriptor, ctypes.c_void_p(first + 64 * place), number, 0)
            if done < 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            sent += done
            place = (place + done) % self.number
            now = time.perf_counter()
        return sent, now - began


def forget() -> tuple[int, float]:
    """Delete all entries of connection tracking: IPCTNL_MSG_CT_DELETE without a filter."""
    began = time.perf_counter()
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as sock:
        sock.send(struct.pack("=IHHIIBBH", 20, (1 << 8) | 2, 0x5, 1, 0, 0, 0, 0))
        sock.recv(4096)
    return 0, time.perf_counter() - began


def listed() -> list[tuple[str, int]]:
    """The flows of this namespace to the targets, each as they see it: where an answer goes to."""
    wanted = f"dst={TARGET[4]} "
    found = []
    for line in Path("/proc/thread-self/net/nf_conntrack").read_text().splitlines():
        _before, _source, answer = line.partition(f" src={TARGET[4]} ")
        if wanted in line and answer:
            words = dict(word.split("=", 1) for word in answer.split() if "=" in word)
            found.append((words["dst"], int(words["dport"])))
    return found


def main() -> None:
    """Answer until the input ends."""
    sock = None
    if sys.argv[1] != "forget":
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        sock.bind((sys.argv[1], 0))
    for line in sys.stdin:
        asked = json.loads(line)
        if asked.get("list"):
            answer = listed()
        elif sock is None:
            answer = forget()
        elif "flows" in asked:
            answer = Messages(new_flows(asked["sources"], asked["flows"])).send(sock, asked["seconds"], False)
        elif "answers" in asked:
            frames = [frame(address, 0, PORT, port, back=True) for address, port in asked["answers"]]
            answer = Messages(frames * -(-AT_ONCE // len(frames))).send(sock, asked["seconds"], True)
        else:
            frames = [frame(source, 0, FIRST_PORT, PORT) for source in asked["sources"]] * asked.get("packets", 1)
            if "seconds" in asked:
                frames *= -(-AT_ONCE // len(frames))
            answer = Messages(frames).send(sock, asked.get("seconds", 60.0), "seconds" in asked)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
