"""Heads as bytes: exact text, true framing, and nothing that ends a line early."""

from __future__ import annotations

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hms_addons.upstream.request_encoder import (
    CHUNKED,
    NO_FRAMING,
    UnsendableError,
    content_length,
    encode_chunk,
    encode_head,
    encode_last_chunk,
)

HOST = (b"Host", b"auth-svc.svc")


def test_a_get() -> None:
    head = encode_head(b"GET", b"/verify-id?id=7", (HOST, (b"X-A", b"b")), NO_FRAMING)
    assert head == (
        b"GET /verify-id?id=7 HTTP/1.1\r\nHost: auth-svc.svc\r\nX-A: b\r\n\r\n",
        None,
    )


def test_framing_comes_last() -> None:
    head, _ = encode_head(b"PUT", b"/", (HOST,), content_length(b"PUT", 12))
    assert head == b"PUT / HTTP/1.1\r\nHost: auth-svc.svc\r\nContent-Length: 12\r\n\r\n"


def test_what_is_vouched_for_is_written_alike() -> None:
    for fields in ((), (HOST,), (HOST, (b"X-A", b"b"))):
        for framing in (CHUNKED, NO_FRAMING, content_length(b"GET", 3)):
            looked_at = encode_head(b"GET", b"/", fields, framing)
            assert encode_head(b"GET", b"/", fields, framing, vouched=True) == looked_at


def test_a_request_line_is_looked_at_whoever_vouches_for_the_fields() -> None:
    with pytest.raises(UnsendableError, match="request line"):
        encode_head(b"GET", b"/a HTTP/1.1\r\nX: y", (HOST,), NO_FRAMING, vouched=True)


def test_no_fields_at_all() -> None:
    assert encode_head(b"GET", b"/", (), CHUNKED)[0] == (
        b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("method", "length", "framing"),
    [
        (b"GET", 0, b""),
        (b"DELETE", 0, b""),
        (b"GET", 3, b"Content-Length: 3\r\n"),
        (b"POST", 0, b"Content-Length: 0\r\n"),
        (b"PUT", 0, b"Content-Length: 0\r\n"),
        (b"PATCH", 0, b"Content-Length: 0\r\n"),
    ],
)
def test_content_length(method: bytes, length: int, framing: bytes) -> None:
    assert content_length(method, length) == framing


@pytest.mark.parametrize(
    "name",
    [
        b"Content-Length",
        b"content-length",
        b"TRANSFER-ENCODING",
        b"Expect",
        b"Connection",
        b"Upgrade",
    ],
)
def test_framing_in_the_fields_is_dropped(name: bytes) -> None:
    head, upgrade = encode_head(b"POST", b"/", (HOST, (name, b"chunked")), CHUNKED)
    assert head == b"POST / HTTP/1.1\r\nHost: auth-svc.svc\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert upgrade is None


def test_names_that_only_look_alike_stay() -> None:
    fields = (
        HOST,
        (b"X-Content-Length:", b"1"),
        (b"Upgrade-Insecure-Requests", b"1"),
        (b"X-Note", b"connection: close"),
    )
    head, _ = encode_head(b"GET", b"/", fields, NO_FRAMING)
    assert head.count(b"\r\n") == 6
    assert b"\r\nX-Note: connection: close\r\n" in head


def test_an_upgrade_keeps_its_fields() -> None:
    fields = (HOST, (b"Connection", b"Upgrade"), (b"Upgrade", b"websocket"), (b"Expect", b"x"))
    head, upgrade = encode_head(b"GET", b"/chat", fields, NO_FRAMING)
    assert upgrade == b"websocket"
    assert head.endswith(b"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")


@pytest.mark.parametrize("bad", [b"a\r\nX-Role: admin", b"a\nb", b"a\rb", b"a\0b"])
def test_a_line_break_in_a_field_is_refused_by_name(bad: bytes) -> None:
    with pytest.raises(UnsendableError, match="X-Tag"):
        encode_head(b"GET", b"/", (HOST, (b"X-Tag", bad)), NO_FRAMING)
    with pytest.raises(UnsendableError, match="X-Tag"):
        encode_last_chunk(((b"X-Tag", bad),))


@pytest.mark.parametrize("target", [b"/a b", b"/a\r\nHost: x", b"/\n", b"/ HTTP/1.1\r\nX: y"])
def test_a_stray_space_or_break_in_the_request_line_is_refused(target: bytes) -> None:
    with pytest.raises(UnsendableError, match="request line"):
        encode_head(b"GET", target, (HOST,), NO_FRAMING)


def test_chunks() -> None:
    assert encode_chunk(b"x" * 26) == b"1a\r\n" + b"x" * 26 + b"\r\n"
    assert encode_last_chunk(()) == b"0\r\n\r\n"
    assert encode_last_chunk(((b"X-Sum", b"9"), (b"A", b"b"))) == b"0\r\nX-Sum: 9\r\nA: b\r\n\r\n"


class Seen:
    """What a server would make of a request."""

    def __init__(self) -> None:
        self.fields: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.messages = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value))

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.messages += 1


NAMES = st.sampled_from(
    [b"Content-Length", b"Transfer-Encoding", b"Connection", b"X-A", b"Expect", b"Upgrade", b"x-b"]
)
VALUES = st.binary(max_size=12) | st.sampled_from([b"0", b"5", b"chunked", b"close", b"upgrade"])


@given(st.lists(st.tuples(NAMES, VALUES), max_size=5), st.binary(max_size=40))
def test_whatever_the_fields_say_a_server_sees_one_request_with_this_body(
    fields: list[tuple[bytes, bytes]], body: bytes
) -> None:
    try:
        head, upgrade = encode_head(
            b"POST", b"/", (HOST, *fields), content_length(b"POST", len(body))
        )
    except UnsendableError:
        return
    seen = Seen()
    parser = httptools.HttpRequestParser(seen)
    try:
        parser.feed_data(head + body)
    except httptools.HttpParserUpgrade:
        assert upgrade is not None
        return
    except httptools.HttpParserError:
        return  # a control character: refused by any server, so nothing is smuggled
    assert seen.messages == 1
    assert seen.body == body
