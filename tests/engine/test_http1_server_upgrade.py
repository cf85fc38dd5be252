"""`Upgrade`: taken up, declined, or ignored; never a way to smuggle a request past the framing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from hms_addons.http_message import HIGH_WATER, Answer, BodyStream
from tests.fakes.lane import FakeLane, Seen, Wire, echo, settle

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from hms_addons.engine.framing import RequestHead
    from hms_addons.engine.http1_server import Http1Server

WEBSOCKET = b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n"
NEXT = b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n"
STEPS = [None, 1, 7]


class Echoing:
    """The far side of a tunnel: what is written comes back."""

    protocol = b"websocket"

    def __init__(self) -> None:
        self.incoming = BodyStream(lambda: None, lambda: None)

    def write(self, data: bytes) -> None:
        self.incoming.feed(data)

    async def drain(self) -> None:
        return

    def write_eof(self) -> None:
        self.incoming.feed_eof()

    def close(self) -> None:
        return


class Upgrading(FakeLane):
    """Takes each upgrade up once `gate` is set, and echoes until the client has no more to say."""

    def __init__(self) -> None:
        super().__init__(self.take_up)
        self.gate = asyncio.Event()
        self.received = bytearray()
        self.tunnels = 0

    async def take_up(self, connection: Http1Server, request: RequestHead) -> Answer | None:
        if request.upgrade is None:
            return await echo(connection, request)
        await self.gate.wait()
        await connection.respond(request, Answer(101, b"", (), tunnel=Echoing()))
        self.tunnels += 1
        incoming = connection.start_tunnel()
        async for piece in incoming:
            self.received += piece
            connection.transport.write(piece)
        connection.close()
        return None


@pytest.mark.parametrize("step", STEPS)
async def test_taken_up_with_early_bytes(step: int | None) -> None:
    """Whatever the client sends before the upstream's word is the tunnel's, also if it looks like HTTP."""
    lane = Upgrading()
    wire = Wire(lane)
    await wire.send(WEBSOCKET + NEXT + b"\x81\x05early", step)
    assert not wire.transport.sent
    assert lane.heads[0].upgrade == b"websocket"
    lane.gate.set()
    await settle()
    await wire.send(b"late", step)
    (answer,) = wire.responses()
    assert answer.status == 101
    assert answer.headers == {"connection": "Upgrade", "upgrade": "websocket"}
    assert answer.body == NEXT + b"\x81\x05earlylate"
    assert repr(wire.connection).endswith("tunnel>")
    assert not wire.connection.idle
    wire.transport.leave()
    await settle()
    assert bytes(lane.received) == NEXT + b"\x81\x05earlylate"
    assert await wire.gone()


async def test_declined_is_an_answer_like_any_other() -> None:
    gate = asyncio.Event()

    async def decline(connection: Http1Server, request: RequestHead) -> Answer:
        await gate.wait()
        return await echo(connection, request)

    for step in STEPS:
        gate.clear()
        wire = Wire(FakeLane(decline))
        await wire.send(WEBSOCKET + NEXT + NEXT, step)
        assert len(wire.lane.heads) == 1
        gate.set()
        await settle(100)
        assert [seen.target for seen in wire.lane.seen] == ["/chat", "/next", "/next"]
        assert [r.status for r in wire.responses()] == [200] * 3
        # … and the connection can be upgraded still.
        await wire.send(WEBSOCKET, step)
        assert wire.lane.heads[-1].upgrade == b"websocket"
        wire.transport.leave()
        assert await wire.gone()


async def test_declined_with_part_of_a_request_behind_it() -> None:
    wire = Wire()
    await wire.send(WEBSOCKET + NEXT[:9])
    assert wire.clock.pending
    await wire.send(NEXT[9:])
    assert [seen.target for seen in wire.lane.seen] == ["/chat", "/next"]
    await wire.send(WEBSOCKET + NEXT[:9])
    await wire.clock.advance(11)
    assert [r.status for r in wire.responses()] == [200] * 3 + [408]
    wire.transport.leave()
    assert await wire.gone()


async def test_declined_with_a_bad_request_behind_it() -> None:
    wire = Wire()
    await wire.send(WEBSOCKET + b"GET / HTTP/1.1\r\nHost : a\r\n\r\n" + NEXT)
    assert [r.status for r in wire.responses()] == [200, 400]
    wire.transport.leave()
    assert await wire.gone()


async def test_declined_and_closed() -> None:
    async def decline(connection: Http1Server, request: RequestHead) -> Answer | None:
        answer = Answer(403, b"", (), b"no")
        await connection.respond(request, answer, close=True)
        return None

    wire = Wire(FakeLane(decline))
    await wire.send(WEBSOCKET + NEXT)
    assert [r.status for r in wire.responses()] == [403]
    assert len(wire.lane.heads) == 1
    assert await wire.gone()


async def test_early_bytes_are_bounded() -> None:
    lane = Upgrading()
    wire = Wire(lane)
    await wire.send(WEBSOCKET)
    sent = 0
    while wire.transport.reading:
        wire.feed(b"x" * 4096)
        sent += 4096
        assert sent < 200_000
    lane.gate.set()
    await settle()
    assert wire.transport.reading
    assert len(lane.received) == sent
    wire.transport.leave()
    assert await wire.gone()


async def test_a_tunnel_is_backpressured() -> None:
    taken = asyncio.Event()

    async def slow(connection: Http1Server, request: RequestHead) -> None:
        await connection.respond(request, Answer(101, b"", (), tunnel=Echoing()))
        incoming = connection.start_tunnel()
        await taken.wait()
        async for _ in incoming:
            pass
        connection.close()

    wire = Wire(FakeLane(slow))
    await wire.send(WEBSOCKET)
    sent = 0
    while wire.transport.reading:
        wire.feed(b"x" * 65536)
        sent += 65536
        assert sent < 2 * HIGH_WATER
    taken.set()
    await settle()
    assert wire.transport.reading
    wire.transport.leave()
    assert await wire.gone()


# --- ignored: h2c, and whatever has a body -----------------------------------------------------------------

IGNORED: dict[str, tuple[bytes, Seen]] = {
    "h2c": (
        (
            b"GET /h2c HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
            b"HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n"
        ),
        Seen("GET", "/h2c"),
    ),
    **{
        f"h2c as {name}": (
            b"GET /h2c HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\n"
            b"HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n" + lines + b"\r\n",
            Seen("GET", "/h2c"),
        )
        for name, lines in {
            "the second": b"Upgrade: ,h2c\r\n",
            "another spelling": b"Upgrade: , \tH2C ,\r\n",
            "two lines": b"Upgrade: h2c\r\nUpgrade: h2c\r\n",
            "an empty list": b"Upgrade: ,\r\n",
        }.items()
    },
    "h2c with a length": (
        b"POST /h2c HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"
        b"Content-Length: 31\r\n\r\n" + NEXT.replace(b"/next", b"/smug")[:31],
        Seen("POST", "/h2c", NEXT.replace(b"/next", b"/smug")[:31]),
    ),
    "h2c in chunks": (
        (
            b"POST /h2c HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n"
        ),
        Seen("POST", "/h2c", b"hello"),
    ),
    "websocket with a length": (
        (
            b"POST /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Content-Length: 5\r\n\r\nhello"
        ),
        Seen("POST", "/ws", b"hello"),
    ),
    "websocket in chunks": (
        (
            b"POST /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        ),
        Seen("POST", "/ws"),
    ),
    "expecting": (
        (
            b"POST /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\nhi"
        ),
        Seen("POST", "/ws", b"hi"),
    ),
    "long": (
        b"POST /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Content-Length: 2000000\r\n\r\n" + b"x" * 2_000_000,
        Seen("POST", "/ws", b"x" * 2_000_000),
    ),
    "without Connection": (
        b"GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n",
        Seen("GET", "/ws"),
    ),
}


@pytest.mark.parametrize("step", [None, 1, 65536])
@pytest.mark.parametrize("name", IGNORED)
async def test_an_ignored_upgrade_keeps_its_framing(name: str, step: int | None) -> None:
    raw, seen = IGNORED[name]
    if step == 1 and len(raw) > 10_000:
        step = 4093
    wire = Wire()
    await wire.send(NEXT + raw + NEXT + raw + NEXT, step)
    await settle(200)
    after = Seen("GET", "/next")
    assert wire.lane.seen == [after, seen, after, seen, after]
    assert [r.status for r in wire.responses()] == [200] * 5
    assert all(head.upgrade is None for head in wire.lane.heads)
    wire.transport.leave()
    assert await wire.gone()


@pytest.mark.parametrize("step", [None, 1])
async def test_an_ignored_upgrade_with_a_bad_body_is_refused(step: int | None) -> None:
    raw, _ = IGNORED["h2c in chunks"]
    wire = Wire()
    await wire.send(raw.replace(b"5\r\nhello", b"5\r\nhelloX") + NEXT, step)
    assert [r.status for r in wire.responses()] == [400]
    assert wire.lane.seen == []
    wire.transport.leave()
    assert await wire.gone()


@pytest.mark.parametrize(
    "lines",
    [
        b"Upgrade: foo/1, h2c\r\n",
        b"Upgrade: foo/1,H2C\r\n",
        b"Upgrade: h2c, foo/1\r\n",
        b"Upgrade: foo/1\r\nUpgrade: h2c\r\n",
        b"Upgrade: h2c\r\nUpgrade: ,foo/1,\r\n",
    ],
)
async def test_h2c_is_taken_out_of_an_offer(lines: bytes) -> None:
    wire = Wire()
    await wire.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\n" + lines + b"\r\n")
    assert wire.lane.heads[0].upgrade == b"foo/1"
    wire.transport.leave()
    assert await wire.gone()


async def test_thousands_of_ignored_upgrades_in_one_read() -> None:
    raw = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    wire = Wire()
    wire.feed(raw * 3000)
    for _ in range(300):
        await settle()
    assert len(wire.responses()) == 3000
    wire.transport.leave()
    assert await wire.gone()


# --- the client leaves ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "leave", [lambda wire: wire.transport.reset(), lambda wire: wire.connection.abort()]
)
async def test_a_tunnel_that_breaks_fails_its_reader(
    leave: Callable[[Wire], Awaitable[None]],
) -> None:
    lane = Upgrading()
    lane.gate.set()
    wire = Wire(lane)
    await wire.send(WEBSOCKET + b"hello")
    leave(wire)
    assert await wire.gone()
    assert lane.failures


async def test_over_tls_the_end_of_one_side_is_the_end() -> None:
    lane = Upgrading()
    lane.gate.set()
    wire = Wire(lane, tls=True)
    await wire.send(WEBSOCKET + b"hello")
    wire.transport.leave()
    assert wire.transport.is_closing()
    assert await wire.gone()
    assert bytes(lane.received) == b"hello"


@pytest.mark.parametrize("taken_up", [True, False])
async def test_a_peer_that_is_not_trusted_any_more_keeps_no_tunnel(taken_up: bool) -> None:
    """Nor gets one: unlike a request, it would have no end to wait for."""
    lane = Upgrading()
    wire = Wire(lane)
    await wire.send(WEBSOCKET)
    if taken_up:
        lane.gate.set()
        await settle()
    wire.connection.retire()
    assert wire.transport.aborted
    assert await wire.gone()
    assert lane.tunnels == int(taken_up)


async def test_a_peer_that_is_not_trusted_any_more_gets_its_answer() -> None:
    gate = asyncio.Event()

    async def slow(connection: Http1Server, request: RequestHead) -> Answer:
        await gate.wait()
        return await echo(connection, request)

    wire = Wire(FakeLane(slow))
    await wire.send(NEXT + NEXT)
    wire.connection.retire()
    gate.set()
    await settle()
    (answer,) = wire.responses()
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    await wire.clock.advance(3)
    assert await wire.gone()
    idle = Wire()
    idle.connection.retire()
    assert await idle.gone()
