"""Responses from bytes: whole, bytewise and in random pieces, they must come out the same."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hms_addons.upstream.response_parser import (
    MAX_FIELDS,
    MAX_HEAD_BYTES,
    ResponseParser,
    ViolationError,
)


class Case(NamedTuple):
    """Bytes and what they mean."""

    raw: bytes
    status: int
    body: bytes = b""
    fields: tuple[tuple[bytes, bytes], ...] = ()
    keep_alive: bool = True
    trailers: tuple[tuple[bytes, bytes], ...] = ()
    interim: tuple[int, ...] = ()
    length: int | None = None
    to_head: bool = False
    at_eof: bool = False


CASES = {
    "length": Case(
        b"HTTP/1.1 200 OK\r\nX-A: b\r\nContent-Length: 5\r\n\r\nhello",
        200,
        b"hello",
        ((b"X-A", b"b"),),
        length=5,
    ),
    "spaces round a value": Case(
        b"HTTP/1.1 200 OK\r\nX-A: \t b \t\r\nX-B: \t\r\nContent-Length: 0 \r\n\r\n",
        200,
        b"",
        ((b"X-A", b"b"), (b"X-B", b"")),
        length=0,
    ),
    "empty": Case(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", 404, length=0),
    "no reason": Case(b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", 200, length=0),
    "chunked": Case(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"5\r\nhello\r\n6;ext=1\r\n world\r\n0\r\n\r\n",
        200,
        b"hello world",
    ),
    "trailers": Case(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\nTrailer: X-Sum\r\n\r\n"
        b"1\r\na\r\n0\r\nX-Sum: 9\r\nKeep-Alive: 5\r\nTE: x\r\n\r\n",
        200,
        b"a",
        ((b"Trailer", b"X-Sum"),),
        trailers=((b"X-Sum", b"9"),),
    ),
    "close": Case(
        b"HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 2\r\n\r\nok",
        200,
        b"ok",
        keep_alive=False,
        length=2,
    ),
    "until eof": Case(
        b"HTTP/1.1 200 OK\r\nX-A: b\r\n\r\nall of it",
        200,
        b"all of it",
        ((b"X-A", b"b"),),
        keep_alive=False,
        at_eof=True,
    ),
    "1.0": Case(
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, b"ok", keep_alive=False, length=2
    ),
    "1.0 keep-alive": Case(
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
        200,
        b"ok",
        length=2,
    ),
    "204": Case(b"HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n", 204, fields=((b"X-A", b"b"),)),
    "304": Case(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n", 304, length=99),
    "head with length": Case(
        b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n", 200, length=99, to_head=True
    ),
    "head chunked": Case(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 200, to_head=True
    ),
    "head until eof": Case(
        b"HTTP/1.1 200 OK\r\nX-A: b\r\n\r\n", 200, b"", ((b"X-A", b"b"),), to_head=True
    ),
    "head close": Case(
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\n",
        200,
        keep_alive=False,
        length=5,
        to_head=True,
    ),
    "head 1.0": Case(b"HTTP/1.0 200 OK\r\n\r\n", 200, keep_alive=False, to_head=True),
    "interim": Case(
        b"HTTP/1.1 100 Continue\r\n\r\n"
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        200,
        b"ok",
        interim=(100, 103),
        length=2,
    ),
    "hop by hop": Case(
        b"HTTP/1.1 200 OK\r\nConnection: X-Hop, keep-alive\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n"
        b"X-End: 2\r\nProxy-Connection: x\r\nTE: trailers\r\nUpgrade: h2c\r\nx-hop: 3\r\n"
        b"Set-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 0\r\n\r\n",
        200,
        b"",
        ((b"X-End", b"2"), (b"Set-Cookie", b"a=1"), (b"Set-Cookie", b"b=2")),
        length=0,
    ),
}


def pieces_of(raw: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted({cut % (len(raw) + 1) for cut in cuts}), len(raw)]
    return [raw[a:b] for a, b in itertools.pairwise(edges) if a != b]


def feed_all(parser: ResponseParser, raw: bytes, step: int) -> None:
    for start in range(0, len(raw), step):
        parser.feed(raw[start : start + step])


def check(case: Case, pieces: list[bytes], parser: ResponseParser | None = None) -> None:
    parser = parser or ResponseParser()
    parser.begin(to_head=case.to_head)
    body = b""
    interim: list[int] = []
    for piece in pieces:
        assert not parser.ended
        parser.feed(piece)
        body += b"".join(parser.pieces)
        interim += [status for status, _, _ in parser.interim]
        parser.pieces, parser.interim = [], []
    assert parser.eof() is case.at_eof
    assert parser.ended
    assert parser.status == case.status
    assert body == case.body
    assert tuple(parser.fields) == case.fields
    assert tuple(parser.trailers) == case.trailers
    assert parser.keep_alive is case.keep_alive
    assert parser.length == case.length
    assert tuple(interim) == case.interim


@pytest.mark.parametrize("name", CASES)
def test_whole(name: str) -> None:
    check(CASES[name], [CASES[name].raw])


@pytest.mark.parametrize("name", CASES)
def test_bytewise(name: str) -> None:
    raw = CASES[name].raw
    check(CASES[name], [raw[n : n + 1] for n in range(len(raw))])


@given(st.sampled_from(sorted(CASES)), st.lists(st.integers(0, 400), max_size=8))
def test_in_any_pieces(name: str, cuts: list[int]) -> None:
    check(CASES[name], pieces_of(CASES[name].raw, cuts))


@given(
    st.lists(
        st.sampled_from(sorted(n for n, c in CASES.items() if c.keep_alive)),
        min_size=1,
        max_size=6,
    ),
    st.lists(st.integers(0, 400), max_size=8),
)
def test_one_after_another_on_one_connection(names: list[str], cuts: list[int]) -> None:
    """Nothing of one response shows in the next, also after the response to a HEAD."""
    parser = ResponseParser()
    for name in names:
        check(CASES[name], pieces_of(CASES[name].raw, cuts), parser)


SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ws\r\nX-A: b\r\n\r\n"


@given(st.lists(st.integers(0, 120), max_size=6), st.binary(max_size=30))
def test_switching_protocols(cuts: list[int], rest: bytes) -> None:
    parser = ResponseParser()
    parser.begin(upgrade=b"ws")
    collected = b""
    for piece in pieces_of(SWITCH + rest, cuts):
        if parser.rest is None:
            parser.feed(piece)
            collected = parser.rest or b""
        else:
            collected += piece
    assert (parser.status, parser.fields) == (101, [(b"X-A", b"b")])
    assert parser.protocol == b"ws"
    assert collected == rest


def switch(offer: bytes, *chosen: bytes, before: bytes = b"") -> bytes:
    """What the parser takes a 101 with these `Upgrade` lines to switch to."""
    parser = ResponseParser()
    parser.begin(upgrade=b"other")
    parser.feed(b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: a\r\nContent-Length: 0\r\n\r\n")
    parser.begin(upgrade=offer)
    lines = b"".join(b"Upgrade: %b\r\n" % one for one in chosen)
    parser.feed(
        before + b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n" + lines + b"\r\n"
    )
    assert parser.rest == b""
    return parser.protocol


@pytest.mark.parametrize(
    ("offer", "chosen"),
    [
        (b"foo, websocket", b"websocket"),
        (b"websocket,foo", b"WebSocket"),
        (b"foo/2, bar", b"foo"),
        (b"foo, bar", b"foo/2"),
        (b"foo/1, foo/2", b"Foo/2"),
        (b"tls/1.0, a, b", b"tls/1.0, b"),
    ],
)
def test_a_101_says_which_protocol_was_chosen(offer: bytes, chosen: bytes) -> None:
    assert switch(offer, chosen) == chosen
    assert switch(offer, *chosen.split(b", ")) == chosen
    hints = b"HTTP/1.1 103 Early Hints\r\nUpgrade: elsewhere\r\n\r\n"
    assert switch(offer, chosen, before=hints) == chosen


@pytest.mark.parametrize(
    "chosen", [b"", b",", b"a", b"websockets", b"foo/1", b"h2c", b"foo/2, h2c", b"foo/2, bar"]
)
def test_a_101_must_choose_of_what_was_offered(chosen: bytes) -> None:
    with pytest.raises(ViolationError, match="101"):
        switch(b"foo/2, websocket", chosen)
    with pytest.raises(ViolationError, match="101"):
        switch(b"", chosen)


BROKEN = {
    "garbage": b"hello there\r\n\r\n",
    "http2": b"\x00\x00\x12\x04\x00\x00\x00\x00\x00",
    "tls alert": b"\x15\x03\x03\x00\x02\x02\x28",
    "both framings": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
    "listed lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 3, 3\r\n\r\nabc",
    "negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\nabc",
    "huge length": b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\nabc",
    "bad chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "overlong chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n",
    "gzip coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "identity coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nabc",
    "chunked twice": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked in 1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "bare LF": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "obs-fold": b"HTTP/1.1 200 OK\r\nX-A: b\r\n c\r\nContent-Length: 0\r\n\r\n",
    "space before colon": b"HTTP/1.1 200 OK\r\nContent-Length : 3\r\n\r\nabc",
    "NUL": b"HTTP/1.1 200 OK\r\nX-A: b\0c\r\nContent-Length: 0\r\n\r\n",
    "status 99": b"HTTP/1.1 099 Odd\r\n\r\n",
    "status 600": b"HTTP/1.1 600 Odd\r\nContent-Length: 0\r\n\r\n",
    "unasked 101": SWITCH,
    "101 without upgrade": b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
}


@pytest.mark.parametrize("bytewise", [False, True], ids=["whole", "bytewise"])
@pytest.mark.parametrize("name", BROKEN)
def test_broken_is_a_violation(name: str, *, bytewise: bool) -> None:
    raw = BROKEN[name]
    parser = ResponseParser()
    parser.begin()
    with pytest.raises(ViolationError):
        feed_all(parser, raw, 1 if bytewise else len(raw))
    assert not parser.ended


AFTER = {
    "another response": (CASES["length"].raw, False),
    "one stray byte": (b"x", False),
    "a body after a HEAD's answer": (b"hello", True),
}


@pytest.mark.parametrize("name", AFTER)
def test_bytes_after_the_response_leave_it_whole(name: str) -> None:
    more, to_head = AFTER[name]
    parser = ResponseParser()
    parser.begin(to_head=to_head)
    raw = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n" + (b"" if to_head else b"hello")
    with pytest.raises(ViolationError):
        parser.feed(raw + more)
    assert parser.ended
    assert b"".join(parser.pieces) == (b"" if to_head else b"hello")


def test_chunks_after_a_heads_answer() -> None:
    parser = ResponseParser()
    parser.begin(to_head=True)
    with pytest.raises(ViolationError):
        parser.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
    assert parser.ended


def test_a_cut_body_does_not_look_whole() -> None:
    for raw in (
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"",
    ):
        parser = ResponseParser()
        parser.begin()
        parser.feed(raw)
        assert not parser.eof()
        assert not parser.ended


def test_started_tells_whether_a_byte_has_come() -> None:
    parser = ResponseParser()
    for raw in (CASES["length"].raw, CASES["chunked"].raw):
        parser.begin()
        assert not parser.started
        parser.feed(raw[:1])
        assert parser.started
        parser.feed(raw[1:])
        assert parser.started


@pytest.mark.parametrize("step", [1000, 10**6], ids=["piecewise", "whole"])
@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * MAX_HEAD_BYTES + b"\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 " + b"a" * MAX_HEAD_BYTES + b"a\r\nContent-Length: 0",
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * (MAX_FIELDS + 1) + b"Content-Length: 0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 4000,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"a: b\r\n" * 300 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: " + b"a" * MAX_HEAD_BYTES,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"a" * MAX_HEAD_BYTES,
    ],
    ids=["field", "reason", "fields", "interim", "trailers", "trailer", "extension"],
)
def test_endless_heads_end(raw: bytes, step: int) -> None:
    parser = ResponseParser()
    parser.begin()
    with pytest.raises(ViolationError):
        feed_all(parser, raw, step)


def test_a_large_body_in_one_read_is_no_large_head() -> None:
    parser = ResponseParser()
    parser.begin()
    parser.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + b"x" * 200_000)
    assert parser.ended


def test_bytes_before_any_request() -> None:
    with pytest.raises(ViolationError):
        ResponseParser().feed(CASES["length"].raw)


@given(st.binary(max_size=300), st.booleans(), st.lists(st.integers(0, 300), max_size=5))
def test_any_bytes_are_survived(raw: bytes, to_head: bool, cuts: list[int]) -> None:
    parser = ResponseParser()
    parser.begin(to_head=to_head)
    try:
        for piece in pieces_of(b"HTTP/1.1 200 OK\r\n" + raw, cuts):
            parser.feed(piece)
    except ViolationError:
        pass


def test_repr() -> None:
    parser = ResponseParser()
    assert repr(parser) == "<ResponseParser at rest>"
    parser.begin()
    assert repr(parser) == "<ResponseParser in head>"
    parser.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
    assert repr(parser) == "<ResponseParser 200 in body>"
    parser.feed(b"hello")
    assert repr(parser) == "<ResponseParser 200 ended>"
