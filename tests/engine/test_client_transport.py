"""Clients that take nothing of what is written to them, and ends that let them read the last answer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from hms_addons.engine.request_reader import PIPELINE
from hms_addons.http_message import Answer, BodyStream
from tests.engine.test_request_reader import CHUNKED, HOST, request
from tests.fakes.lane import FakeLane, Wire, settle

if TYPE_CHECKING:
    from hms_addons.engine.framing import RequestHead
    from hms_addons.engine.http1_server import Http1Server

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def statuses(wire: Wire) -> list[int]:
    return [response.status for response in wire.responses()]


# --- the client is slow ------------------------------------------------------------------------------------


async def test_a_client_that_does_not_read_holds_up_its_answer() -> None:
    stream = BodyStream(lambda: calls.append("pause"), lambda: calls.append("resume"))
    calls: list[str] = []

    async def handler(connection: Http1Server, request: RequestHead) -> Answer:
        return Answer(200, b"", (), stream)

    wire = Wire(FakeLane(handler))
    wire.transport.stalled = True
    await wire.send(GET)
    for _ in range(20):
        stream.feed(b"x" * 65536)
        await settle(5)
    # What was written before the transport said stop, and what the stream holds.
    assert len(wire.transport.sent) < 3 * 65536
    assert calls == ["pause"]
    wire.transport.release()
    stream.feed_eof()
    await settle()
    assert calls == ["pause", "resume"]
    (answer,) = wire.responses()
    assert len(answer.body) == 20 * 65536
    wire.transport.leave()
    assert await wire.gone()


async def test_a_pipelining_client_that_does_not_read_gets_no_more_answers() -> None:
    async def handler(connection: Http1Server, request: RequestHead) -> Answer:
        return Answer(200, b"", (), b"x" * 100_000)

    wire = Wire(FakeLane(handler))
    wire.transport.stalled = True
    await wire.send(GET * PIPELINE)
    assert len(wire.lane.heads) == 1
    wire.transport.release()
    await settle(100)
    assert statuses(wire) == [200] * PIPELINE
    wire.transport.leave()
    assert await wire.gone()


@pytest.mark.parametrize("how", ["answered", "drained", "left", "idle"])
async def test_a_client_that_never_takes_the_rest_is_cut_off(how: str) -> None:
    wire = Wire()
    wire.transport.stalled = True
    await wire.send(
        GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") if how == "answered" else GET
    )
    if how == "drained":
        wire.connection.drain()
    elif how == "left":
        wire.transport.leave()
    elif how == "idle":
        await wire.clock.advance(3601)
    await settle()
    assert wire.transport.is_closing()
    assert not wire.transport.lost
    await wire.clock.advance(61)
    assert wire.transport.aborted
    assert await wire.gone()


@pytest.mark.parametrize("held", [True, False], ids=["held", "streaming"])
async def test_a_client_that_takes_nothing_for_a_minute_is_cut_off(held: bool) -> None:
    async def handler(connection: Http1Server, request: RequestHead) -> Answer:
        if held:
            return Answer(200, b"", (), b"x" * 200_000)
        stream = BodyStream(lambda: None, lambda: None)
        stream.feed(b"x" * 200_000)
        return Answer(200, b"", (), stream)

    wire = Wire(FakeLane(handler))
    wire.transport.stalled = True
    await wire.send(GET)
    for _ in range(5):  # as long as it takes some, it may be slow
        await wire.clock.advance(59)
        wire.transport.take(10_000)
    await wire.clock.advance(59)
    assert not wire.transport.aborted
    await wire.clock.advance(62)
    assert wire.transport.aborted
    assert await wire.gone()


async def test_a_client_that_took_it_all_has_time_again() -> None:
    async def handler(connection: Http1Server, request: RequestHead) -> Answer:
        return Answer(200, b"", (), b"x" * 200_000)

    wire = Wire(FakeLane(handler))
    wire.transport.stalled = True
    await wire.send(GET)
    await wire.clock.advance(59)
    wire.transport.release()
    await wire.clock.advance(1000)
    assert not wire.transport.is_closing()
    assert statuses(wire) == [200]
    wire.transport.leave()
    assert await wire.gone()


# --- the goodbye ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_a_refused_client_may_go_on_sending_for_a_while(tls: bool) -> None:
    """Closing at once would reset the connection, and the reset would destroy the answer."""
    wire = Wire(tls=tls)
    await wire.send(request(HOST, b"X : a"))
    assert repr(wire.connection).endswith("lingering>")
    for _ in range(100):
        wire.feed(b"x" * 100_000)
    assert wire.transport.eof is not tls
    assert not wire.transport.is_closing()
    assert wire.transport.reading
    await wire.clock.advance(1.9)
    assert not wire.transport.is_closing()
    await wire.clock.advance(0.2)
    assert wire.transport.aborted
    assert await wire.gone()


async def test_a_refused_client_that_has_just_been_reset() -> None:
    wire = Wire()
    wire.transport.broken = True
    await wire.send(request(HOST, b"X : a"))
    assert wire.transport.aborted
    assert await wire.gone()


async def test_refused_while_reading_is_paused_still_reads_to_the_end() -> None:
    gate = asyncio.Event()

    async def handler(connection: Http1Server, request: RequestHead) -> Answer:
        await gate.wait()
        return Answer(403, b"", (), b"no")

    wire = Wire(FakeLane(handler))
    await wire.send(request(HOST, CHUNKED, body=b"%x\r\n" % 300_000 + b"x" * 290_000))
    assert not wire.transport.reading
    gate.set()
    await settle()
    assert [r.status for r in wire.responses()] == [403]
    assert wire.transport.reading
    wire.transport.leave()
    assert await wire.gone()
