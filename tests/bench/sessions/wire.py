"""A mesh link whose ends are apart: a TUN interface in each of two namespaces, and packets that take their time.

wire.py NAME SECONDS SPACE SPACE    prints a line once both interfaces are there; SECONDS is one way
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import itertools
import os
import select
import struct
import sys
import time
from contextlib import suppress
from pathlib import Path

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x1, 0x1000
CLONE_NEWNET = 0x4000_0000

libc = ctypes.CDLL(None, use_errno=True)


def tunnel(space: str, name: str) -> int:
    """Make a TUN interface in a namespace."""
    with Path("/run/netns", space).open() as file:
        if libc.setns(file.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    descriptor = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    return descriptor


def main() -> None:
    """Carry packets until somebody ends it."""
    name, seconds, *spaces = sys.argv[1:]
    one, other = (tunnel(space, name) for space in spaces)
    towards = {one: other, other: one}
    print("true", flush=True)
    waiting: list[tuple[float, int, int, bytes]] = []
    order = itertools.count()
    while True:
        patience = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        for descriptor in select.select([one, other], [], [], patience)[0]:
            item = (time.monotonic() + float(seconds), next(order), towards[descriptor], os.read(descriptor, 65536))
            heapq.heappush(waiting, item)
        while waiting and waiting[0][0] <= time.monotonic():
            due = heapq.heappop(waiting)
            with suppress(OSError):  # that end is not up yet
                os.write(due[2], due[3])


if __name__ == "__main__":
    main()
