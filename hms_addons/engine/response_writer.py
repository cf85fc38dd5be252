"""Answers on the wire: the head's bytes, and a streaming body in the framing the client can read."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hms_addons.errors import reason_phrase
from hms_addons.http_message import BodyStream

if TYPE_CHECKING:
    from hms_addons.engine.framing import RequestHead
    from hms_addons.engine.http1_server import Http1Server
    from hms_addons.http_message import Answer, Fields

NO_BODY_STATUS = frozenset({204, 304})
"""Statuses whose answers never have a body (RFC 9112 section 6.3)."""

_PHRASES = {status: reason_phrase(status) for status in range(100, 600)}
_STATUS_LINES = {
    status: b"HTTP/1.1 %d %b\r\n" % (status, phrase) for status, phrase in _PHRASES.items()
}

_pair = b": ".join


def write_head(answer: Answer, request: RequestHead | None, *, keep_alive: bool) -> bytes:
    """The head of `answer`, with framing and connection fields for the client of `request`.

    Args:
        answer: its `fields` hold no framing and no hop-by-hop fields.
        request: None when there was none that could be read.
        keep_alive: whether the connection goes on.
    """
    status = answer.status
    reason = answer.reason
    if reason and reason != _PHRASES.get(status):
        line = b"HTTP/1.1 %d %b\r\n" % (status, _one_line(reason))
    else:
        line = _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status
    fields = answer.fields
    block = b"\r\n".join(map(_pair, fields))
    breaks = len(fields) - 1
    if (
        fields is not answer.vouched
        and fields
        and (block.count(b"\n") != breaks or block.count(b"\r") != breaks)
    ):
        # A plugin or a script has put a line break into a field: it must not start a new one.
        block = b"\r\n".join([_one_line(name) + b": " + _one_line(value) for name, value in fields])
    parts = [line, block, b"\r\n"] if fields else [line]
    if answer.tunnel is not None:
        upgrade = request.upgrade if request is not None and request.upgrade else b""
        parts.append(b"Connection: Upgrade\r\nUpgrade: %b\r\n\r\n" % upgrade)
        return b"".join(parts)
    if status not in NO_BODY_STATUS:
        if answer.length is not None:
            parts.append(b"Content-Length: %d\r\n" % answer.length)
        elif request is not None and request.minor:
            parts.append(b"Transfer-Encoding: chunked\r\n")
    elif status == 304 and answer.length:  # noqa: PLR2004 - it may tell what a 200 would have had
        parts.append(b"Content-Length: %d\r\n" % answer.length)
    if not keep_alive:
        parts.append(b"Connection: close\r\n\r\n")
    elif request is not None and request.minor == 0:
        parts.append(b"Connection: keep-alive\r\n\r\n")
    else:
        parts.append(b"\r\n")
    return b"".join(parts)


_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
"""What neither a reason phrase nor a field may hold (RFC 9112 section 4, RFC 9110 section 5.5): line
breaks, and escapes that a terminal would obey. llhttp lets them pass in an upstream's reason."""


def _one_line(text: bytes) -> bytes:
    return _CONTROL.sub(b" ", text)


def write_last_chunks(body: bytes, trailers: Fields) -> bytes:
    """What is left of a chunked body, and its end with the trailer section."""
    chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
    lines = [b"%b: %b\r\n" % (_one_line(name), _one_line(value)) for name, value in trailers]
    return chunk + b"0\r\n" + b"".join(lines) + b"\r\n"


async def write_body(connection: Http1Server, request: RequestHead, answer: Answer) -> int:
    """Write a streaming answer piece by piece, at the pace the client takes it.

    Returns:
        The number of body bytes written, framing not counted.

    Raises:
        ConnectionResetError: the client has gone.
        Exception: what the stream failed with.
    """
    stream = answer.body
    assert isinstance(stream, BodyStream)  # noqa: S101 - the caller has looked
    bodyless = request.method == b"HEAD" or answer.status in NO_BODY_STATUS
    chunked = answer.length is None and request.minor == 1 and not bodyless
    if answer.length is None and request.minor == 0:
        request.keep_alive = False  # HTTP/1.0: the end of the connection ends the body
    transport, flow_control = connection.transport, connection.flow_control
    transport.write(write_head(answer, request, keep_alive=request.keep_alive))
    if bodyless:
        answer.release()
        return 0
    written = 0
    try:
        while data := await stream.read():
            written += len(data)
            if chunked:
                transport.write(b"%x\r\n%b\r\n" % (len(data), data))  # see `encode_chunk`
            else:
                transport.write(data)
            if flow_control.paused:
                await flow_control.drain()
    except BaseException:
        stream.close()
        raise
    if answer.length is not None and written != answer.length:
        # What a plugin put in its place, perhaps. The client would wait for the rest, or take the
        # surplus for the next answer.
        message = f"the answer's body has {written} bytes, not {answer.length} as was announced"
        raise EOFError(message)
    if chunked:
        transport.write(write_last_chunks(b"", stream.trailers))
    return written
