"""Answers on the wire: their bytes, then what a client gets of them over a connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hms_addons.engine.framing import RequestHead
from hms_addons.engine.response_writer import write_head, write_last_chunks
from hms_addons.http_message import Answer, BodyStream, Fields
from tests.engine.test_http1_server import CUTS, GET, finish
from tests.fakes.lane import FakeLane, Response, Wire, echo, whole_body

if TYPE_CHECKING:
    from hms_addons.engine.http1_server import Http1Server
    from tests.fakes.lane import Handler


def request(minor: int = 1, method: bytes = b"GET") -> RequestHead:
    made = RequestHead(method, b"/", [])
    made.minor = minor
    return made


def lines(answer: Answer, asked: RequestHead | None, *, keep_alive: bool = True) -> list[bytes]:
    head = write_head(answer, asked, keep_alive=keep_alive)
    assert head.endswith(b"\r\n\r\n")
    return head[:-4].split(b"\r\n")


def test_a_held_answer_tells_its_length() -> None:
    assert lines(Answer(200, b"OK", ((b"X-A", b"1"),), b"hello"), request()) == [
        b"HTTP/1.1 200 OK",
        b"X-A: 1",
        b"Content-Length: 5",
    ]


def test_the_upstreams_own_reason_is_kept() -> None:
    assert lines(Answer(200, b"Fine", ()), request())[0] == b"HTTP/1.1 200 Fine"
    assert lines(Answer(599, b"", ()), request())[0] == b"HTTP/1.1 599 "


def test_a_reason_gives_a_terminal_no_orders() -> None:
    """llhttp lets an upstream's escapes pass."""
    answer = Answer(200, b"\x1b[31mred\x07\tand \xff", ())
    assert lines(answer, request())[0] == b"HTTP/1.1 200  [31mred \tand \xff"


def test_connection_fields() -> None:
    answer = Answer(200, b"OK", ())
    assert b"Connection: close" in lines(answer, request(), keep_alive=False)
    assert b"Connection: keep-alive" in lines(answer, request(minor=0))
    assert not any(line.startswith(b"Connection") for line in lines(answer, request()))


def test_unknown_length_is_chunked_for_1_1_only() -> None:
    answer = Answer(200, b"OK", ())
    answer.length = None
    assert b"Transfer-Encoding: chunked" in lines(answer, request())
    assert not any(b"chunked" in line for line in lines(answer, request(minor=0)))


def test_statuses_without_a_body_announce_none() -> None:
    assert lines(Answer(204, b"No Content", ()), request()) == [b"HTTP/1.1 204 No Content"]
    not_modified = Answer(304, b"Not Modified", (), length=12)
    assert b"Content-Length: 12" in lines(not_modified, request())


@pytest.mark.parametrize("breaker", [b"\r\n", b"\n", b"\r"])
def test_a_line_break_in_a_field_starts_no_new_one(breaker: bytes) -> None:
    fields: Fields = (
        (b"X-Stamp", b"a" + breaker + b"Set-Cookie: evil=1"),
        (b"X" + breaker + b"Y", b"2"),
    )
    found = lines(Answer(200, b"O" + breaker + b"K", fields), request())
    assert len(found) == 4
    assert not any(line.startswith(b"Set-Cookie") for line in found)


def test_the_end_of_a_chunked_body_has_its_trailers() -> None:
    assert write_last_chunks(b"", ()) == b"0\r\n\r\n"
    assert write_last_chunks(b"hello", ((b"X-Sum", b"1\r\n2"),)) == (
        b"5\r\nhello\r\n0\r\nX-Sum: 1  2\r\n\r\n"
    )


# --- over a connection --------------------------------------------------------------------------------


def streaming_answer(
    *pieces: bytes, length: int | None = None, trailers: Fields = (), status: int = 200
) -> Handler:
    async def handler(connection: Http1Server, request: RequestHead) -> Answer:
        await whole_body(request)
        stream = BodyStream(lambda: None, lambda: None)
        for piece in pieces:
            stream.feed(piece)
        stream.feed_eof(trailers)
        return Answer(status, b"OK", (), stream, length=length)

    return handler


@pytest.mark.parametrize("step", CUTS, ids=["whole", "bytewise", "by seven"])
async def test_a_chunked_answer_with_trailers(step: int | None) -> None:
    wire = Wire(FakeLane(streaming_answer(b"one", b"two", trailers=((b"X-Sum", b"9"),))))
    await wire.send(GET * 2, step)
    answer = Response(200, {"transfer-encoding": "chunked"}, b"onetwo", {"x-sum": "9"}, reason="OK")
    assert wire.responses() == [answer, answer]
    await finish(wire)


async def test_a_streaming_answer_of_known_length() -> None:
    wire = Wire(FakeLane(streaming_answer(b"one", b"two", length=6)))
    await wire.send(GET)
    assert wire.responses() == [Response(200, {"content-length": "6"}, b"onetwo", reason="OK")]
    await finish(wire)


@pytest.mark.parametrize("pieces", [(b"one",), (b"one", b"twothree")], ids=["short", "long"])
async def test_a_stream_that_is_not_as_long_as_it_said_never_looks_whole(
    pieces: tuple[bytes, ...],
) -> None:
    wire = Wire(FakeLane(streaming_answer(*pieces, length=6)))
    await wire.send(GET * 2)
    assert wire.transport.aborted
    assert len(wire.lane.heads) == 1
    assert bytes(wire.transport.sent).count(b"HTTP/1.1") == 1
    assert await wire.gone()


async def test_a_streaming_answer_to_http_1_0_ends_with_the_connection() -> None:
    wire = Wire(FakeLane(streaming_answer(b"one", b"two", trailers=((b"X-Sum", b"9"),))))
    await wire.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    (answer,) = wire.responses()
    assert answer == Response(200, {"connection": "close"}, b"onetwo", reason="OK")
    assert await wire.gone()
    assert not wire.transport.aborted


@pytest.mark.parametrize("held", [True, False], ids=["held", "streaming"])
async def test_head_has_the_length_and_not_the_body(held: bool) -> None:
    async def handler(connection: Http1Server, request: RequestHead) -> Answer | None:
        if held:
            return Answer(200, b"OK", (), b"hello")
        return await streaming_answer(b"hello", length=5)(connection, request)

    wire = Wire(FakeLane(handler))
    head = b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"
    await wire.send(head + head + GET)
    answers = wire.responses(["HEAD", "HEAD", "GET"])
    assert [(r.headers["content-length"], r.body) for r in answers] == [
        ("5", b""),
        ("5", b""),
        ("5", b"hello"),
    ]
    await finish(wire)


@pytest.mark.parametrize("status", [204, 304])
@pytest.mark.parametrize("body", [b"", b"a body that a plugin gave it"], ids=["empty", "body"])
@pytest.mark.parametrize("held", [True, False], ids=["held", "streaming"])
async def test_a_status_without_a_body_has_none(status: int, body: bytes, held: bool) -> None:
    """A byte too many here would be the first of the next answer."""

    async def handler(connection: Http1Server, request: RequestHead) -> Answer | None:
        if held:
            return Answer(status, b"", (), body)
        return await streaming_answer(body or b"x", status=status)(connection, request)

    wire = Wire(FakeLane(handler))
    await wire.send(GET * 2)
    assert [(r.status, r.body) for r in wire.responses()] == [(status, b"")] * 2
    await finish(wire)


async def test_interim_responses_come_first() -> None:
    async def handler(connection: Http1Server, request: RequestHead) -> Answer:
        connection.send_interim(103, b"Early Hints", ((b"Link", b"</a>; rel=preload"),))
        return await echo(connection, request)

    wire = Wire(FakeLane(handler))
    await wire.send(GET)
    early, final = wire.responses()
    assert (early.status, early.headers) == (103, {"link": "</a>; rel=preload"})
    assert final.status == 200
    await finish(wire)


async def test_an_interim_reason_gives_a_terminal_no_orders() -> None:
    async def handler(connection: Http1Server, request: RequestHead) -> Answer:
        connection.send_interim(103, b"\x1b[31mred\x07\tand \xff", ())
        return await echo(connection, request)

    wire = Wire(FakeLane(handler))
    await wire.send(GET)
    assert wire.transport.sent.startswith(b"HTTP/1.1 103  [31mred \tand \xff\r\n\r\n")
    await finish(wire)
