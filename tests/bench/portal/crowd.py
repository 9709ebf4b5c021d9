"""Many clients of one portal at once, from one machine: each loads the page, sends its form, and loads what comes.

Arguments: the portal's address, what is loaded first, and the exits that clients choose in turn; none: they only load.
Tunnel addresses as a JSON list come in, and a summary in milliseconds goes out. Plain sockets, so that the crowd costs
less than the portal that it visits.
"""

import asyncio
import json
import re
import sys
import time
import urllib.parse

PORTAL, PATH, *EXITS = sys.argv[1:]
times = {"load": [], "submit": [], "load again": []}
errors = []


async def ask(reader, writer, request, kind, began=None):
    """Send a request; its status and body."""
    began = began or time.monotonic()
    writer.write(request.encode())
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = int(re.search(r"content-length: (\d+)", head, re.IGNORECASE)[1])
    body = await reader.readexactly(length)
    times[kind].append(time.monotonic() - began)
    return int(head[9:12]), body.decode()


async def visit(address, exit_):
    """One client."""
    began = time.monotonic()
    try:
        reader, writer = await asyncio.open_connection(PORTAL, 80, local_addr=(address, 0))
        get = f"GET {PATH} HTTP/1.1\r\nHost: {PORTAL}\r\n\r\n"
        status, page = await ask(reader, writer, get, "load", began)
        assert status == 200, (status, page)
        if exit_:
            token = re.search(r'name="token" value="(\w+)"', page)[1]
            form = urllib.parse.urlencode({"token": token, "do": "enable", "exit": exit_})
            post = (
                f"POST {PATH} HTTP/1.1\r\nHost: {PORTAL}\r\nOrigin: http://{PORTAL}\r\n"
                f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(form)}\r\n\r\n{form}"
            )
            status, page = await ask(reader, writer, post, "submit")
            assert status == 303, (status, page)
            status, page = await ask(reader, writer, get, "load again")
            assert status == 200, (status, page)
            assert 'data-state="default"' not in page
        writer.close()
    except (OSError, EOFError, AssertionError, TypeError, ValueError) as error:
        errors.append(f"{address}: {type(error).__name__} {error}"[:200])


async def main():
    """All of them."""
    addresses = json.load(sys.stdin)
    exits = EXITS or [None]
    await asyncio.gather(*(visit(address, exits[number % len(exits)]) for number, address in enumerate(addresses)))
    summary = {"done": len(times["load again" if EXITS else "load"]), "errors": errors[:5]}
    for kind, taken in times.items():
        ranked = sorted(taken) or [0]
        summary[kind] = {
            name: round(1000 * ranked[min(int(len(ranked) * share), len(ranked) - 1)], 1)
            for name, share in (("p50", 0.5), ("p99", 0.99))
        }
    print(json.dumps(summary))


asyncio.run(main())
