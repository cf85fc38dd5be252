"""One downstream HTTP/1.1 connection: an `asyncio.Protocol` fed by llhttp.

Bytes become `RequestHead`s; the lane serves them one at a time, in order; answers are written here.
Reading goes on while a request is served only as far as the pipeline's bound, so a client cannot
queue without limit. What the connection ends with:

- a malformed request: the ones before it are answered, then the refusal, then it is closed;
- a client that leaves: the request in flight is cancelled, which cancels its upstream call;
- a body cut short upstream: the connection is aborted, so that the answer never looks whole.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

import httptools

from hms_addons.engine.flow_control import FlowControl
from hms_addons.engine.framing import (
    HTTP2_REFUSAL,
    RequestHead,
    body_too_large,
    check_head,
)
from hms_addons.engine.response_writer import (
    NO_BODY_STATUS,
    write_body,
    write_head,
    write_last_chunks,
)
from hms_addons.errors import Failure, Fault, problem
from hms_addons.http_message import HIGH_WATER, Answer, BodyStream
from hms_addons.lazy_timer import LazyTimer

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from hms_addons.clock import Clock, Timer
    from hms_addons.config.snapshot import Limits
    from hms_addons.http_message import Fields

logger = logging.getLogger(__name__)

PIPELINE = 16
"""Requests a client may send ahead of their answers before its socket is no longer read."""

SLICE = 16 * 1024
"""Bytes that are parsed at a time: a read of 256 KiB can hold 14,000 requests, which would take 100
times its memory. Past the pipeline's bound the rest of the read waits as it came."""

LINGER = 2.0
"""Seconds to go on reading, and discarding, after a last answer: closing with unread bytes sends a
reset, which can destroy the answer before the client has read it."""

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Lane(Protocol):
    """What serves a connection's requests."""

    connections: set[Http1Server]
    """Those that are open."""

    @property
    def limits(self) -> Limits:
        """Bounds on requests."""

    def opened(self, connection: Http1Server) -> bool:
        """A connection was made (and its TLS handshake done); False to close it at once."""

    def closed(self, connection: Http1Server) -> None:
        """It has gone."""

    def handle(self, connection: Http1Server, request: RequestHead) -> Coroutine[Any, Any, None]:
        """Serve one request: answer with `connection.respond`, or `connection.abort`."""

    def refused(self, connection: Http1Server, failure: Failure) -> None:
        """A request was so malformed that it never became an exchange; it has been answered."""

    def clean_trailers(self, trailers: Fields) -> Fields:
        """The trailer fields that may go on."""


class _RefusedError(Exception):
    """Ends parsing from inside a parser callback."""


class Http1Server:
    """One connection from a client.

    Attributes for the lane: `transport`, `peername`, `sockname`, and `context`, the lane's own.
    """

    __slots__ = (
        "_ahead",
        "_body_size",
        "_chunk",
        "_clock",
        "_early",
        "_fields",
        "_held",
        "_in_head",
        "_limits",
        "_lingering",
        "_loop",
        "_mixed",
        "_parser",
        "_parsing",
        "_partial",
        "_pending",
        "_quiet",
        "_reading_paused",
        "_receiving",
        "_resync",
        "_target",
        "_task",
        "_timer",
        "_trailers",
        "_tunnel",
        "_unknown",
        "_write_timer",
        "context",
        "draining",
        "flow_control",
        "lane",
        "peername",
        "sockname",
        "transport",
    )

    transport: asyncio.Transport

    def __init__(self, lane: Lane, clock: Clock) -> None:
        # For the life of the connection.
        self.lane = lane
        self.context: Any = None
        self.draining = False
        self.flow_control = FlowControl()
        self.peername: tuple[str, int] = ("", 0)
        self.sockname: tuple[str, int] = ("", 0)
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._limits = lane.limits
        self._timer = LazyTimer(clock, self._timed_out)
        self._write_timer: Timer | None = None
        self._lingering = False
        # The message that is being read.
        self._parser: Any = httptools.HttpRequestParser(self)
        self._parsing = True
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
        self._reading_paused = False
        # The requests that are read and not yet answered.
        self._pending: deque[RequestHead | Failure] = deque()
        self._ahead = b""  # read, and not parsed before some of those are answered
        self._task: asyncio.Task[None] | None = None
        # After, or on the way to, `101 Switching Protocols`.
        self._early: bytearray | None = None
        self._tunnel: BodyStream | None = None

    def __repr__(self) -> str:
        state = (
            "tunnel"
            if self._tunnel is not None
            else "lingering"
            if self._lingering
            else "serving"
            if self._task is not None
            else "idle"
        )
        return f"<Http1Server {self.peername[0]}:{self.peername[1]} {state}>"

    @property
    def idle(self) -> bool:
        """No request is being read, waiting or served."""
        return (
            self._task is None
            and not self._pending
            and not self._ahead
            and not self._in_head
            and self._receiving is None
            and self._tunnel is None
        )

    @property
    def idle_until(self) -> float:
        """Monotonic seconds when an idle connection is closed: the longer idle, the sooner."""
        return self._timer.deadline or 0.0

    # -- asyncio.Protocol -----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.BaseProtocol`; for TLS, after the handshake."""
        self.transport = transport  # type: ignore[assignment] # TCP and TLS transports both are
        self.peername = (transport.get_extra_info("peername") or ("", 0))[:2]
        self.sockname = (transport.get_extra_info("sockname") or ("", 0))[:2]
        if not self.lane.opened(self):
            self._parsing = False
            self.transport.abort()
            return
        self._timer.set(self._clock.monotonic() + self._limits.idle_timeout)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """See `asyncio.BaseProtocol`: whatever was in flight is cancelled."""
        self._parsing = False
        self._timer.close()
        self._stop_watching_writes()
        self.flow_control.close()
        self._pending.clear()
        gone = ConnectionResetError("the client closed the connection")
        if self._receiving is not None and self._receiving.stream is not None:
            self._receiving.stream.fail(gone)
        if self._tunnel is not None:
            self._tunnel.fail(gone)
        if self._task is not None:
            self._task.cancel()
        self.lane.closed(self)

    def eof_received(self) -> bool | None:
        """The client has closed its side: taken as its leaving, as nginx and Envoy do."""
        if self._tunnel is not None:
            self._tunnel.feed_eof()
            return self.transport.can_write_eof()  # a tunnel may be half closed, but not over TLS
        self.close()
        return None

    def pause_writing(self) -> None:
        """See `asyncio.BaseProtocol`: the client has a minute to take some of what is written."""
        self.flow_control.pause()
        self._watch_writes(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """See `asyncio.BaseProtocol`."""
        self._stop_watching_writes()
        self.flow_control.resume()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self._ahead:
            self._ahead += data
            return
        if len(data) > SLICE and self._receiving is None and self._tunnel is None:
            self._take_slices(data)
            return
        if self._tunnel is not None:
            self._tunnel.feed(data)
            return
        if not self._parsing:
            return  # lingering, or about to be closed: discarded
        if self._early is not None:
            self._hold_early(data)
            return
        self._chunk = len(data)
        self._mixed = False
        self._parse(data)
        if self._task is None and self._pending:
            self._next()
        if self._in_head or self._receiving is not None:
            self._watch_progress()

    def _take_slices(self, data: bytes) -> None:
        for start in range(0, len(data), SLICE):
            if len(self._pending) >= PIPELINE:
                self._ahead = data[start:]
                break
            self.data_received(data[start : start + SLICE])

    def _watch_writes(self, left: int) -> None:
        timeout = self._limits.body_timeout
        self._write_timer = self._clock.call_later(timeout, self._look_at_writes, left)

    def _look_at_writes(self, before: int) -> None:
        """Cut off a client that reads nothing: its upstream connection waits for it too."""
        left = self.transport.get_write_buffer_size()
        if left < before:
            self._watch_writes(left)
        else:
            self.abort()

    def _stop_watching_writes(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

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

    def _refuse(self, failure: Failure) -> None:
        """Answer with `failure` once everything before it is answered, and read no further.

        If it is the streaming body of a request whose head was fine that has gone wrong, this is
        the answer to that request: it must not get a second one.
        """
        self._parsing = False
        self._timer.clear()
        request = self._receiving
        if request is None or request.stream is None:
            self._pending.append(failure)
            return
        if self._pending and self._pending[-1] is request:
            self._pending[-1] = failure  # not yet served, so not at all
        request.failure = failure
        request.keep_alive = False
        request.stream.fail(ConnectionResetError(failure.detail))

    def on_message_begin(self) -> None:
        """Parser callback: the first byte of a request."""
        self._in_head = True

    def on_url(self, url: bytes) -> None:
        """Parser callback: (a piece of) the request target."""
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Parser callback: one header or trailer field."""
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
            self._refuse(failure)
            raise _RefusedError
        request.keep_alive = parser.should_keep_alive()
        self._receiving = request
        if parser.should_upgrade() and not request.has_body:
            protocol = request.head.get(b"upgrade", b"")
            # h2c is not tunnelled: the upgrade is simply not taken up (RFC 9110 section 7.8).
            if protocol and not protocol.lower().startswith(b"h2c"):
                request.upgrade = protocol
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

    def _watch_progress(self) -> None:
        """Set the deadline for what is still to come of a message, and bound what is unread of it.

        llhttp keeps an unfinished field to itself, so the bytes are counted here.
        """
        if not self._parsing:
            return
        now = self._clock.monotonic()
        limits = self._limits
        if self._receiving is not None:
            self._timer.set(now + limits.body_timeout)
            self._quiet += self._chunk
            over, fault = self._quiet > limits.header_bytes + HIGH_WATER, Fault.HEADERS_TOO_LARGE
        else:
            if not self._partial:
                self._timer.set(now + limits.head_timeout)
            # Of a mixed read it is not known how much is head; the reads after it are counted.
            if self._mixed:
                self._partial += 1
                self._unknown = self._chunk
            else:
                self._partial += self._chunk
            long_target = len(self._target) > limits.target_bytes
            over = (
                long_target
                or self._partial > limits.header_bytes + limits.target_bytes
                or len(self._fields) > limits.header_count
            )
            fault = Fault.TARGET_TOO_LONG if long_target else Fault.HEADERS_TOO_LARGE
        if over:
            self._refuse(Failure.of(fault, "the request is larger than is taken", close=True))
            if self._task is None and self._pending:
                self._next()

    def _pause_reading(self) -> None:
        if not self._reading_paused and not self.transport.is_closing():
            self._reading_paused = True
            self.transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._reading_paused and not self.transport.is_closing():
            if self._ahead:
                self._loop.call_soon(self._read_ahead)
                return
            self._reading_paused = False
            self.transport.resume_reading()

    def _read_ahead(self) -> None:
        """Go on with what was read before; with the socket, when that is all parsed."""
        data, self._ahead = self._ahead, b""
        if data:
            self.data_received(data)
        receiving = self._receiving
        if len(self._pending) < PIPELINE and not (
            receiving is not None and receiving.stream is not None and receiving.stream.paused
        ):
            self._resume_reading()

    # -- serving --------------------------------------------------------------------------------

    def _next(self) -> None:
        """Begin with the next request that waits."""
        request = self._pending.popleft()
        if not isinstance(request, RequestHead):
            self._answer_refusal(request)
            return
        if request.stream is None:
            self._timer.clear()
        # Eager: most of a request runs at once, without a turn of the loop.
        coroutine = self.lane.handle(self, request)
        task = asyncio.Task(coroutine, loop=self._loop, eager_start=True)
        if not task.done():
            self._task = task

    def _answer_refusal(self, failure: Failure) -> None:
        reason, fields, body = problem(failure, "")
        answer = Answer(failure.status, reason, fields, body, local=True)
        self.transport.write(write_head(answer, None, keep_alive=False) + body)
        self.lane.refused(self, failure)
        self._linger(unread=True)

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

    def finished(self, request: RequestHead) -> None:
        """The lane has done with `request`: go on to the next, or say goodbye."""
        self._task = None
        if self._tunnel is not None:
            return
        if not request.keep_alive:
            self._parsing = False
            self._linger(unread=self._receiving is not None)
            return
        if request.upgrade is not None and self._early is not None:
            early, self._early = bytes(self._early), None
            self._after_declined_upgrade(early)
        if self._pending:
            # By way of the loop: a long pipeline must not become a deep stack.
            self._loop.call_soon(self._continue)
        elif self._parsing and self._receiving is None:
            now = self._clock.monotonic()
            limits = self._limits = self.lane.limits
            self._timer.set(now + (limits.head_timeout if self._in_head else limits.idle_timeout))
        if self._reading_paused and len(self._pending) < PIPELINE // 2:
            receiving = self._receiving
            # Not if it is the body of a later request that waits to be taken.
            if receiving is None or receiving.stream is None or not receiving.stream.paused:
                self._resume_reading()

    def _continue(self) -> None:
        if self._task is None and self._pending and not self.transport.is_closing():
            self._next()

    def _after_declined_upgrade(self, early: bytes) -> None:
        self._parser = httptools.HttpRequestParser(self)
        if len(early) > SLICE:
            early, self._ahead = early[:SLICE], early[SLICE:]
            self._pause_reading()
        if early:
            self._chunk = len(early)
            self._mixed = False
            self._parse(early)
            if self._in_head or self._receiving is not None:
                self._watch_progress()

    def send_continue(self) -> None:
        """Tell the client to send the body that it announced with `Expect: 100-continue`."""
        self.transport.write(CONTINUE)

    def send_interim(self, status: int, reason: bytes, fields: Fields) -> None:
        """Pass an interim (1xx) response on."""
        lines = [b"HTTP/1.1 %d %b" % (status, reason), *(b"%b: %b" % field for field in fields)]
        self.transport.write(b"\r\n".join(lines) + b"\r\n\r\n")

    def start_tunnel(self) -> BodyStream:
        """The upgrade was taken: from now on bytes are bytes. Returns what the client sends."""
        tunnel = BodyStream(self._pause_reading, self._resume_reading)
        self._timer.clear()
        early, self._early = self._early, None
        self._tunnel = tunnel
        self._resume_reading()
        if early:
            tunnel.feed(bytes(early))
        return tunnel

    # -- ending ---------------------------------------------------------------------------------

    def abort(self) -> None:
        """Cut the connection off, so that what was sent cannot be taken for whole."""
        self._parsing = False
        self.transport.abort()

    def close(self) -> None:
        """Close once what was written has been sent; a client that does not take it is cut off."""
        self._parsing = False
        self.transport.close()
        if self.transport.get_write_buffer_size():
            self._timer.set(self._clock.monotonic() + self._limits.body_timeout)

    def _linger(self, *, unread: bool) -> None:
        """Close; but if the client may still be sending, give it time to read the answer first."""
        self._parsing = False
        if self._lingering or self.transport.is_closing():
            return
        if not unread:
            self.close()
            return
        self._lingering = True
        if self.transport.can_write_eof():
            try:
                self.transport.write_eof()
            except OSError:  # it has just been reset, which the loop tells of next
                self.transport.abort()
                return
        self._resume_reading()
        self._timer.set(self._clock.monotonic() + LINGER)

    def drain(self) -> None:
        """Take no further request; close now if idle, else after the answer."""
        self.draining = True
        if self.idle and not self.transport.is_closing():
            self.close()

    def retire(self) -> None:
        """Its peer is not to be trusted any more: as `drain`; a tunnel, which has no end, is cut.

        So is a request that would become one.
        """
        self.drain()
        if self._tunnel is not None or self._early is not None:
            self.abort()

    def _timed_out(self) -> None:
        if self._lingering or self.transport.is_closing():
            self.transport.abort()
            return
        if self._reading_paused and (self._in_head or self._receiving is not None):
            # It is the upstream that makes no progress, and that has timers of its own.
            self._timer.set(self._clock.monotonic() + self._limits.body_timeout)
            return
        if self._receiving is not None:
            fault, detail = Fault.BODY_TIMEOUT, "the request body made no progress"
            seconds = self._limits.body_timeout
        elif self._in_head:
            fault, detail = Fault.HEAD_TIMEOUT, "the request head did not arrive"
            seconds = self._limits.head_timeout
        else:
            if self._task is None and not self._pending:
                self.close()  # idle
            return
        self._refuse(Failure.of(fault, f"{detail} within {seconds:g} s", close=True))
        if self._task is None and self._pending:
            self._next()
