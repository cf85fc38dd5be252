"""What a connection refuses: SEMANTICS "HTTP/1.1 safety", each with its status and a closed end.

Siblings: `_fuzz` (Hypothesis). What it takes is in `test_http1_server`.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from hms_addons.config.snapshot import Limits
from hms_addons.engine.framing import HTTP2_PREFACE, HTTP2_REFUSAL
from hms_addons.http_message import Answer
from tests.fakes.lane import FakeLane, Seen, Wire, echo, settle

if TYPE_CHECKING:
    from hms_addons.engine.framing import RequestHead
    from hms_addons.engine.http1_server import Http1Server

GOOD = b"GET /good HTTP/1.1\r\nHost: a\r\n\r\n"
AFTER = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"


def request(*lines: bytes, start: bytes = b"POST /bad HTTP/1.1", body: bytes = b"") -> bytes:
    return b"\r\n".join([start, *lines, b"", b""]) + body


HOST = b"Host: a"
CHUNKED = b"Transfer-Encoding: chunked"

REFUSED: dict[str, tuple[int, bytes]] = {
    "cl and te": (400, request(HOST, b"Content-Length: 5", CHUNKED, body=b"0\r\n\r\n")),
    "te and cl": (400, request(HOST, CHUNKED, b"Content-Length: 5", body=b"0\r\n\r\n")),
    "cl twice, the same": (400, request(HOST, b"Content-Length: 5", b"Content-Length: 5")),
    "cl twice, differing": (400, request(HOST, b"Content-Length: 5", b"Content-Length: 6")),
    "cl list": (400, request(HOST, b"Content-Length: 5, 5", body=b"hello")),
    "cl signed": (400, request(HOST, b"Content-Length: +5", body=b"hello")),
    "cl negative": (400, request(HOST, b"Content-Length: -5", body=b"hello")),
    "cl hex": (400, request(HOST, b"Content-Length: 0x5", body=b"hello")),
    "cl empty": (400, request(HOST, b"Content-Length:", body=b"hello")),
    "cl too long": (400, request(HOST, b"Content-Length: 99999999999999999999")),
    "cl of 63 bits": (400, request(HOST, b"Content-Length: 9223372036854775808")),
    "te other": (400, request(HOST, b"Transfer-Encoding: gzip")),
    "te gzip, chunked": (400, request(HOST, b"Transfer-Encoding: gzip, chunked")),
    "te chunked, gzip": (400, request(HOST, b"Transfer-Encoding: chunked, gzip")),
    "te twice": (400, request(HOST, CHUNKED, CHUNKED)),
    "te xchunked": (400, request(HOST, b"Transfer-Encoding: xchunked")),
    "te empty": (400, request(HOST, b"Transfer-Encoding:")),
    "te in 1.0": (400, request(HOST, CHUNKED, start=b"POST / HTTP/1.0", body=b"0\r\n\r\n")),
    "te with tab": (400, request(HOST, b"Transfer-Encoding:\x0bchunked", body=b"0\r\n\r\n")),
    "obs-fold": (400, request(HOST, b"X: a", b" b")),
    "space before colon": (400, request(HOST, b"X : a")),
    "space before te's colon": (400, request(HOST, b"Transfer-Encoding : chunked")),
    "space after start line": (400, request(b" Host: a")),
    "NUL in a value": (400, request(HOST, b"X: a\0b")),
    "NUL in a name": (400, request(HOST, b"X\0: a")),
    "NUL in the target": (400, request(HOST, start=b"GET /a\0b HTTP/1.1")),
    "control in a value": (400, request(HOST, b"X: a\x01b")),
    "bare CR in a value": (400, request(HOST, b"X: a\rY: b")),
    "bare LF in a value": (400, request(HOST, b"X: a\nY: b")),
    "bare LF after the start line": (400, b"GET / HTTP/1.1\nHost: a\r\n\r\n"),
    "bare LF at the end": (400, b"GET / HTTP/1.1\r\nHost: a\r\n\n"),
    "no colon": (400, request(HOST, b"X")),
    "no name": (400, request(HOST, b": x")),
    "host twice": (400, request(HOST, b"Host: b")),
    "host twice, the same": (400, request(HOST, b"host: a")),
    "no host": (400, request(b"X: a")),
    "host list": (400, request(b"Host: a, b")),
    "host with user": (400, request(b"Host: a@b")),
    "host with path": (400, request(b"Host: a/b")),
    "authorization twice": (400, request(HOST, b"Authorization: a", b"authorization: b")),
    "CONNECT": (405, request(HOST, start=b"CONNECT a:443 HTTP/1.1")),
    "HTTP/2.0": (505, request(HOST, start=b"GET / HTTP/2.0")),
    "HTTP/0.9": (505, b"GET /\r\n\r\n"),
    "HTTP/1.2": (400, request(HOST, start=b"GET / HTTP/1.2")),
    "an unknown method": (400, request(HOST, start=b"FOO / HTTP/1.1")),
    "no HTTP": (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    "expect something else": (417, request(HOST, b"Expect: 200-ok", b"Content-Length: 5")),
    "expect twice": (400, request(HOST, b"Expect: 100-continue", b"Expect: 100-continue")),
    "chunk size is no number": (400, request(HOST, CHUNKED, body=b"x\r\nhello\r\n0\r\n\r\n")),
    "chunk size is negative": (400, request(HOST, CHUNKED, body=b"-5\r\nhello\r\n0\r\n\r\n")),
    "chunk size has 0x": (400, request(HOST, CHUNKED, body=b"0x5\r\nhello\r\n0\r\n\r\n")),
    "chunk size has a space": (400, request(HOST, CHUNKED, body=b"5 \r\nhello\r\n0\r\n\r\n")),
    "chunk size overflows": (400, request(HOST, CHUNKED, body=b"f" * 17 + b"\r\nhello")),
    "chunk size ends in LF": (400, request(HOST, CHUNKED, body=b"5\nhello\r\n0\r\n\r\n")),
    "chunk extension ends in LF": (400, request(HOST, CHUNKED, body=b"5;a\nhello\r\n0\r\n\r\n")),
    "chunk is longer": (400, request(HOST, CHUNKED, body=b"5\r\nhello!\r\n0\r\n\r\n")),
    "chunk ends in LF": (400, request(HOST, CHUNKED, body=b"5\r\nhello\n0\r\n\r\n")),
    "last chunk ends in LF": (400, request(HOST, CHUNKED, body=b"5\r\nhello\r\n0\n\n")),
    "trailer is framing": (
        400,
        request(HOST, CHUNKED, body=b"0\r\nContent-Length: 5\r\n\r\n" + AFTER),
    ),
    "trailer is chunked": (400, request(HOST, CHUNKED, body=b"0\r\n" + CHUNKED + b"\r\n\r\n")),
    "trailer is folded": (400, request(HOST, CHUNKED, body=b"0\r\nX: a\r\n b\r\n\r\n")),
    "101 fields": (431, request(HOST, *[b"X-%d: a" % number for number in range(100)])),
    "64 KiB of fields": (431, request(HOST, b"X: " + b"a" * 65536)),
    "64 KiB in many fields": (431, request(HOST, *[b"X: " + b"a" * 1000] * 70)),
    "a target of 8 KiB and one": (414, request(HOST, start=b"GET /%b HTTP/1.1" % (b"a" * 8192))),
    "100 fields and one in trailers": (
        431,
        request(HOST, CHUNKED, body=b"0\r\n" + b"X: a\r\n" * 101 + b"\r\n"),
    ),
    "64 KiB of trailers": (
        431,
        request(HOST, CHUNKED, body=b"0\r\nX: " + b"a" * 65536 + b"\r\n\r\n"),
    ),
}
TITLES = {
    400: "Bad request",
    405: "Method not allowed",
    408: "",
    413: "Request body too large",
    414: "Request target too long",
    417: "Expectation failed",
    431: "Request headers too large",
    505: "HTTP version not supported",
}


def assert_refused(wire: Wire, status: int, before: int = 0) -> None:
    """The last answer is the refusal, in the mesh's own form, and it is the end."""
    answers = wire.responses()
    assert [r.status for r in answers] == [200] * before + [status]
    answer = answers[-1]
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-hms-flag"] == "DPE"
    assert answer.headers["connection"] == "close"
    told = json.loads(answer.body)
    assert (told["status"], told["flag"], told["title"]) == (status, "DPE", TITLES[status])
    assert wire.transport.is_closing() or wire.transport.eof


def served(wire: Wire) -> list[str]:
    return [seen.target for seen in wire.lane.seen]


@pytest.mark.parametrize("step", [None, 1, 1000], ids=["whole", "bytewise", "by 1000"])
@pytest.mark.parametrize("name", REFUSED)
async def test_refused(name: str, step: int | None) -> None:
    status, raw = REFUSED[name]
    if step == 1 and len(raw) > 20_000:
        step = 17
    wire = Wire()
    # A good one before it is answered first; what stands behind it is never taken for a request.
    await wire.send(GOOD, step)
    await wire.send(raw + AFTER, step)
    assert_refused(wire, status, before=1)
    assert served(wire) == ["/good"]
    wire.transport.leave()
    assert await wire.gone()


MINE = b"X-Request-ID: mine"
BODY_TOO_LONG = request(HOST, MINE, CHUNKED, body=b"20\r\n" + b"a" * 32 + b"\r\n")


@pytest.mark.parametrize(
    ("raw", "kept"),
    [
        (request(HOST, HOST, MINE), True),
        (request(MINE, HOST, b"X: a\0b"), True),
        (BODY_TOO_LONG, True),
        (request(HOST, MINE, b"Content-Length: 4", body=b"abcd") + b"\0", False),
        (request(HOST, HOST), False),
        (b"\0", False),
    ],
    ids=["head", "field after it", "body", "the next one", "none", "nothing"],
)
async def test_a_refusal_names_the_request_if_it_was_named(raw: bytes, kept: bool) -> None:
    gate = asyncio.Event()

    async def handler(connection: Http1Server, request: RequestHead) -> Answer:
        await gate.wait()
        return await echo(connection, request)

    wire = Wire(FakeLane(handler, limits=Limits(max_body=16)))
    await wire.send(GOOD + raw)
    gate.set()
    await settle()
    name = json.loads(wire.responses()[-1].body)["request_id"]
    assert name == "mine" if kept else len(name) == 36
    wire.transport.leave()
    assert await wire.gone()


@pytest.mark.parametrize("name", REFUSED)
async def test_refused_behind_a_slow_good_one(name: str) -> None:
    status, raw = REFUSED[name]
    gate = asyncio.Event()

    async def handler(connection: Http1Server, request: RequestHead) -> Answer:
        await gate.wait()
        return await echo(connection, request)

    wire = Wire(FakeLane(handler))
    await wire.send(GOOD + raw + AFTER)
    assert not wire.transport.sent
    gate.set()
    await settle()
    assert_refused(wire, status, before=1)
    assert served(wire) == ["/good"]
    wire.transport.leave()
    assert await wire.gone()


@pytest.mark.parametrize("step", [None, 1, 1000], ids=["whole", "bytewise", "by 1000"])
@pytest.mark.parametrize(
    "raw",
    [
        request(HOST, *[b"X-%d: a" % number for number in range(99)], start=b"GET / HTTP/1.1"),
        request(HOST, b"X: " + b"a" * 65000, start=b"GET / HTTP/1.1"),
        request(HOST, start=b"GET /%b HTTP/1.1" % (b"a" * 8191)),
        request(HOST, CHUNKED, body=b"0\r\n" + b"X: a\r\n" * 100 + b"\r\n"),
        request(b"Host:"),
        request(b"Host: [::1]:80"),
        request(b"Host: a.b-c_d.svc:80"),
        request(HOST, b"X: \xff\xfe"),
        request(HOST, b"X:", b"Y: "),
    ],
    ids=lambda raw: raw[:40],
)
async def test_at_the_limit_it_is_taken(raw: bytes, step: int | None) -> None:
    wire = Wire()
    await wire.send(raw + GOOD, step)
    assert [r.status for r in wire.responses()] == [200, 200]
    wire.transport.leave()
    assert await wire.gone()


@pytest.mark.parametrize("step", [None, 1], ids=["whole", "bytewise"])
async def test_spaces_round_a_value_are_no_part_of_it(step: int | None) -> None:
    """Else a policy that denies `X-Env: prod` lets `prod ` through, which the app takes for the same."""
    wire = Wire()
    raw = request(HOST, b"X-Env: \t prod \t", b"X: a  b ", b"Y: \t", start=b"GET / HTTP/1.1")
    await wire.send(raw, step)
    assert wire.lane.heads[0].fields[1:] == [(b"X-Env", b"prod"), (b"X", b"a  b"), (b"Y", b"")]
    assert wire.lane.heads[0].head[b"x-env"] == b"prod"
    await wire.send(request(HOST, CHUNKED, body=b"0\r\nX-Sum: 1 \t\r\n\r\n"), step)
    assert wire.lane.trailers == [((b"X-Sum", b"1"),)]
    wire.transport.leave()
    assert await wire.gone()


# --- what never ends -----------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [100, 5000, 60_000, 262_144])
@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET /" + b"a" * 2_000_000, 414),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 2_000_000, 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: a\r\n" * 300_000, 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"a" * 2_000_000, 431),
        (request(HOST, CHUNKED) + b"0\r\n" + b"X: a\r\n" * 300_000, 431),
        (request(HOST, CHUNKED) + b"5;" + b"a" * 2_000_000, 431),
        (request(HOST, CHUNKED) + b"0" * 2_000_000, 431),
    ],
    ids=["target", "value", "fields", "name", "trailers", "extension", "chunk size"],
)
async def test_a_message_that_never_ends(raw: bytes, status: int, step: int) -> None:
    wire = Wire()
    await wire.send(raw, step)
    answers = wire.responses()
    assert len(answers) == 1
    assert answers[0].status == status
    assert wire.transport.eof
    wire.transport.leave()
    assert await wire.gone()


async def test_a_trickled_target_is_refused_before_it_has_grown_much() -> None:
    wire = Wire()
    wire.feed(b"GET /")
    sent = 0
    while not wire.transport.eof:
        wire.feed(b"a" * 512)
        sent += 512
        assert sent < 100_000
    assert_refused(wire, 414)
    wire.transport.leave()
    assert await wire.gone()


async def test_a_long_body_before_it_does_not_count_as_head() -> None:
    """A read may hold the end of one message and the beginning of the next."""
    body = b"x" * 200_000
    raw = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    wire = Wire()
    await wire.send(raw + GOOD[:-3])
    await wire.send(GOOD[-3:])
    assert [r.status for r in wire.responses()] == [200, 200]
    await wire.send(GOOD * 4000 + GOOD[:9])
    await wire.send(GOOD[9:])
    for _ in range(300):
        await settle()
    assert [r.status for r in wire.responses()] == [200] * 4003
    wire.transport.leave()
    assert await wire.gone()


# --- bodies that are too large ---------------------------------------------------------------------------


async def test_max_body_declared() -> None:
    wire = Wire(FakeLane(limits=Limits(max_body=10)))
    await wire.send(request(HOST, b"Content-Length: 11", body=b"x" * 11), 3)
    assert_refused(wire, 413)
    assert wire.lane.heads == []
    wire.transport.leave()
    assert await wire.gone()


@pytest.mark.parametrize("step", [None, 1], ids=["whole", "bytewise"])
async def test_max_body_chunked(step: int | None) -> None:
    wire = Wire(FakeLane(limits=Limits(max_body=10)))
    raw = request(HOST, CHUNKED, body=b"6\r\nabcdef\r\n5\r\nghijk\r\n0\r\n\r\n")
    await wire.send(GOOD + raw + AFTER, step)
    assert_refused(wire, 413, before=1)
    assert served(wire) == ["/good"]
    wire.transport.leave()
    assert await wire.gone()


@pytest.mark.parametrize("step", [None, 1], ids=["whole", "bytewise"])
async def test_max_body_exactly(step: int | None) -> None:
    wire = Wire(FakeLane(limits=Limits(max_body=10)))
    raw = request(HOST, CHUNKED, body=b"6\r\nabcdef\r\n4\r\nghij\r\n0\r\n\r\n")
    await wire.send(raw + request(HOST, b"Content-Length: 10", body=b"x" * 10), step)
    assert wire.lane.seen == [
        Seen("POST", "/bad", b"abcdefghij"),
        Seen("POST", "/bad", b"x" * 10),
    ]
    wire.transport.leave()
    assert await wire.gone()


# --- a body that goes wrong while it is being served -------------------------------------------------------


@pytest.mark.parametrize(
    ("rest", "status"),
    [(b"5\r\nhelloX", 400), (b"x", 400), (b"6\r\nworld!", 413)],
    ids=["chunk too long", "no number", "max_body"],
)
@pytest.mark.parametrize("close", [False, True], ids=["keep-alive", "close"])
async def test_a_request_gets_one_answer_however_late_its_body_breaks(
    rest: bytes, status: int, close: bool
) -> None:
    wire = Wire(FakeLane(limits=Limits(max_body=10)))
    lines = [HOST, CHUNKED, *([b"Connection: close"] if close else [])]
    await wire.send(request(*lines, body=b"5\r\nhello\r\n"))
    assert len(wire.lane.heads) == 1
    await wire.send(rest + AFTER)
    assert_refused(wire, status)
    assert served(wire) == []
    assert len(wire.lane.failures) == 1
    wire.transport.leave()
    assert await wire.gone()


@pytest.mark.parametrize("close", [False, True], ids=["keep-alive", "close"])
async def test_nothing_of_a_body_that_is_broken_at_once_is_served(close: bool) -> None:
    lines = [HOST, CHUNKED, *([b"Connection: close"] if close else [])]
    wire = Wire()
    await wire.send(request(*lines, body=b"5\r\nhelloX" + AFTER))
    assert_refused(wire, 400)
    assert wire.lane.heads == []
    assert [failure.status for failure in wire.lane.refusals] == [400]
    wire.transport.leave()
    assert await wire.gone()


async def test_a_body_that_breaks_after_its_answer_has_begun_ends_the_connection() -> None:
    async def handler(connection: Http1Server, request: RequestHead) -> Answer:
        await asyncio.sleep(0)
        assert request.stream is not None
        await request.stream.read()
        return Answer(200, b"OK", (), b"early")

    wire = Wire(FakeLane(handler))
    await wire.send(request(HOST, CHUNKED, body=b"5\r\nhello\r\n"))
    await wire.send(b"zzz" + AFTER)
    (answer,) = wire.responses()
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert served(wire) == ["/bad"]
    wire.transport.leave()
    assert await wire.gone()


# --- HTTP/2 ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [None, 1, 16], ids=["whole", "bytewise", "by 16"])
async def test_an_http2_preface_is_told_to_use_http_1_1(step: int | None) -> None:
    settings = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
    wire = Wire()
    await wire.send(HTTP2_PREFACE + settings, step)
    assert bytes(wire.transport.sent) == HTTP2_REFUSAL
    frames = bytes(wire.transport.sent)
    assert frames.startswith(settings)  # RFC 9113 section 3.4: the server's preface
    goaway = frames[9:]
    assert int.from_bytes(goaway[:3]) == len(goaway) - 9
    assert (goaway[3], int.from_bytes(goaway[13:17])) == (7, 0xD)
    assert wire.transport.eof
    wire.transport.leave()
    assert await wire.gone()


async def test_an_http2_preface_behind_a_request_is_malformed() -> None:
    wire = Wire()
    await wire.send(GOOD + HTTP2_PREFACE)
    assert_refused(wire, 400, before=1)
    wire.transport.leave()
    assert await wire.gone()
