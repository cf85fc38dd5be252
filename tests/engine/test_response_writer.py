"""Answers on the wire."""

from __future__ import annotations

import pytest

from hms_addons.engine.framing import RequestHead
from hms_addons.engine.response_writer import write_head, write_last_chunks
from hms_addons.http_message import Answer, Fields


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
