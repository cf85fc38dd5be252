"""Turns a client's bytes into `RequestHead`s and their bodies: llhttp's callbacks, and what they keep.

Requests queue here until they are served. A malformed one ends the reading: the failure takes its
place in the queue, so that the ones before it are answered first.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Any, Final

import httptools

from hms_addons.engine.client_transport import ClientTransport
from hms_addons.engine.framing import (
    HTTP2_REFUSAL,
    Refusal,
    RequestHead,
    body_too_large,
    check_head,
    tunnelled_protocols,
)
from hms_addons.engine.identifiers import new_id
from hms_addons.errors import Failure, Fault
from hms_addons.http_message import BodyStream, get_field

if TYPE_CHECKING:
    import asyncio

    from hms_addons.clock import Clock
    from hms_addons.engine.lane import Lane
    from hms_addons.http_message import Fields

logger = logging.getLogger(__name__)

PIPELINE: Final = 16
"""Requests a client may send ahead of their answers before its socket is no longer read."""

_SPACE: Final = 0x20


class _RefusedError(Exception):
    """Ends parsing from inside a parser callback."""


class RequestReader(ClientTransport):
    """The part of an `Http1Server` that reads requests.

    Attributes:
        lane: what serves them.
    """

    __slots__ = (
        "_body_size",
        "_chunk",
        "_early",
        "_fields",
        "_held",
        "_in_head",
        "_mixed",
        "_parser",
        "_partial",
        "_pending",
        "_quiet",
        "_receiving",
        "_resync",
        "_target",
        "_task",
        "_trailers",
        "_unknown",
        "lane",
    )

    _parser: Any
    """llhttp, which calls back here; set by `Http1Server`."""

    def __init__(self, lane: Lane, clock: Clock) -> None:
        super().__init__(clock, lane.limits)
        self.lane = lane
        # The message that is being read.
        self._in_head = False
        self._target = b""
        self._fields: list[tuple[bytes, bytes]] = []
        self._chunk = 0  # bytes of the read that is being parsed
        self._partial = 0  # bytes of an unfinished head
        self._unknown = 0  # bytes of a read in which it began, behind something else
        self._mixed = False  # that read also held the end of another message
        self._quiet = 0  # bytes since the last piece of body: trailers, chunk extensions
        self._held: bytearray | None = None  # a held body that came in pieces
        self._receiving: RequestHead | None = None
        self._body_size = 0
        self._trailers = False
        self._resync = False
        # The requests that are read and not yet answered.
        self._pending: deque[RequestHead | Refusal] = deque()
        self._task: asyncio.Task[None] | None = None
        # What came behind a request for an upgrade that is not yet decided.
        self._early: bytearray | None = None

    # -- parsing --------------------------------------------------------------------------------

    def _parse(self, data: bytes) -> None:
        while data:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                data = self._after_upgrade(data[upgrade.args[0] :])
            except httptools.HttpParserCallbackError as error:
                if not isinstance(error.__context__, _RefusedError):
                    logger.exception("the request parser's callback failed")
                    self._refuse(Failure.of(Fault.BAD_REQUEST, "unreadable request", close=True))
                return
            except httptools.HttpParserError as error:
                self._unreadable(error)
                return
            else:
                return

    def _unreadable(self, error: Exception) -> None:
        self._parsing = False
        last = self._pending[-1] if self._pending else None
        if isinstance(last, RequestHead) and not last.keep_alive and last is not self._receiving:
            return  # bytes after a request that said `Connection: close`: not a request
        if self._parser.get_method() == b"PRI" and self._task is None and not self._pending:
            # The HTTP/2 connection preface, at which llhttp stops.
            self.transport.write(HTTP2_REFUSAL)
            self._linger(unread=True)
            return
        self._refuse(
            Failure.of(Fault.BAD_REQUEST, f"not well-formed HTTP/1.1: {error}", close=True)
        )

    def _refuse(self, failure: Failure, refused: RequestHead | None = None) -> None:
        """Answer with `failure` once everything before it is answered, and read no further.

        If it is the streaming body of a request whose head was fine that has gone wrong, this is
        the answer to that request: it must not get a second one.

        Args:
            failure: what is wrong.
            refused: the request, if its head is whole and it is not being received.
        """
        self._parsing = False
        self._timer.clear()
        request = self._receiving
        if request is None or request.stream is None:
            self._pending.append(self._refusal(failure, request or refused))
            return
        if self._pending and self._pending[-1] is request:
            self._pending[-1] = self._refusal(failure, request)  # not yet served, so not at all
        request.failure = failure
        request.keep_alive = False
        request.stream.fail(ConnectionResetError(failure.detail))

    def _refusal(self, failure: Failure, request: RequestHead | None) -> Refusal:
        fields = self._fields if request is None else request.fields
        given = get_field(tuple(fields), b"x-request-id")
        return Refusal(failure, new_id() if given is None else given.decode("latin-1"))

    # -- llhttp's callbacks ---------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Parser callback: the first byte of a request."""
        self._in_head = True

    def on_url(self, url: bytes) -> None:
        """Parser callback: (a piece of) the request target."""
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Parser callback: one header or trailer field."""
        if value and value[-1] <= _SPACE:
            # llhttp leaves spaces at the end, which are no part of it (RFC 9110 section 5.5): a policy
            # has to see what the app will see.
            value = value.rstrip(b" \t")
        self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        """Parser callback: the head is whole; decide what becomes of it."""
        self._in_head = False
        if self._resync:
            return
        parser = self._parser
        too_large = self._head_too_large()
        self._partial = self._unknown = 0
        request = RequestHead(parser.get_method(), self._target, self._fields)
        self._target = b""
        self._fields = []
        failure = too_large or check_head(request, parser.get_http_version(), self._limits)
        if failure is not None:
            self._refuse(failure, request)
            raise _RefusedError
        request.keep_alive = parser.should_keep_alive()
        self._receiving = request
        if parser.should_upgrade() and not request.has_body:
            request.upgrade = tunnelled_protocols(request.head.get(b"upgrade", b""))
        if not request.has_body:
            return
        self._body_size = 0
        self._trailers = True
        length = request.content_length
        held = length is not None and length <= self._limits.buffer_limit
        if held and not request.expect_continue:
            return
        request.body = None
        request.stream = BodyStream(self._pause_reading, self._resume_reading)
        self._pending.append(request)

    def _head_too_large(self) -> Failure | None:
        """Exact, but only counted where the bytes read could be too many."""
        limit = self._limits.header_bytes
        if self._partial + self._chunk + self._unknown <= limit:
            return None
        size = sum(len(name) + len(value) + 4 for name, value in self._fields)
        if size <= limit:
            return None
        return Failure.of(
            Fault.HEADERS_TOO_LARGE, f"the header fields exceed {limit} bytes", close=True
        )

    def on_body(self, data: bytes) -> None:
        """Parser callback: a piece of the body."""
        request = self._receiving
        if request is None:
            return
        self._quiet = 0
        stream = request.stream
        if stream is None:
            if not request.body:
                request.body = data  # almost always the only piece
            elif self._held is None:
                self._held = bytearray(request.body + data)
            else:
                self._held += data
            return
        self._body_size += len(data)
        max_body = self._limits.max_body
        if max_body is not None and self._body_size > max_body:
            # Chunked, so not known from the head. What was sent on is cut off.
            self._refuse(body_too_large(max_body))
            raise _RefusedError
        stream.feed(data)

    def on_message_complete(self) -> None:
        """Parser callback: the request is whole."""
        request = self._receiving
        if request is None or (self._parser.should_upgrade() and request.has_body):
            return  # httptools ends a message with an Upgrade at its head; its body follows
        trailers: Fields = ()
        if self._trailers:
            self._trailers = False
            if self._fields:
                trailers = self._take_trailers()
        self._receiving = None
        self._resync = False
        self._mixed = True
        self._timer.clear()
        if request.stream is not None:
            request.stream.feed_eof(trailers)
            return
        request.trailers = trailers
        if self._held is not None:
            request.body = bytes(self._held)
            self._held = None
        self._pending.append(request)
        if len(self._pending) >= PIPELINE and not self._reading_paused:
            self._pause_reading()

    def _take_trailers(self) -> Fields:
        fields, self._fields = self._fields, []
        limits = self._limits
        if (
            len(fields) > limits.header_count
            or sum(len(name) + len(value) + 4 for name, value in fields) > limits.header_bytes
        ):
            self._refuse(
                Failure.of(Fault.HEADERS_TOO_LARGE, "the trailer section is too large", close=True)
            )
            raise _RefusedError
        return self.lane.clean_trailers(tuple(fields))

    # -- upgrades -------------------------------------------------------------------------------

    def _after_upgrade(self, rest: bytes) -> bytes:
        """Go on after a request with an `Upgrade`, at which httptools stops.

        If it can be tunnelled, what follows waits for the upstream's word. If not, parsing goes on
        as if it had not been asked for: httptools has dropped the body's framing, so a fresh parser
        is first told it again.

        Returns:
            What of `rest` is to be parsed.
        """
        request = self._receiving or (self._pending[-1] if self._pending else None)
        if not isinstance(request, RequestHead):
            return b""
        if request.upgrade is not None:
            self._early = bytearray(rest)
            return b""
        self._parser = httptools.HttpRequestParser(self)
        if request.has_body:
            self._resync = True
            framing = (
                b"Transfer-Encoding: chunked"
                if request.chunked
                else b"Content-Length: %d" % (request.content_length or 0)
            )
            self._parser.feed_data(b"POST / HTTP/1.1\r\nHost: a\r\n" + framing + b"\r\n\r\n")
            self._target = b""
            self._fields = []
        return rest

    def _hold_early(self, data: bytes) -> None:
        """Bytes that came before the upstream has said whether it takes the upgrade."""
        if self._early is not None:
            self._early += data
            if len(self._early) > self._limits.header_bytes:
                self._pause_reading()
