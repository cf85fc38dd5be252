"""What stands behind every contender: nginx, and a stub of HMS-GOV."""

from __future__ import annotations

import contextlib
import http.server
import json
import shutil
import threading
from typing import TYPE_CHECKING

from scripts.benchmark import nginx_config
from scripts.benchmark.job import POLICY_VERSION
from scripts.benchmark.process import (
    Address,
    BenchError,
    Child,
    free_port,
    get,
    wait_for_answer,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_SERVED_WORD = 9
"""Where `stub_status` says how many requests were served: after `… accepts handled requests`, the
third number, counting words from 0."""


def nginx_command(directory: Path, config: str) -> list[str]:
    """Write `config` into `directory` and return the command that runs nginx with it."""
    program = shutil.which("nginx")
    if program is None:
        raise BenchError("nginx is not there; remedy: apt-get install nginx-light")
    directory.mkdir()
    (directory / "nginx.conf").write_text(config, encoding="utf-8")
    return [program, "-p", str(directory), "-c", "nginx.conf", "-e", "stderr"]


class Upstream:
    """nginx with one worker, on the cores of the load."""

    def __init__(self, directory: Path, cores: frozenset[int]) -> None:
        """Start it and wait until it serves."""
        self.port = free_port()
        command = nginx_command(directory / "upstream", nginx_config.upstream(self.port))
        files = directory / "upstream" / "html"
        files.mkdir()
        for name, size in nginx_config.BODY_SIZES.items():
            (files / name).write_bytes(b"x" * size)
        self._child = Child("upstream-nginx", command, directory, cores)
        try:
            wait_for_answer([self._child], self.address, "/", {})
        except BaseException:
            self.stop()
            raise

    @property
    def address(self) -> Address:
        """Where it listens."""
        return "127.0.0.1", self.port

    def requests_served(self) -> int:
        """How many requests it has answered so far, this one included."""
        _, body = get(self.address, "/requests", {})
        return int(body.split()[_SERVED_WORD])

    def stop(self) -> None:
        """End it."""
        self._child.stop()


@contextlib.contextmanager
def governance_stub() -> Iterator[str]:
    """HMS-GOV's `/policy-header` on a thread of its own; yields its URL."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = self.path == "/policy-header"
            body = json.dumps({"version": POLICY_VERSION}).encode() if found else b"{}"
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Silent: the benchmark's own output is what a person reads."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, name="governance", daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
