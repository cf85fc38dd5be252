from __future__ import annotations

import asyncio
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from hms_addons.up.admin_port import AdminPorts
from tests.fakes.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import Iterator

ANSWERS = {
    "/ready": (200, "ready"),
    "/metrics": (200, 'hms_requests_total{code="200"} 7\n'),
    "/bad": (503, "not ready"),
}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status, body = ANSWERS[self.path]
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as it is called
        del format, args


@pytest.fixture
def port() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


async def test_it_asks_and_takes_no_for_an_answer(port: int) -> None:
    async with AdminPorts(FakeClock(monotonic=3.0)) as ports:
        assert await ports.ok(port, "/ready")
        assert not await ports.ok(port, "/bad")
        found = await ports.sample(port)
        assert found is not None
        assert (found.requests, found.at) == (7.0, 3.0)


async def test_who_does_not_answer_is_not_well() -> None:
    async with AdminPorts(FakeClock()) as ports:
        assert not await ports.ok(1, "/ready")
        assert await ports.sample(1) is None


@pytest.mark.parametrize("ends", ["never", "too late for anybody"])
async def test_what_never_ends_its_answer_holds_nobody_up(ends: str) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nand so on")
        if ends != "never":
            writer.write(b"x" * 20_000_000)
        came.set()
        await gone.wait()
        writer.close()

    came, gone, clock = asyncio.Event(), asyncio.Event(), FakeClock()
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, AdminPorts(clock) as ports, asyncio.TaskGroup() as tasks:
        well = tasks.create_task(ports.ok(port, "/healthz"))
        metrics = tasks.create_task(ports.sample(port))
        await came.wait()
        while not (well.done() and metrics.done()):
            await asyncio.sleep(0.01)
            clock.tick(0.1)
        assert well.result()
        assert metrics.result() is None
        gone.set()
