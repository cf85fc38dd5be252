"""W3C Trace Context: what can be continued, and what a try is sent on with."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hms_addons.trace_context import Trace, is_sampled, is_traceparent

TRACE = "12345678901234567890123456789012"
SPAN = "1234567890123456"
GOOD = f"00-{TRACE}-{SPAN}-01".encode()


@pytest.mark.parametrize(
    ("value", "good"),
    [
        # As in the test suite of the W3C's working group (w3c/trace-context, test/test.py).
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"00-{TRACE}-{SPAN}-01.", False),
        (f"00-{TRACE}-{SPAN}-01-what-the-future-will-be-like", False),
        (f"cc-{TRACE}-{SPAN}-01", True),
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like", True),
        (f"cc-{TRACE}-{SPAN}-01.what-the-future-will-be-like", False),
        (f"ff-{TRACE}-{SPAN}-01", False),
        (f".0-{TRACE}-{SPAN}-01", False),
        (f"0.-{TRACE}-{SPAN}-01", False),
        (f"000-{TRACE}-{SPAN}-01", False),
        (f"0000-{TRACE}-{SPAN}-01", False),
        (f"0-{TRACE}-{SPAN}-01", False),
        (f"00-{'0' * 32}-{SPAN}-01", False),
        (f"00-.{TRACE[1:]}-{SPAN}-01", False),
        (f"00-{TRACE[1:]}.-{SPAN}-01", False),
        (f"00-{TRACE}3-{SPAN}-01", False),
        (f"00-{TRACE[1:]}-{SPAN}-01", False),
        (f"00-{TRACE}-{'0' * 16}-01", False),
        (f"00-{TRACE}-.{SPAN[1:]}-01", False),
        (f"00-{TRACE}-{SPAN[1:]}.-01", False),
        (f"00-{TRACE}-{SPAN}7-01", False),
        (f"00-{TRACE}-{SPAN[1:]}-01", False),
        (f"00-{TRACE}-{SPAN}-.0", False),
        (f"00-{TRACE}-{SPAN}-0.", False),
        (f"00-{TRACE}-{SPAN}-001", False),
        (f"00-{TRACE}-{SPAN}-1", False),
        (f"00-{TRACE}-{SPAN}-01, 00-{TRACE}-{SPAN}-01", False),
        (f"00-{TRACE[1:]}A-{SPAN}-01", False),
        (f"cc-{TRACE}-{SPAN}-01-", True),
        ("", False),
        (f"00-{TRACE}-{SPAN}-01\n", False),
    ],
)
def test_what_a_trace_can_be_continued_from(value: str, good: bool) -> None:
    assert is_traceparent(value.encode()) is good


@given(st.binary(max_size=80))
def test_nothing_else_is_one(value: bytes) -> None:
    grammar = rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?"
    assert not is_traceparent(value) or re.fullmatch(grammar, value, re.DOTALL)


@pytest.mark.parametrize(
    ("flags", "sampled"), [("00", 0), ("01", 1), ("02", 0), ("03", 1), ("ff", 1)]
)
def test_of_the_flags_one_bit_says_that_it_is_recorded(flags: str, sampled: int) -> None:
    assert is_sampled(f"00-{TRACE}-{SPAN}-{flags}".encode()) is bool(sampled)


def test_a_trace_goes_on_below_the_caller() -> None:
    trace = Trace(f"cc-{TRACE}-{SPAN}-ff-future".encode())
    assert (trace.trace_id, trace.parent_id) == (TRACE.encode(), SPAN.encode())
    # In version 00, with the flags that it knows: recorded, and what was said of randomness.
    assert trace.value == f"00-{TRACE}-{trace.span_id.decode()}-03".encode()
    assert Trace(GOOD).value.endswith(b"-01")
    assert len({Trace(GOOD).span_id for _ in range(100)}) == 100


def test_a_trace_begins_here() -> None:
    one, other = Trace(), Trace()
    assert is_traceparent(one.value)
    assert one.parent_id == b""
    assert one.trace_id != other.trace_id
    assert one.value.endswith(b"-03")
    assert repr(one) == f"<Trace {one.value.decode()} tries=0>"


def test_each_try_is_sent_on_with_a_span_of_its_own() -> None:
    trace = Trace(GOOD)
    first = trace.begin("127.0.0.1:9001", "auth-svc", 1.0, hedged=False)
    second = trace.begin("127.0.0.1:9002", "auth-svc", 2.0, hedged=True)
    head = b"GET / HTTP/1.1\r\nHost: a\r\ntraceparent: %b\r\nX: 1\r\n\r\nbody" % trace.value
    for one in (first, second):
        stamped = trace.stamp(head, one)
        wanted = b"00-%b-%b-01" % (TRACE.encode(), one.span_id)
        assert stamped == head.replace(trace.value, wanted)
    assert first.span_id != second.span_id
    assert trace.tries == [first, second]
    first.end(3.0, "reset", "it was cut")
    assert (first.ended, first.outcome, first.detail) == (3.0, "reset", "it was cut")
    assert repr(first) == f"<TracedTry {first.span_id.decode()} 127.0.0.1:9001 reset>"
    assert repr(second).endswith("going on>")


def test_a_header_that_is_not_the_meshs_stays_as_it_is() -> None:
    trace = Trace(GOOD)
    one = trace.begin("127.0.0.1:9001", "auth-svc", 1.0, hedged=False)
    for head in (
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\ntraceparent: %b\r\n\r\n" % GOOD,
        b"GET / HTTP/1.1\r\nX-traceparent: %b\r\n\r\n" % trace.value,
    ):
        assert trace.stamp(head, one) == head
