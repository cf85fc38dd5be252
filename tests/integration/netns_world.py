"""What is around an app in a network namespace of its own: run there, as a program.

    python tests/integration/netns_world.py

An app on 127.0.0.1:9001 and the world on 203.0.113.5:80 and [2001:db8::5]:80 say who they are and what they were
sent, as JSON; a resolver on 203.0.113.53:53 knows that every name is 203.0.113.5, and prints what it is asked.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

OUTSIDE, OUTSIDE_6, RESOLVER = "203.0.113.5", "2001:db8::5", "203.0.113.53"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        told = {"who": self.server.who, "path": self.path, "headers": dict(self.headers.items())}  # type: ignore[attr-defined]
        body = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Quiet."""


class Server6(ThreadingHTTPServer):
    address_family = socket.AF_INET6


def serve(server: ThreadingHTTPServer, who: str) -> None:
    server.who = who  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()


def answer(data: bytes) -> bytes:
    end = data.index(b"\0", 12)
    kind = int.from_bytes(data[end + 1 : end + 3])
    labels, at = [], 12
    while data[at]:
        labels.append(data[at + 1 : at + 1 + data[at]].decode())
        at += 1 + data[at]
    sys.stdout.write(f"asked: {'.'.join(labels)} {kind}\n")
    sys.stdout.flush()
    records = b""
    if kind == 1:
        records = b"\xc0\x0c\0\x01\0\x01\0\0\0\x05\0\x04" + socket.inet_aton(OUTSIDE)
    if kind == 16:
        records = b"\xc0\x0c\0\x10\0\x01\0\0\0\x05\0\x06\x05hello"
    return (
        data[:2]
        + b"\x81\x80\0\x01\0"
        + bytes([bool(records)])
        + bytes(4)
        + data[12 : end + 5]
        + records
    )


def resolve() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        asked.bind((RESOLVER, 53))
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while True:
            data, peer = asked.recvfrom(4096)
            asked.sendto(answer(data), peer)


if __name__ == "__main__":
    serve(ThreadingHTTPServer(("127.0.0.1", 9001), Handler), "auth-svc")
    serve(ThreadingHTTPServer((OUTSIDE, 80), Handler), "outside")
    serve(Server6((OUTSIDE_6, 80), Handler), "outside")
    resolve()
