"""Answers on the wire: the head's bytes, held bodies, streaming ones in the framing the client can read."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from hms_addons.engine.request_reader import RequestReader
from hms_addons.errors import reason_phrase
from hms_addons.http_message import BodyStream, append_lines

if TYPE_CHECKING:
    from hms_addons.clock import Clock
    from hms_addons.engine.framing import RequestHead
    from hms_addons.engine.lane import Lane
    from hms_addons.http_message import Answer, Fields

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

NO_BODY_STATUS = frozenset({204, 304})
"""Statuses whose answers never have a body (RFC 9112 section 6.3)."""

_PHRASES = {status: reason_phrase(status) for status in range(100, 600)}
_STATUS_LINES = {
    status: b"HTTP/1.1 %d %b\r\n" % (status, phrase) for status, phrase in _PHRASES.items()
}


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
    parts = [line]
    append_lines(parts, fields)
    if fields is not answer.vouched and fields:
        block = b"".join(parts[1:])
        if block.count(b"\n") != len(fields) or block.count(b"\r") != len(fields):
            # A plugin or a script has put a line break into a field: it must not start a new one.
            parts = [line]
            append_lines(parts, [(_one_line(name), _one_line(value)) for name, value in fields])
    if answer.tunnel is not None:
        protocol = _one_line(answer.tunnel.protocol)
        parts.append(b"Connection: Upgrade\r\nUpgrade: %b\r\n\r\n" % protocol)
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


async def write_body(connection: ResponseWriter, request: RequestHead, answer: Answer) -> int:
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


class ResponseWriter(RequestReader):
    """The part of an `Http1Server` that answers what was read.

    Attributes:
        draining: no request is taken after the one that is answered next.
    """

    __slots__ = ("draining",)

    def __init__(self, lane: Lane, clock: Clock) -> None:
        super().__init__(lane, clock)
        self.draining = False

    async def respond(self, request: RequestHead, answer: Answer, *, close: bool = False) -> int:
        """Write `answer` to `request`.

        Args:
            request: the request being served.
            answer: held or streaming.
            close: do not keep the connection afterwards.

        Returns:
            The number of body bytes written.

        Raises:
            ConnectionResetError: the client has gone.
            Exception: what the answer's stream failed with; the caller must `abort()`.
        """
        body = answer.body
        if type(body) is bytes:
            written = self.respond_held(request, answer, body, close=close)
            if self.flow_control.paused:
                await self.flow_control.drain()
            return written
        self._decide_keep_alive(request, close=close)
        return await write_body(self, request, answer)

    def respond_held(
        self, request: RequestHead, answer: Answer, body: bytes, *, close: bool = False
    ) -> int:
        """Write an `answer` whose whole `body` is there; as `respond`, without waiting.

        If `flow_control.paused` afterwards, the caller has to wait for it to drain: a client that
        pipelines and does not read must not make this side buffer one answer after another.
        """
        self._decide_keep_alive(request, close=close)
        if answer.trailers and request.minor and request.method != b"HEAD":
            answer.length = None  # only a chunked body has room for them
            head = write_head(answer, request, keep_alive=request.keep_alive)
            self.transport.write(head + write_last_chunks(body, answer.trailers))
            return len(body)
        head = write_head(answer, request, keep_alive=request.keep_alive)
        if not body or request.method == b"HEAD" or answer.status in NO_BODY_STATUS:
            self.transport.write(head)
            return 0
        self.transport.write(head + body)
        return len(body)

    def _decide_keep_alive(self, request: RequestHead, *, close: bool) -> None:
        stream = request.stream
        if close or self.draining or (stream is not None and not stream.ended):
            request.keep_alive = False

    def send_continue(self) -> None:
        """Tell the client to send the body that it announced with `Expect: 100-continue`."""
        self.transport.write(CONTINUE)

    def send_interim(self, status: int, reason: bytes, fields: Fields) -> None:
        """Pass an interim (1xx) response on."""
        line = b"HTTP/1.1 %d %b" % (status, _one_line(reason))
        lines = [line, *(b"%b: %b" % field for field in fields)]
        self.transport.write(b"\r\n".join(lines) + b"\r\n\r\n")
