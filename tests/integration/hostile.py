"""Listens on a server's mesh address instead of its agent, and answers every call in one way. Runs on the server."""

import gzip
import socket
import sys
import threading
import time

name = "warren-hostile"


def answer(head: str, body: bytes = b"") -> bytes:
    """Head and body as HTTP/1.1 has them."""
    return head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body


def reply(body: bytes | str, kind: str = "application/json", more: str = "") -> bytes:
    """An answer with this body."""
    body = body.encode() if isinstance(body, str) else body
    return answer(f"HTTP/1.1 200 OK\nContent-Type: {kind}{more}\nContent-Length: {len(body)}", body)


def lease(value: str) -> bytes:
    """An answer that keeps a session so long."""
    return reply('{"exits": {}, "lease_seconds": ' + value + "}")


def refusal(text: str) -> bytes:
    """A refusal with these words."""
    body = '{"error": "' + text + '"}'
    return answer(f"HTTP/1.1 403 No\nContent-Type: application/json\nContent-Length: {len(body)}", body.encode())


CHUNKED = "HTTP/1.1 200 OK\nContent-Type: application/json\nTransfer-Encoding: chunked"
GO = "HTTP/1.1 307 Go\nContent-Length: 0\nLocation: "
ANSWERS = {
    "redirect to the web": lambda: answer(GO + "http://198.51.100.80/ip"),
    "redirect to another server": lambda: answer(GO + "http://10.77.0.2/mh-backend"),
    "lease: a word": lambda: lease('"abc"'),
    "lease: a list": lambda: lease("[1]"),
    "lease: Infinity": lambda: lease("Infinity"),
    "lease: NaN": lambda: lease("NaN"),
    "lease: -1": lambda: lease("-1"),
    "lease: a half": lambda: lease("0.5"),
    "lease: true": lambda: lease("true"),
    "deep": lambda: reply("[" * 100_000),
    "charset": lambda: reply(b"x\x9c", "application/json; charset=zlib_codec"),
    "exits: a list": lambda: reply('{"exits": [1], "lease_seconds": 15}'),
    "exits: objects": lambda: reply('{"exits": {"10.128.128.1": {}}, "lease_seconds": "x"}'),
    "exits: names": lambda: reply('{"exits": {"' + "x" * 3_000_000 + '": "<script>"}, "lease_seconds": 15}'),
    "escapes": lambda: refusal("\\u001b[31m<script>" * 2),
    "packed": lambda: reply(gzip.compress(bytes(300_000_000), 1), more="\nContent-Encoding: gzip"),
    "continues": lambda: answer("HTTP/1.1 100 Continue") * 50,
    "bad chunk": lambda: answer(CHUNKED, b"zz\r\n"),
    "endless": lambda: answer(CHUNKED),
    "slow": lambda: b"HTTP/1.1 200 OK\r\n",
    "nothing": lambda: b"",
    "noise": lambda: bytes(range(256)) * 99,
}


def serve(sock: socket.socket, how: str, said: bytes) -> None:
    """Answer one call."""
    try:
        sock.recv(65536)
        sock.sendall(said)
        while how == "endless":
            sock.sendall(b"fff\r\n" + b"x" * 4095 + b"\r\n")
        for _number in range(600 if how == "slow" else 0):
            sock.sendall(b"X: y\r\n")
            time.sleep(0.1)
    except OSError:
        pass
    finally:
        sock.close()


if __name__ == "__main__":
    where, way = sys.argv[1:]
    text = ANSWERS[way]()
    with socket.create_server((where, 80), backlog=99) as listener:
        print("ready", flush=True)
        while True:
            threading.Thread(target=serve, args=(listener.accept()[0], way, text), daemon=True).start()
