"""Over real sockets: upstreams that lie, stall, half close and die, and bodies too large to hold."""

from __future__ import annotations

import asyncio
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest

from hms_addons.errors import Flag
from hms_addons.http_message import BodyStream
from hms_addons.upstream.outcome import UpstreamError
from tests.fakes.upstream import OK
from tests.fakes.upstream_server import RawServer, read_head, saying
from tests.upstream.test_connector import AUTH, RealWorld, failure, identity, server_tls

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Callable

    from tests.fakes.upstream_server import Handler

MIB = 1024 * 1024


@pytest.fixture(params=["plain", "tls"])
async def upstream(request: pytest.FixtureRequest) -> AsyncIterator[Callable[..., Any]]:
    """Starts a server with a handler, and a world that calls it."""
    stack: list[Any] = []
    tls: ssl.SSLContext | None = server_tls() if request.param == "tls" else None

    async def start(handler: Handler) -> tuple[RealWorld, RawServer]:
        server = RawServer(handler, tls)
        await server.__aenter__()
        world = RealWorld(server.port, tls=AUTH if tls else None)
        world.identities["mesh"] = identity() if tls else None
        stack.extend([server, world])
        return world, server

    yield start
    if stack:
        server, world = stack
        await asyncio.sleep(0)
        world.check_quiet()
        await world.close()
        await server.__aexit__(None, None, None)
        assert server.errors == []


async def read_all(body: bytes | BodyStream) -> bytes:
    return body if isinstance(body, bytes) else b"".join([piece async for piece in body])


async def test_closing_without_an_answer(upstream: Any) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)

    world, _ = await upstream(handler)
    flag, _ = await failure(world)
    assert flag is Flag.UC


async def test_half_closing_after_the_answer(upstream: Any) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(OK)
        if writer.can_write_eof():  # TLS has no half close
            writer.write_eof()
            await reader.read()

    world, server = await upstream(handler)
    for n in range(1, 6):
        assert await world.get() == [200]
        assert server.accepted == n


async def test_a_body_cut_short(upstream: Any) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await writer.drain()

    world, _ = await upstream(handler)
    answer = await world.forward()
    with pytest.raises(UpstreamError, match="in the middle of its response"):
        await read_all(answer.body)


async def test_a_garbled_answer(upstream: Any) -> None:
    world, _ = await upstream(saying(b"+OK Dovecot ready.\r\n"))
    flag, detail = await failure(world)
    assert flag is Flag.UPE
    assert "is it an HTTP/1.1 server" in detail


async def test_dying_keep_alive_connections_are_not_noticed(upstream: Any) -> None:
    """Closed at any moment after an answer, no GET ever fails."""
    world, server = await upstream(saying_then_close(OK))
    for _ in range(40):
        assert await world.get() == [200]
    assert server.accepted == 40


def saying_then_close(answer: bytes) -> Handler:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(answer)
        await writer.drain()
        writer.close()

    return handler


async def test_an_event_stream_passes_at_once(upstream: Any) -> None:
    go = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        for n in range(3):
            writer.write(b"data: %d\n\n" % n)
            await writer.drain()
            await go.wait()
            go.clear()

    world, _ = await upstream(handler)
    answer = await world.forward()
    assert isinstance(answer.body, BodyStream)
    for n in range(3):
        assert await answer.body.read() == b"data: %d\n\n" % n
        go.set()
    assert await answer.body.read() == b""


async def test_a_long_download_needs_little_memory(upstream: Any) -> None:
    size = 64 * MIB

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        piece = bytes(256 * 1024)
        for _ in range(size // len(piece)):
            writer.write(piece)
            await writer.drain()
        await reader.read()

    world, _ = await upstream(handler)
    answer = await world.forward()
    assert isinstance(answer.body, BodyStream)
    assert answer.length == size
    tracemalloc.start()
    try:
        received = 0
        async for piece in answer.body:
            received += len(piece)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert received == size
    assert peak < 8 * MIB


async def test_a_long_upload_needs_little_memory(upstream: Any) -> None:
    size = 48 * MIB
    seen = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        await read_head(reader)
        while seen < size and (data := await reader.read(MIB)):
            seen += len(data)
        writer.write(OK)
        await reader.read()

    world, _ = await upstream(handler)
    resumed = asyncio.Event()
    paused = False

    def pause() -> None:
        nonlocal paused
        paused = True

    def resume() -> None:
        nonlocal paused
        paused = False
        resumed.set()

    body = BodyStream(pause, resume)

    async def produce() -> None:
        piece = bytes(64 * 1024)
        for _ in range(size // len(piece)):
            body.feed(piece)
            if paused:
                resumed.clear()
                await resumed.wait()
        body.feed_eof()

    fields = ((b"Host", b"a"), (b"Content-Length", b"%d" % size))
    exchange = world.exchange(method="PUT", fields=fields, body=body)
    tracemalloc.start()
    try:
        producer = asyncio.create_task(produce())
        answer = await world.forward(exchange)
        await producer
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert answer.status == 200
    assert seen == size
    assert peak < 8 * MIB


async def test_an_upload_that_is_refused_early(upstream: Any) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        await reader.read(10)

    world, _ = await upstream(handler)
    body = BodyStream(lambda: None, lambda: None)
    for _ in range(100):
        body.feed(bytes(64 * 1024))
    answer = await world.forward(world.exchange(method="POST", body=body))
    assert answer.status == 413


async def test_a_tunnel_over_a_socket(upstream: Any) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"
        )
        while data := await reader.read(1000):
            writer.write(data.upper())
            await writer.drain()

    world, _ = await upstream(handler)
    fields = ((b"Host", b"a"), (b"Connection", b"Upgrade"), (b"Upgrade", b"echo"))
    answer = await world.forward(world.exchange(fields=fields))
    assert answer.tunnel is not None
    answer.tunnel.write(b"hello")
    assert await answer.tunnel.incoming.read() == b"HELLO"
    answer.tunnel.write_eof()
    if answer.tunnel.incoming.ended:  # TLS: the end of one direction is the end of both
        return
    assert await answer.tunnel.incoming.read() == b""
    answer.release()


async def test_many_at_once(upstream: Any) -> None:
    world, _ = await upstream(saying(*[OK] * 50))
    statuses = await asyncio.gather(*[world.get(10) for _ in range(20)])
    assert statuses == [[200] * 10] * 20
