"""A connection over time: deadlines, clients that are slow or leave, and what they leave behind."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from hms_addons.config.snapshot import Limits
from hms_addons.engine.request_reader import PIPELINE
from hms_addons.http_message import HIGH_WATER, Answer, BodyStream
from tests.fakes.lane import FakeLane, Wire, echo, settle

if TYPE_CHECKING:
    from hms_addons.engine.framing import RequestHead
    from hms_addons.engine.http1_server import Http1Server

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
HELD = b"POST /held HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"
CHUNKED = b"POST /chunked HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
LONG = b"POST /long HTTP/1.1\r\nHost: a\r\nContent-Length: 2000000\r\n\r\n"


class Gated(FakeLane):
    """Answers once `gate` is set."""

    def __init__(self, limits: Limits | None = None) -> None:
        super().__init__(self.wait, limits)
        self.gate = asyncio.Event()

    async def wait(self, connection: Http1Server, request: RequestHead) -> Answer:
        await self.gate.wait()
        return await echo(connection, request)


def statuses(wire: Wire) -> list[int]:
    return [response.status for response in wire.responses()]


# --- the head -----------------------------------------------------------------------------------------


async def test_a_head_has_ten_seconds() -> None:
    wire = Wire()
    wire.feed(GET[:9])
    await wire.clock.advance(6)
    wire.feed(GET[9:12])  # a little more does not buy more time
    await wire.clock.advance(3.9)
    assert not wire.transport.sent
    await wire.clock.advance(0.2)
    (answer,) = wire.responses()
    assert (answer.status, answer.headers["x-hms-flag"]) == (408, "DT")
    assert b"within 10 s" in answer.body
    assert wire.lane.refusals
    await wire.clock.advance(3)
    assert wire.transport.aborted
    assert await wire.gone()


async def test_a_head_behind_another_request_has_ten_seconds_too() -> None:
    wire = Wire()
    wire.feed(GET + GET[:9])
    await wire.clock.advance(9.9)
    assert statuses(wire) == [200]
    await wire.clock.advance(0.2)
    assert statuses(wire) == [200, 408]
    wire.transport.leave()
    assert await wire.gone()


async def test_a_head_behind_a_request_being_served() -> None:
    lane = Gated()
    wire = Wire(lane)
    wire.feed(GET + GET[:9])
    await wire.clock.advance(30)
    assert not wire.transport.sent
    lane.gate.set()
    await settle()
    assert statuses(wire) == [200, 408]
    wire.transport.leave()
    assert await wire.gone()


async def test_a_head_that_this_side_does_not_read_is_not_late() -> None:
    """The pipeline is full: it is the answers that the client waits for."""
    lane = Gated()
    wire = Wire(lane)
    wire.feed(GET)
    wire.feed(GET * PIPELINE + GET[:9])
    assert not wire.transport.reading
    await wire.clock.advance(100)
    lane.gate.set()
    await settle(200)
    assert wire.transport.reading
    await wire.send(GET[9:])
    assert statuses(wire) == [200] * (PIPELINE + 2)
    wire.transport.leave()
    assert await wire.gone()


# --- the body -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "part"),
    [(HELD, b"hell"), (HELD, b""), (CHUNKED, b"5\r\nhel"), (CHUNKED, b""), (LONG, b"x" * 1000)],
    ids=["held", "held, nothing", "chunked", "chunked, nothing", "long"],
)
async def test_a_body_without_progress_for_a_minute(head: bytes, part: bytes) -> None:
    wire = Wire()
    wire.feed(head)
    await wire.clock.advance(59)
    if part:
        wire.feed(part)
        await wire.clock.advance(59)
    assert not wire.transport.sent
    await wire.clock.advance(1.1)
    (answer,) = wire.responses()
    assert answer.status == 408
    assert answer.headers["connection"] == "close"
    assert wire.lane.seen == []
    wire.transport.leave()
    assert await wire.gone()


async def test_a_body_that_dribbles_is_not_late() -> None:
    wire = Wire()
    wire.feed(CHUNKED)
    for _ in range(10):
        await wire.clock.advance(59)
        wire.feed(b"1\r\nx\r\n")
    wire.feed(b"0\r\n\r\n")
    await settle()
    assert [r.body for r in wire.responses()] == [b"x" * 10]
    wire.transport.leave()
    assert await wire.gone()


@pytest.mark.parametrize("body", [b"hell", b""])
async def test_a_body_behind_a_request_has_its_own_minute(body: bytes) -> None:
    lane = Gated()
    wire = Wire(lane)
    wire.feed(GET + HELD + body)
    await wire.clock.advance(30)
    lane.gate.set()
    await settle()
    assert statuses(wire) == [200]
    await wire.clock.advance(31)
    assert statuses(wire) == [200, 408]
    wire.transport.leave()
    assert await wire.gone()


async def test_a_body_that_the_upstream_does_not_take_is_not_late() -> None:
    lane = Gated()
    wire = Wire(lane)
    wire.feed(LONG + b"x" * (HIGH_WATER + 1))
    assert not wire.transport.reading
    await wire.clock.advance(600)
    assert not wire.transport.sent
    lane.gate.set()
    await settle()
    await wire.send(b"x" * (2_000_000 - HIGH_WATER - 1), 65536)
    await settle()
    assert statuses(wire) == [200]
    wire.transport.leave()
    assert await wire.gone()


# --- nothing at all -------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [b"", GET, CHUNKED + b"0\r\n\r\n"], ids=["new", "get", "post"])
async def test_idle_for_an_hour(before: bytes) -> None:
    wire = Wire()
    await wire.send(before)
    await wire.clock.advance(3599)
    assert not wire.transport.is_closing()
    await wire.clock.advance(2)
    assert wire.transport.is_closing()
    assert not wire.transport.aborted
    assert await wire.gone()


async def test_serving_is_not_idling() -> None:
    lane = Gated()
    wire = Wire(lane)
    await wire.send(GET)
    await wire.clock.advance(100_000)
    assert not wire.transport.is_closing()
    lane.gate.set()
    await settle()
    assert statuses(wire) == [200]
    await wire.clock.advance(3601)
    assert await wire.gone()


async def test_new_limits_count_from_the_next_request_on() -> None:
    wire = Wire()
    wire.lane.limits = Limits(idle_timeout=5)
    await wire.send(GET)
    await wire.clock.advance(6)
    assert await wire.gone()


# --- the client leaves -----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["leave", "reset"])
@pytest.mark.parametrize(
    ("sent", "started"),
    [
        (b"", 0),
        (GET[:5], 0),
        (GET, 1),
        (GET * 5, 1),
        (GET + GET[:9], 1),
        (HELD + b"hel", 0),
        (CHUNKED + b"5\r\nhel", 1),
        (GET + CHUNKED + b"5\r\nhel", 1),
    ],
    ids=["new", "head", "served", "pipeline", "head behind", "held", "streaming", "waiting stream"],
)
async def test_a_client_that_leaves_leaves_nothing(how: str, sent: bytes, started: int) -> None:
    lane = Gated()
    wire = Wire(lane)
    await wire.send(sent)
    assert len(lane.heads) == started
    getattr(wire.transport, how)()
    assert await wire.gone()
    assert len(lane.failures) == started
    assert all(isinstance(failure, asyncio.CancelledError) for failure in lane.failures)
    assert lane.seen == []


async def test_a_client_that_leaves_while_it_is_answered() -> None:
    async def endless(connection: Http1Server, request: RequestHead) -> Answer:
        stream = BodyStream(lambda: None, lambda: None, lambda: closed.append(True))
        stream.feed(b"x" * 100_000)
        return Answer(200, b"", (), stream)

    closed: list[bool] = []
    for stalled in (False, True):
        wire = Wire(FakeLane(endless))
        wire.transport.stalled = stalled
        await wire.send(GET)
        wire.transport.reset()
        assert await wire.gone()
    assert closed == [True, True]


# --- the client is slow ------------------------------------------------------------------------------------


async def test_memory_is_bounded_while_a_later_request_waits_with_its_body() -> None:
    """Its stream is full; the end of the request before it must not open the tap again."""
    lane = Gated()
    gates = [asyncio.Event(), asyncio.Event()]

    async def handler(connection: Http1Server, request: RequestHead) -> Answer:
        await gates[0 if request.stream is None else 1].wait()
        return await echo(connection, request)

    lane.handler = handler
    wire = Wire(lane)
    wire.feed(GET + CHUNKED)
    total = 0
    body = b"%x\r\n" % 65536 + b"x" * 65536 + b"\r\n"
    while wire.transport.reading:
        wire.feed(body)
        total += 65536
        assert total < 2 * HIGH_WATER
    gates[0].set()
    await settle()
    assert len(lane.heads) == 2
    assert not wire.transport.reading
    gates[1].set()
    await settle()
    assert wire.transport.reading
    await wire.send(b"0\r\n\r\n")
    assert [len(r.body) for r in wire.responses()] == [0, total]
    wire.transport.leave()
    assert await wire.gone()


async def test_a_long_upload_is_never_held() -> None:
    most = 0

    async def handler(connection: Http1Server, request: RequestHead) -> Answer:
        nonlocal most
        assert request.stream is not None
        count = 0
        async for piece in request.stream:
            count += len(piece)
            await asyncio.sleep(0)
        return Answer(200, b"", (), b"%d" % count)

    wire = Wire(FakeLane(handler))
    total = 64 * 1024 * 1024
    await wire.send(LONG.replace(b"2000000", b"%d" % total))
    stream = wire.lane.heads[0].stream
    assert stream is not None
    piece = b"x" * 65536
    for _ in range(total // len(piece)):
        while not wire.transport.reading:  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0)
        wire.connection.data_received(piece)
        most = max(most, stream._size)
    await settle(400)
    assert most <= HIGH_WATER + len(piece)
    assert wire.responses()[0].body == b"%d" % total
    wire.transport.leave()
    assert await wire.gone()


async def test_a_held_body_in_tiny_pieces_is_joined_in_linear_time() -> None:
    wire = Wire()
    size = 1024 * 1024
    head = LONG.replace(b"2000000", b"%d" % size)
    loop = asyncio.get_running_loop()
    wire.feed(head)
    started = loop.time()
    for _ in range(0, size, 16):
        wire.connection.data_received(b"x" * 16)
    # Joined by copying, these 65,536 pieces would move 32 GiB.
    assert loop.time() - started < 10
    await settle()
    assert len(wire.responses()[0].body) == size
    wire.transport.leave()
    assert await wire.gone()
