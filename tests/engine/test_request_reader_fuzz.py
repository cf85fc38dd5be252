"""A connection against Hypothesis: nothing crashes it, and no request is ever made of another's bytes.

The differential test is the check on smuggling: whatever is sent, and however it is cut, the lane
must see exactly the requests that were sent, in order.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from hypothesis import example, given, settings
from hypothesis import strategies as st

from hms_addons.config.snapshot import Limits
from tests.fakes.lane import FakeLane, Response, Seen, Wire, read_responses, settle

if TYPE_CHECKING:
    from collections.abc import Coroutine

LIMITS = Limits(buffer_limit=64, max_body=10_000)  # so that both held and streamed bodies occur
GOOD = b"GET /good HTTP/1.1\r\nHost: a\r\n\r\n"


def run[T](test: Coroutine[None, None, T]) -> T:
    return asyncio.run(test)


TOKENS = st.text("abcXYZ019-_.!~", min_size=1, max_size=12)
VALUES = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"),
                 max_size=40).map(str.strip)  # fmt: skip
RESERVED = {
    *("host", "content-length", "transfer-encoding", "connection", "expect", "upgrade"),
    *("authorization", "keep-alive", "proxy-connection"),
}
# Bodies that would be requests if the framing were read wrongly.
BODIES = st.one_of(
    st.binary(max_size=300),
    st.sampled_from(
        [GOOD, b"0\r\n\r\n" + GOOD, b"\r\n" + GOOD, b"5\r\nhello\r\n0\r\n\r\n", GOOD * 9]
    ),
)


@st.composite
def requests(draw: st.DrawFn) -> tuple[Seen, bytes]:
    method = draw(st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"]))
    target = draw(st.sampled_from(["/", "/a/b?c=d", "/%41", "http://x.svc/y", "/;p=1"]))
    fields = [("Host", draw(st.sampled_from(["a", "a.svc:80", "[::1]"])))]
    for name, value in draw(st.lists(st.tuples(TOKENS, VALUES), max_size=5)):
        if name.lower() not in RESERVED:
            fields.append((name, value))
    if draw(st.booleans()):
        fields += [("Connection", "Upgrade"), ("Upgrade", "h2c")]  # never taken up
    framing = draw(st.sampled_from(["none", "length", "chunked"]))
    body = b""
    encoded = b""
    if framing == "length":
        body = encoded = draw(BODIES)
        fields.append(("Content-Length", str(len(body))))
    elif framing == "chunked":
        body = draw(BODIES)
        fields.append(
            (draw(st.sampled_from(["Transfer-Encoding", "transfer-encoding"])), "chunked")
        )
        encoded = chunk(draw, body)
    order = draw(st.permutations(fields))
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in order)]
    head = "\r\n".join([*lines, "", ""]).encode("latin-1")
    return Seen(method, target, body), head + encoded


def chunk(draw: st.DrawFn, body: bytes) -> bytes:
    out, start = [], 0
    while start < len(body):
        size = draw(st.integers(1, len(body) - start))
        extension = draw(st.sampled_from(["", ";a", ";a=b", ';a="b;c"']))
        out.append(f"{size:x}{extension}\r\n".encode() + body[start : start + size] + b"\r\n")
        start += size
    trailers = draw(st.sampled_from([b"", b"X-Sum: 1\r\n", b"A: b\r\nC: d\r\n"]))
    return b"".join(out) + b"0\r\n" + trailers + b"\r\n"


@settings(max_examples=300)
@given(st.lists(requests(), min_size=1, max_size=8), st.data())
def test_the_lane_sees_exactly_what_was_sent(
    sent: list[tuple[Seen, bytes]], data: st.DataObject
) -> None:
    raw = b"".join(part for _, part in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=20)))

    async def check() -> None:
        wire = Wire(FakeLane(limits=LIMITS))
        wire.feed(raw, cuts)
        await settle(30 + 20 * len(sent))
        assert wire.lane.seen == [seen for seen, _ in sent]
        assert [r.body for r in wire.responses()] == [seen.body for seen, _ in sent]
        wire.transport.leave()
        assert await wire.gone()

    run(check())


@settings(max_examples=300)
@given(requests(), st.data())
@example((Seen("GET", "/good"), GOOD), None)
def test_a_request_with_a_byte_wrong_never_becomes_two(
    sent: tuple[Seen, bytes], data: st.DataObject | None
) -> None:
    """Mutated, it is served, refused or waited for; what follows it is its own or nobody's."""
    raw = sent[1]
    mutated = raw if data is None else mutate(data, raw)
    cuts = [] if data is None else sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=5)))

    async def check() -> None:
        wire = Wire(FakeLane(limits=LIMITS))
        wire.feed(mutated, cuts)
        await settle(60)
        # At most one request, unless the body itself was one: then a mutated length may end before it.
        assert len(wire.lane.heads) + len(wire.lane.refusals) <= 1 + mutated.count(b" HTTP/1.")
        assert_consistent(wire)
        await end(wire)

    run(check())


def mutate(data: st.DataObject, raw: bytes) -> bytes:
    out = bytearray(raw)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(out)))
        insert = data.draw(
            st.one_of(
                st.sampled_from(
                    [b"\r", b"\n", b"\0", b" ", b"\t", b":", b",", b"\r\n", b"chunked"]
                ),
                st.binary(min_size=1, max_size=2),
            )
        )
        how = data.draw(st.sampled_from(["insert", "replace", "delete"]))
        out[at : at + (0 if how == "insert" else len(insert))] = b"" if how == "delete" else insert
    return bytes(out)


@settings(max_examples=300)
@given(st.binary(max_size=2000), st.lists(st.integers(0, 2000), max_size=10))
@example(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", [])
@example(b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03", [])
@example(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: \r\n\r\nGET", [])
@example(b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", [])
@example(b"\r\n" * 1000, [])
def test_random_bytes(raw: bytes, cuts: list[int]) -> None:
    async def check() -> None:
        wire = Wire(FakeLane(limits=LIMITS))
        wire.feed(raw, sorted(cuts))
        await settle()
        assert_consistent(wire)
        await end(wire)

    run(check())


PIECES = st.sampled_from(
    [
        *[b"GET ", b"POST ", b"PRI ", b"CONNECT ", b"/", b"*", b" HTTP/1.1\r\n", b" HTTP/1.0\r\n"],
        *[b"Host: a\r\n", b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n"],
        *[b"Connection: close\r\n", b"Connection: Upgrade\r\n", b"Upgrade: websocket\r\n"],
        *[b"Upgrade: h2c\r\n", b"Expect: 100-continue\r\n", b"\r\n", b"abc", b"3\r\nabc\r\n"],
        *[b"0\r\n\r\n", b"0\r\n", b"X: y\r\n", b"\n", b"\r", b"SM\r\n\r\n"],
    ]
)


@settings(max_examples=500)
@given(st.lists(PIECES, max_size=40), st.integers(0, 60))
def test_shuffled_pieces_of_http(pieces: list[bytes], step: int) -> None:
    raw = b"".join(pieces)

    async def check() -> None:
        wire = Wire(FakeLane(limits=LIMITS))
        wire.feed(raw, range(step, len(raw), step) if step else [])
        await settle(60)
        assert_consistent(wire)
        await end(wire)

    run(check())


@settings(max_examples=200)
@given(st.lists(PIECES, max_size=40), st.integers(1, 60))
def test_the_cuts_change_nothing(pieces: list[bytes], step: int) -> None:
    """However malformed, it is understood in one way only."""
    raw = b"".join(pieces)

    async def outcome(cuts: range | list[int]) -> tuple[list[Seen], list[int]]:
        wire = Wire(FakeLane(limits=LIMITS))
        wire.feed(raw, cuts)
        await settle(60)
        statuses = [r.status for r in statused(wire)]
        seen = list(wire.lane.seen)
        await end(wire)
        return seen, statuses

    whole = run(outcome([]))
    cut = run(outcome(range(step, len(raw), step)))
    assert whole[0] == cut[0]
    assert whole[1] == cut[1]


def statused(wire: Wire) -> list[Response]:
    sent = bytes(wire.transport.sent)
    if sent.startswith(b"\0"):
        return []  # the refusal of HTTP/2
    methods = [head.method.decode() for head in wire.lane.heads]
    return read_responses(sent, methods, ended=True)


def assert_consistent(wire: Wire) -> None:
    """One answer a request, in order; a refusal is the last, and the end."""
    answers = [r for r in statused(wire) if r.status >= 200]
    assert len(answers) == len(wire.lane.seen) + sum(r.status >= 400 for r in answers)
    for answer in answers[:-1]:
        assert answer.status == 200
    if answers and answers[-1].status >= 400:
        assert wire.transport.is_closing() or wire.transport.eof
    assert not any(not isinstance(f, OSError) for f in wire.lane.failures)


async def end(wire: Wire) -> None:
    """Whatever the state, time or the client ends it and nothing is left."""
    if wire.lane.heads and wire.lane.heads[-1].upgrade is None:
        await wire.clock.advance(3700)
    if not wire.transport.is_closing():
        wire.transport.leave()
    assert await wire.gone()
