"""Streaming request bodies: beside the wait for the response, at the upstream's pace."""

from __future__ import annotations

from typing import Any

import pytest

from hms_addons.http_message import BodyStream
from hms_addons.upstream.outcome import Outcome, UpstreamError
from hms_addons.upstream.request_pump import RequestPump
from tests.fakes.upstream import settle
from tests.upstream.test_http1_client import CHUNKED, OK, POST, Rig


@pytest.fixture
async def rig() -> Any:
    rig = Rig()
    yield rig
    await rig.end()
    assert len(rig.tasks) == 0


def stream(*pieces: bytes, eof: bool = False, trailers: Any = ()) -> BodyStream:
    body = BodyStream(lambda: None, lambda: None)
    for piece in pieces:
        body.feed(piece)
    if eof:
        body.feed_eof(trailers)
    return body


def written(rig: Rig) -> bytes:
    return bytes(rig.transport.written).removeprefix(POST)


async def test_chunked_with_trailers(rig: Rig) -> None:
    waiter = rig.send(POST)
    rig.connection.pump(
        stream(b"hello", b"x" * 16, eof=True, trailers=((b"X-Sum", b"9"),)), None, None, None
    )
    await settle()
    assert written(rig) == b"5\r\nhello\r\n10\r\n" + b"x" * 16 + b"\r\n0\r\nX-Sum: 9\r\n\r\n"
    rig.say(OK)
    assert (await waiter).body == b"ok"
    assert rig.diary == ["reusable"]


async def test_a_known_length_is_sent_as_it_is(rig: Rig) -> None:
    waiter = rig.send(POST)
    body = stream(b"hel")
    rig.connection.pump(body, 5, None, None)
    await settle()
    body.feed(b"lo")
    await settle()
    assert written(rig) == b"hello"
    rig.say(OK)  # before the stream's own end: the request is whole all the same
    await waiter
    assert rig.diary == ["reusable"]


@pytest.mark.parametrize("pieces", [(b"hell",), (b"hello", b"!"), (b"hello!",)])
async def test_a_body_that_is_not_as_announced_never_goes_out_whole(
    rig: Rig, pieces: tuple[bytes, ...]
) -> None:
    waiter = rig.send(POST)
    rig.connection.pump(stream(*pieces, eof=True), 5, None, None)
    await settle()
    if len(b"".join(pieces)) >= 5 and pieces[0] == b"hello":
        assert written(rig) == b"hello"  # what follows is not sent
        return
    with pytest.raises(UpstreamError, match="5 bytes were announced") as caught:
        await waiter
    assert caught.value.outcome is Outcome.REQUEST_BODY
    assert rig.transport.aborted


async def test_an_early_response_is_not_missed(rig: Rig) -> None:
    waiter = rig.send(POST)
    body = stream(b"first")
    rig.connection.pump(body, None, None, None)
    await settle()
    rig.say(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n")
    assert (await waiter).status == 413
    # The rest cannot be sent behind the answer's back.
    assert rig.diary == ["finished", "lost"]
    await settle()
    assert len(rig.tasks) == 0
    assert not body.ended, "the producer's connection goes on living"


async def test_request_and_response_stream_at_the_same_time(rig: Rig) -> None:
    waiter = rig.send(POST)
    body = stream(b"one")
    rig.connection.pump(body, None, None, None)
    await settle()
    rig.say(CHUNKED + b"3\r\none\r\n")
    echo = (await waiter).body
    assert isinstance(echo, BodyStream)
    assert await echo.read() == b"one"
    body.feed(b"two")
    body.feed_eof()
    await settle()
    assert written(rig).endswith(b"3\r\ntwo\r\n0\r\n\r\n")
    rig.say(b"3\r\ntwo\r\n0\r\n\r\n")
    assert await echo.read() == b"two"
    assert await echo.read() == b""
    assert rig.diary == ["reusable"]


async def test_a_caller_that_breaks_off_is_the_callers_fault(rig: Rig) -> None:
    waiter = rig.send(POST)
    body = stream(b"half")
    rig.connection.pump(body, None, None, None)
    await settle()
    body.fail(ConnectionResetError("the client closed the connection"))
    with pytest.raises(UpstreamError, match="the client closed the connection") as caught:
        await waiter
    assert caught.value.outcome is Outcome.REQUEST_BODY
    assert rig.transport.aborted
    assert not written(rig).endswith(b"0\r\n\r\n"), "a cut body must not look whole"


async def test_a_trailer_that_would_break_the_framing(rig: Rig) -> None:
    waiter = rig.send(POST)
    trailers = ((b"X", b"a\r\n\r\nGET / HTTP/1.1"),)
    rig.connection.pump(stream(b"a", eof=True, trailers=trailers), None, None, None)
    with pytest.raises(UpstreamError, match="line break"):
        await waiter


async def test_the_upstreams_pace_is_kept(rig: Rig) -> None:
    waiter = rig.send(POST)
    body = stream(b"one", b"two", b"three", eof=True)
    rig.connection.pause_writing()
    rig.connection.pump(body, None, None, None)
    await settle()
    assert written(rig) == b"3\r\none\r\n"
    rig.connection.resume_writing()
    await settle()
    assert written(rig).endswith(b"0\r\n\r\n")
    rig.say(OK)
    await waiter


async def test_time_runs_from_the_end_of_the_request(rig: Rig) -> None:
    waiter = rig.send(POST)
    body = stream(b"one")
    rig.connection.pump(body, None, 10.0, 2.0)
    await settle()
    rig.clock.tick(1000)  # a slow caller is the downstream connection's business
    body.feed_eof()
    await settle()
    rig.clock.tick(1.9)
    assert not waiter.done()
    rig.clock.tick(0.1)
    with pytest.raises(UpstreamError, match="gave no response in time"):
        await waiter


async def test_the_routes_time_runs_on_after_the_head(rig: Rig) -> None:
    waiter = rig.send(POST)
    body = stream(b"one")
    rig.connection.pump(body, None, 10.0, 2.0)
    await settle()
    rig.say(CHUNKED)
    answer = await waiter
    assert isinstance(answer.body, BodyStream)
    body.feed_eof()
    await settle()
    rig.clock.tick(9.9)
    assert not answer.body.ended
    rig.clock.tick(0.1)
    assert answer.body.ended


async def test_an_upstream_that_stops_reading_is_given_up(rig: Rig) -> None:
    waiter = rig.send(POST)
    rig.connection.pause_writing()
    rig.connection.pump(stream(b"one", b"two"), None, 10.0, None)
    await settle()
    rig.clock.tick(10)
    with pytest.raises(UpstreamError, match="stopped taking the request body") as caught:
        await waiter
    assert caught.value.outcome is Outcome.TIMEOUT


async def test_every_byte_taken_starts_its_time_anew(rig: Rig) -> None:
    waiter = rig.send(POST)
    body = stream(*[b"x"] * 5, eof=True)
    rig.transport.on_write = lambda data: rig.connection.pause_writing()
    rig.connection.pump(body, None, 10.0, None)
    for n in range(1, 6):
        await settle()
        assert written(rig).count(b"x") == n
        rig.clock.tick(9)
        rig.connection.resume_writing()
    await settle()
    rig.say(OK)
    assert (await waiter).status == 200


async def test_an_aborted_exchange_ends_its_pump(rig: Rig) -> None:
    waiter = rig.send(POST)
    rig.connection.pump(stream(b"one"), None, None, None)
    await settle()
    waiter.cancel()
    rig.connection.give_up(waiter)
    await settle()
    assert len(rig.tasks) == 0


async def test_nothing_is_pumped_into_a_closed_connection(rig: Rig) -> None:
    rig.connection.abort()
    rig.connection.pump(stream(b"one"), None, None, None)
    assert len(rig.tasks) == 0


async def test_repr(rig: Rig) -> None:
    pump = RequestPump(rig.connection, stream(b"one"), None, None)
    assert repr(pump) == "<RequestPump flowing <BodyStream open buffered=3>>"
