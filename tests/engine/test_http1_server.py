"""The connection a client sees: requests in, answers out, in order, however the bytes are cut.

Siblings: `_ahead` (what waits as bytes), `_upgrade`, `_time` (deadlines, backpressure, cancellation),
`_sockets` (real ones); and, for its parts, `test_request_reader` (what is refused, and Hypothesis),
`test_response_writer`, `test_client_transport` (clients that read too little).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from hms_addons.config.snapshot import Limits
from hms_addons.engine.request_reader import PIPELINE
from hms_addons.http_message import Answer
from tests.fakes.lane import FakeLane, Response, Seen, Wire, echo, settle

if TYPE_CHECKING:
    from hms_addons.engine.framing import RequestHead
    from hms_addons.engine.http1_server import Http1Server

GET = b"GET /verify-id HTTP/1.1\r\nHost: auth-svc.svc\r\n\r\n"
POST = b"POST /reimburse HTTP/1.1\r\nHost: pay.svc\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = (
    b"POST /chunks HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5;ext=1\r\nhello\r\n6\r\n world\r\n0\r\nX-Sum: 7\r\nX-Caller-Role: GENERAL\r\n\r\n"
)
CUTS = [None, 1, 7]


@pytest.fixture(params=CUTS, ids=["whole", "bytewise", "by seven"])
def step(request: pytest.FixtureRequest) -> int | None:
    value: int | None = request.param
    return value


async def finish(wire: Wire) -> None:
    """The client leaves, and nothing stays behind."""
    if not wire.transport.is_closing():
        wire.transport.leave()
    assert await wire.gone()


# --- requests, whole, cut, and with others behind them --------------------------------------------


async def test_a_get(step: int | None) -> None:
    wire = Wire()
    await wire.send(GET, step)
    assert wire.lane.seen == [Seen("GET", "/verify-id")]
    head = wire.lane.heads[0]
    assert head.fields == [(b"Host", b"auth-svc.svc")]
    assert head.head == {b"host": b"auth-svc.svc"}
    assert wire.responses() == [
        Response(200, {"x-target": "/verify-id", "content-length": "0"}, reason="OK")
    ]
    assert wire.connection.idle
    await finish(wire)


@pytest.mark.parametrize(
    ("raw", "seen"),
    [
        (POST, Seen("POST", "/reimburse", b"hello")),
        (CHUNKED, Seen("POST", "/chunks", b"hello world")),
        (b"PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", Seen("PUT", "/a")),
        (b"GET /a HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi", Seen("GET", "/a", b"hi")),
        (b"DELETE /a?b=c HTTP/1.1\r\nHost:a\r\n\r\n", Seen("DELETE", "/a?b=c")),
        (b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", Seen("OPTIONS", "*")),
        (b"GET http://a.svc/b?c HTTP/1.1\r\nHost: x\r\n\r\n", Seen("GET", "http://a.svc/b?c")),
        (b"\r\n" + GET, Seen("GET", "/verify-id")),
    ],
    ids=lambda value: value.target if isinstance(value, Seen) else "",
)
async def test_what_the_lane_is_given(raw: bytes, seen: Seen, step: int | None) -> None:
    wire = Wire()
    await wire.send(raw, step)
    assert wire.lane.seen == [seen]
    # … and the same again with trailing data: the next request is its own.
    await wire.send(raw + GET, step)
    assert wire.lane.seen == [seen, seen, Seen("GET", "/verify-id")]
    assert [r.status for r in wire.responses()] == [200, 200, 200]
    await finish(wire)


async def test_trailers_are_cleaned(step: int | None) -> None:
    wire = Wire()
    await wire.send(CHUNKED + POST, step)
    assert wire.lane.trailers == [((b"X-Sum", b"7"),)]
    assert wire.lane.heads[1].trailers == ()
    await finish(wire)


# --- one after the other ----------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, PIPELINE - 1, PIPELINE, PIPELINE + 1, 5 * PIPELINE])
async def test_pipelined_requests_are_answered_in_order(count: int, step: int | None) -> None:
    lane = FakeLane(limits=Limits(buffer_limit=3))  # some bodies are held, others stream
    wire = Wire(lane)
    sent = [Seen("POST", f"/{number}", b"x" * (number % 6)) for number in range(count)]
    raw = b"".join(
        b"POST %b HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b"
        % (seen.target.encode(), len(seen.body), seen.body)
        for seen in sent
    )
    await wire.send(raw, step)
    await settle(10 * count)
    assert lane.seen == sent
    assert [(r.headers["x-target"], r.body) for r in wire.responses()] == [
        (seen.target, seen.body) for seen in sent
    ]
    await finish(wire)


async def test_pipelined_behind_a_slow_one_wait_and_stop_the_reading() -> None:
    gate = asyncio.Event()

    async def handler(connection: Http1Server, request: RequestHead) -> Answer:
        if request.target == b"/slow":
            await gate.wait()
        return await echo(connection, request)

    wire = Wire(FakeLane(handler))
    await wire.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
    for number in range(PIPELINE):
        assert wire.transport.reading
        wire.feed(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number)
    assert not wire.transport.reading
    await settle()
    assert len(wire.lane.heads) == 1
    assert not wire.transport.sent
    gate.set()
    await settle(100)
    assert wire.transport.reading
    assert [r.headers["x-target"] for r in wire.responses()] == [
        "/slow",
        *(f"/{number}" for number in range(PIPELINE)),
    ]
    await finish(wire)


async def test_thousands_pipelined_in_one_read_do_not_overflow_the_stack() -> None:
    wire = Wire()
    await wire.send(GET * 5000)
    for _ in range(500):
        await settle()
        if len(wire.lane.seen) == 5000:
            break
    assert len(wire.responses()) == 5000
    await finish(wire)


async def test_one_at_a_time() -> None:
    """The next request is not served before the one before it is answered."""
    running = most = 0

    async def handler(connection: Http1Server, request: RequestHead) -> Answer:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return await echo(connection, request)

    wire = Wire(FakeLane(handler))
    await wire.send((GET + CHUNKED) * 4)
    await settle(100)
    assert len(wire.lane.seen) == 8
    assert most == 1
    await finish(wire)


# --- the end of a connection ------------------------------------------------------------------------


async def test_connection_close_is_honoured(step: int | None) -> None:
    wire = Wire()
    await wire.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", step)
    (answer,) = wire.responses()
    assert answer.headers["connection"] == "close"
    assert await wire.gone()
    assert not wire.transport.aborted


async def test_what_follows_connection_close_is_no_request(step: int | None) -> None:
    wire = Wire()
    await wire.send(b"GET /1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" + GET, step)
    assert [r.status for r in wire.responses()] == [200]
    assert [seen.target for seen in wire.lane.seen] == ["/1"]
    assert await wire.gone()


async def test_what_follows_connection_close_later_is_no_request_either() -> None:
    gate = asyncio.Event()

    async def handler(connection: Http1Server, request: RequestHead) -> Answer:
        await gate.wait()
        return await echo(connection, request)

    wire = Wire(FakeLane(handler))
    await wire.send(b"GET /1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    await wire.send(GET)
    gate.set()
    await settle()
    assert [r.status for r in wire.responses()] == [200]
    assert await wire.gone()


@pytest.mark.parametrize(
    ("raw", "keeps"),
    [
        (b"GET / HTTP/1.0\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: foo, close\r\n\r\n", False),
    ],
)
async def test_who_keeps_the_connection(raw: bytes, keeps: bool, step: int | None) -> None:
    wire = Wire()
    await wire.send(raw, step)
    (answer,) = wire.responses()
    assert wire.transport.is_closing() is not keeps
    if not keeps:
        assert answer.headers["connection"] == "close"
    elif b"1.0" in raw:
        assert answer.headers["connection"] == "keep-alive"
    else:
        assert "connection" not in answer.headers
    await finish(wire)


async def test_a_connection_that_may_not_be_is_cut_off() -> None:
    lane = FakeLane()
    lane.welcome = False
    wire = Wire(lane)
    wire.feed(GET)
    assert wire.transport.aborted
    assert await wire.gone()
    assert lane.heads == []


# --- Expect: 100-continue -----------------------------------------------------------------------------

EXPECT = b"POST /e HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"


async def test_100_continue_is_sent_when_the_lane_permits(step: int | None) -> None:
    async def handler(connection: Http1Server, request: RequestHead) -> Answer:
        if request.expect_continue:
            connection.send_continue()
        return await echo(connection, request)

    wire = Wire(FakeLane(handler))
    await wire.send(EXPECT, step)
    assert [r.status for r in wire.responses()] == [100]
    await wire.send(b"hello" + GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), step)
    assert [r.status for r in wire.responses()][:2] == [100, 200]
    assert wire.responses()[1].body == b"hello"
    assert await wire.gone()


async def test_expect_refused_before_its_body_is_a_final_answer_and_the_end() -> None:
    async def handler(connection: Http1Server, request: RequestHead) -> Answer:
        return Answer(403, b"Forbidden", (), b"no")

    wire = Wire(FakeLane(handler))
    await wire.send(EXPECT)
    (answer,) = wire.responses()
    assert (answer.status, answer.headers["connection"]) == (403, "close")
    # What the client sends nevertheless is neither a body nor a request.
    wire.feed(b"hello" + GET)
    await settle()
    assert len(wire.responses()) == 1
    assert len(wire.lane.heads) == 1
    assert wire.transport.eof
    wire.transport.leave()
    assert await wire.gone()


async def test_an_expect_that_http_1_0_sent_is_ignored() -> None:
    wire = Wire()
    await wire.send(EXPECT.replace(b"HTTP/1.1", b"HTTP/1.0") + b"hello")
    assert [r.status for r in wire.responses()] == [200]
    assert await wire.gone()


async def test_an_expect_without_a_body_is_served_at_once() -> None:
    wire = Wire()
    await wire.send(b"GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n")
    assert [r.status for r in wire.responses()] == [200]
    assert not wire.lane.heads[0].expect_continue
    await finish(wire)


# --- draining ---------------------------------------------------------------------------------------


async def test_draining_closes_an_idle_connection_at_once() -> None:
    wire = Wire()
    await wire.send(GET)
    wire.connection.drain()
    assert await wire.gone()
    assert not wire.transport.aborted


async def test_draining_finishes_what_is_served_and_takes_no_more() -> None:
    gate = asyncio.Event()

    async def handler(connection: Http1Server, request: RequestHead) -> Answer:
        await gate.wait()
        return await echo(connection, request)

    wire = Wire(FakeLane(handler))
    await wire.send(GET * 3)
    wire.connection.drain()
    assert not wire.transport.is_closing()
    gate.set()
    await settle()
    (answer,) = wire.responses()
    assert answer.headers["connection"] == "close"
    assert await wire.gone()


@pytest.mark.parametrize(
    "part", [GET[:20], POST[:-2], CHUNKED[:-40]], ids=["head", "held", "chunked"]
)
async def test_draining_waits_for_a_request_that_is_still_arriving(part: bytes) -> None:
    raw = next(raw for raw in (GET, POST, CHUNKED) if raw.startswith(part))
    wire = Wire()
    await wire.send(part)
    wire.connection.drain()
    await settle()
    assert not wire.transport.is_closing()
    await wire.send(raw[len(part) :])
    (answer,) = wire.responses()
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert await wire.gone()


# --- seen from outside --------------------------------------------------------------------------------


async def test_repr_says_what_it_is_doing() -> None:
    gate = asyncio.Event()

    async def handler(connection: Http1Server, request: RequestHead) -> Answer:
        await gate.wait()
        return await echo(connection, request)

    wire = Wire(FakeLane(handler))
    assert repr(wire.connection) == "<Http1Server 192.0.2.7:40000 idle>"
    await wire.send(GET)
    assert repr(wire.connection) == "<Http1Server 192.0.2.7:40000 serving>"
    gate.set()
    await finish(wire)
