"""Starts the agent as systemd does, but for the paths of the bench.

    runner.py CODE CONFIG HANDSHAKES SOCKET...    each SOCKET is control=PATH, backend=PATH or backend=ADDRESS

The sockets become descriptors 3 and up, named in LISTEN_FDNAMES. STATE_DIRECTORY and NOTIFY_SOCKET are the caller's.
"""

from __future__ import annotations

import fcntl
import functools
import os
import socket
import sys
from pathlib import Path

FIRST_DESCRIPTOR = 3
IP_FREEBIND = 15


def listening(place: str) -> socket.socket:
    """A socket at a path, or at an address and port as in FreeBind=true."""
    if place.startswith("/"):
        sock = socket.socket(socket.AF_UNIX)
        Path(place).unlink(missing_ok=True)
        sock.bind(place)
    else:
        host, _colon, port = place.rpartition(":")
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_IP, IP_FREEBIND, 1)
        sock.bind((host, int(port)))
    sock.listen(socket.SOMAXCONN)
    return sock


def hand_over(given: list[str]) -> None:
    """Put the sockets where a service finds them (sd_listen_fds(3))."""
    names, places = zip(*(each.split("=", 1) for each in given), strict=True)
    high = []
    for place in places:
        sock = listening(place)
        high.append(fcntl.fcntl(sock.fileno(), fcntl.F_DUPFD, 100))
        sock.close()
    for number, descriptor in enumerate(high):
        os.dup2(descriptor, FIRST_DESCRIPTOR + number)
        os.close(descriptor)
    os.environ |= {"LISTEN_FDS": str(len(names)), "LISTEN_FDNAMES": ":".join(names)}


def main() -> int:
    """Run the agent."""
    code, configuration, handshakes, *given = sys.argv[1:]
    hand_over(given)
    sys.path.insert(0, code)
    from warrend import __main__ as program  # noqa: PLC0415 - it is a copy that the bench has just made
    from warrend import config, kernel  # noqa: PLC0415

    config.load = functools.partial(config.load, Path(configuration))
    kernel.HANDSHAKES = kernel.RESTORE = handshakes  # not this host's own agent
    return program.main()


if __name__ == "__main__":
    sys.exit(main())
