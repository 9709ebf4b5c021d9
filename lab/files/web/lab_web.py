"""The internet of the lab: says at which address and port it sees its client.

GET /ip            {"ip": "198.51.100.21", "port": 30001}, over IPv4 and IPv6
GET /bytes/N       N bytes, for downloads that take a while
UDP to port 80     the same JSON as /ip comes back
"""

import json
import re
import socket
import socketserver
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CHUNK = bytes(65536)


def seen(client_address: tuple) -> bytes:
    """Return what the client looks like from here; IPv4 arrives on the IPv6 socket as ::ffff:a.b.c.d."""
    return json.dumps({"ip": client_address[0].removeprefix("::ffff:"), "port": client_address[1]}).encode()


class Page(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer the two pages there are."""
        size = re.fullmatch(r"/bytes/(\d{1,12})", self.path)
        if self.path == "/ip":
            body = seen(self.client_address) + b"\n"
            self.start(200, "application/json", len(body))
            self.wfile.write(body)
        elif size:
            left = int(size[1])
            self.start(200, "application/octet-stream", left)
            while left > 0:
                left -= self.wfile.write(CHUNK[:left])
        else:  # a browser asks for an icon too
            self.start(200 if self.path == "/favicon.ico" else 404, "text/plain", 0)

    def start(self, status: int, content_type: str, length: int) -> None:
        """Send the headers."""
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Keep quiet: the recorder has everything."""


class Web(ThreadingHTTPServer):
    """HTTP over both families."""

    address_family = socket.AF_INET6
    daemon_threads = True
    request_queue_size = 128

    def server_bind(self) -> None:
        """Take IPv4 too."""
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()

    def handle_error(self, *_: object) -> None:
        """A client that went away is no news."""


class Echo(socketserver.BaseRequestHandler):
    """One UDP packet."""

    def handle(self) -> None:
        """Answer it from where it arrived."""
        self.request[1].sendto(seen(self.client_address), self.client_address)


class Udp(socketserver.UDPServer):
    """UDP over both families."""

    address_family = socket.AF_INET6

    def server_bind(self) -> None:
        """Take IPv4 too."""
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


if __name__ == "__main__":
    threading.Thread(target=Udp(("::", 80), Echo).serve_forever, daemon=True).start()
    Web(("::", 80), Page).serve_forever()
