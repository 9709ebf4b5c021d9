"""What a client keeps sending while something is done to its servers."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

PORT = 7010
"""Where what is sent goes."""

# New flows, one flow that goes on, TCP and pings, in both families, every few milliseconds.
STREAM = """
import itertools, os, socket, struct, sys, time
name = "warren-stream"
web = {socket.AF_INET: sys.argv[1], socket.AF_INET6: sys.argv[2]}
port, pause, more = int(sys.argv[3]), float(sys.argv[4]), bytes(int(sys.argv[5]))
kept = {family: socket.socket(family, socket.SOCK_DGRAM) for family in web}
pings = {
    socket.AF_INET: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
    socket.AF_INET6: socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6),
}
def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF
tcp = []
for number in itertools.count():
    for family, address in web.items():
        def sent(what):
            try: what()
            except OSError: pass
        sent(lambda: kept[family].sendto(b"kept", (address, port)))
        with socket.socket(family, socket.SOCK_DGRAM) as s: sent(lambda: s.sendto(b"new", (address, port)))
        kind = 8 if family == socket.AF_INET else 128
        def packed(sum): return struct.pack("!BBHHH", kind, 0, sum, os.getpid() & 0xFFFF, number & 0xFFFF) + more
        echo = packed(checksum(packed(0)) if kind == 8 else 0)
        sent(lambda: pings[family].sendto(echo, (address, 0)))
        if number % 10 == 0:
            s = socket.socket(family, socket.SOCK_STREAM)
            s.setblocking(False)
            sent(lambda: s.connect((address, port)))
            tcp.append(s)
    for s in tcp[:-40]: s.close()
    del tcp[:-40]
    time.sleep(pause)
"""


@contextmanager
def streaming(
    fleet: Any, client: str = "alice", port: int = PORT, more: int = 0, pause: float = 0.01
) -> Iterator[None]:
    """A client sends meanwhile.

    Args:
        fleet: see conftest.py.
        client: who.
        port: of the web.
        more: bytes of its pings beyond eight, an even number, by which they can be told from another's.
        pause: seconds.
    """
    words = f"{fleet.web(4)} {fleet.web(6)} {port} {pause * fleet.slowness} {more}"
    stream = fleet.background(client, f"exec python3 -c {shlex.quote(STREAM)} {words}")
    try:
        yield
        assert stream.poll() is None, stream.communicate()[0]
    finally:
        fleet.try_sh(client, "pkill -KILL -f warren-[s]tream")
        stream.communicate(timeout=10)
