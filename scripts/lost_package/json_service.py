"""What the sample services share: JSON over HTTP/1.1 with the standard library's server."""

from __future__ import annotations

import argparse
import json
import os
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MAX_BODY = 64 * 1024
"""Bytes of a request body."""


class JsonHandler(BaseHTTPRequestHandler):
    """Answers `GET /healthz`; a service adds `do_GET` and `do_POST` of its own."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # One packet an answer: head and body apart would wait for Nagle's algorithm.
    service = ""
    """Its name, as `auth-1`; set by `serve`."""

    def health(self) -> None:
        """Say that the service runs, and which process it is."""
        self.reply(HTTPStatus.OK, {"name": self.service, "pid": os.getpid()})

    def not_found(self) -> None:
        """There is nothing at this path."""
        self.reply(HTTPStatus.NOT_FOUND, {"error": f"{self.service} has nothing at {self.path}"})

    def reply(self, status: HTTPStatus, content: dict[str, Any]) -> None:
        """Answer with `content`."""
        body = json.dumps(content).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def read_json(self) -> dict[str, Any] | None:
        """The request's JSON object; None when it has none, and then the answer has been given."""
        length = self.headers.get("Content-Length", "0")
        if length.isdigit() and int(length) <= MAX_BODY:
            try:
                found = json.loads(self.rfile.read(int(length)))
            except ValueError:
                found = None
            if isinstance(found, dict):
                return found
        else:
            self.close_connection = (
                True  # The body is not read: nothing after it can be told apart.
            )
        self.reply(HTTPStatus.BAD_REQUEST, {"error": "send a JSON object"})
        return None


class _Server(ThreadingHTTPServer):
    request_queue_size = 128


def make_server(
    handler: type[JsonHandler], name: str, port: int, host: str = "127.0.0.1"
) -> ThreadingHTTPServer:
    """A server that answers with `handler`; port 0 picks a free one."""
    named = type(handler.__name__, (handler,), {"service": name})
    return _Server((host, port), named)


def serve(handler: type[JsonHandler], *, default_name: str) -> None:
    """Read the command line, then answer requests until a signal ends the process."""
    parser = argparse.ArgumentParser(description=handler.__doc__)
    parser.add_argument("--port", type=int, required=True, help="port to listen on")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: %(default)s)"
    )
    parser.add_argument("--name", default=default_name, help="what it calls itself")
    arguments = parser.parse_args()
    server = make_server(handler, arguments.name, arguments.port, arguments.host)
    host, port = server.server_address[:2]
    print(f"{arguments.name} serves on {host!s}:{port} (pid {os.getpid()})", flush=True)
    server.serve_forever()
