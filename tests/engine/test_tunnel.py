"""Bytes both ways after `101`, and each way in which it may end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from hms_addons.engine.tunnel import run_tunnel
from hms_addons.http_message import Answer, BodyStream
from hms_addons.tasks import TaskSet
from hms_addons.upstream.outcome import Outcome, UpstreamError
from tests.fakes.exchange import make_exchange
from tests.fakes.lane import FakeLane, Wire, settle

if TYPE_CHECKING:
    from hms_addons.engine.framing import RequestHead
    from hms_addons.engine.http1_server import Http1Server

UPGRADE = b"GET /chat HTTP/1.1\r\nHost: a.svc\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


class FakeTunnel:
    """Implements `Tunnel`: the upstream's side, played by the test."""

    def __init__(self) -> None:
        self.incoming = BodyStream(lambda: None, lambda: None)
        self.protocol = b"websocket"
        self.written = bytearray()
        self.eof = False
        self.closed = False
        self.broken: Exception | None = None
        self.room = asyncio.Event()
        self.room.set()

    def write(self, data: bytes) -> None:
        assert not self.eof
        self.written += data

    async def drain(self) -> None:
        await self.room.wait()
        if self.broken is not None:
            raise self.broken

    def write_eof(self) -> None:
        self.eof = True

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.incoming.fail(ConnectionResetError("closed"))


class World:
    """A client whose upgrade has been taken up."""

    def __init__(self, *, tls: bool = False) -> None:
        self.tunnel = FakeTunnel()
        self.tasks = TaskSet("test")
        self.exchange = make_exchange()
        self.wire = Wire(FakeLane(self._handle), tls=tls)

    async def _handle(self, connection: Http1Server, request: RequestHead) -> Answer | None:
        fields = ((b"Connection", b"Upgrade"), (b"Upgrade", b"websocket"))
        answer = Answer(101, b"Switching Protocols", fields, tunnel=self.tunnel)
        await connection.respond(request, answer)
        await run_tunnel(connection, self.tunnel, self.exchange, self.tasks)
        return None

    async def open(self) -> None:
        await self.wire.send(UPGRADE)
        assert self.received == b""

    @property
    def received(self) -> bytes:
        """What the client got after the 101."""
        head, end, rest = bytes(self.wire.transport.sent).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        assert end
        return rest

    async def over(self) -> bool:
        """It has ended on both sides, with nothing left."""
        gone = await self.wire.gone()
        return gone and self.tunnel.closed and len(self.tasks) == 0


async def test_bytes_go_both_ways() -> None:
    world = World()
    await world.open()
    await world.wire.send(b"\x81\x05hello")
    world.tunnel.incoming.feed(b"\x81\x02hi")
    await settle()
    await world.wire.send(b"more")
    assert world.tunnel.written == b"\x81\x05hellomore"
    assert world.received == b"\x81\x02hi"
    assert world.exchange.bytes_out == 4
    world.wire.transport.reset()
    assert await world.over()


async def test_what_came_with_the_request_is_not_lost() -> None:
    world = World()
    await world.wire.send(UPGRADE + b"early")
    assert world.tunnel.written == b"early"
    world.wire.transport.reset()
    assert await world.over()


async def test_the_client_s_half_close_is_told_on_and_the_rest_still_comes() -> None:
    world = World()
    await world.open()
    world.wire.transport.leave()
    await settle()
    assert world.tunnel.eof
    assert not world.wire.transport.is_closing()
    world.tunnel.incoming.feed(b"last words")
    world.tunnel.incoming.feed_eof()
    assert await world.over()
    assert world.received == b"last words"
    assert not world.wire.transport.aborted


async def test_the_upstream_s_half_close_is_told_on_and_the_client_may_finish() -> None:
    world = World()
    await world.open()
    world.tunnel.incoming.feed_eof()
    await settle()
    assert world.wire.transport.eof
    await world.wire.send(b"still here")
    assert world.tunnel.written == b"still here"
    world.wire.transport.leave()
    assert await world.over()
    assert not world.wire.transport.aborted


async def test_over_tls_the_upstream_s_end_is_the_end() -> None:
    world = World(tls=True)
    await world.open()
    world.tunnel.incoming.feed(b"bye")
    world.tunnel.incoming.feed_eof()
    assert await world.over()
    assert world.received == b"bye"


@pytest.mark.parametrize(
    "error", [ConnectionResetError("reset"), UpstreamError(Outcome.RESET, "reset")]
)
async def test_an_upstream_that_breaks_off_cuts_the_client(error: Exception) -> None:
    world = World()
    await world.open()
    world.tunnel.incoming.feed(b"half a fra")
    world.tunnel.incoming.fail(error)
    assert await world.over()
    assert world.wire.transport.aborted


async def test_an_upstream_that_takes_no_more_cuts_the_client() -> None:
    world = World()
    await world.open()
    world.tunnel.broken = ConnectionResetError("gone")
    await world.wire.send(b"into the void")
    assert await world.over()
    assert world.wire.transport.aborted


async def test_a_client_that_breaks_off_ends_the_upstream() -> None:
    world = World()
    await world.open()
    world.wire.transport.reset()
    assert await world.over()


async def test_cancellation_while_the_client_takes_nothing() -> None:
    world = World()
    await world.open()
    world.wire.transport.stalled = True
    world.tunnel.incoming.feed(b"x" * 200_000)
    world.tunnel.incoming.feed(b"second")
    await settle()
    assert b"second" not in world.received, "written in spite of backpressure"
    world.wire.transport.reset()
    assert await world.over()


async def test_a_slow_upstream_stops_the_reading_of_the_client() -> None:
    world = World()
    await world.open()
    world.tunnel.room.clear()
    world.wire.feed(b"x" * 100_000)
    await settle()
    for _ in range(4):
        world.wire.feed(b"x" * 100_000)
    assert not world.wire.transport.reading
    world.tunnel.room.set()
    await settle()
    assert world.wire.transport.reading
    assert len(world.tunnel.written) == 500_000
    world.wire.transport.reset()
    assert await world.over()
