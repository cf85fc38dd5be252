"""One downstream HTTP/1.1 connection: an `asyncio.Protocol` fed by llhttp.

Bytes become `RequestHead`s; the lane serves them one at a time, in order; answers are written here.
Reading goes on while a request is served only as far as the pipeline's bound, so a client cannot
queue without limit. What the connection ends with:

- a malformed request: the ones before it are answered, then the refusal, then it is closed;
- a client that leaves: the request in flight is cancelled, which cancels its upstream call;
- a body cut short upstream: the connection is aborted, so that the answer never looks whole.

It is one object, since a request pays for each one that it passes through, but told in four files,
each of which knows those before it: `client_transport`, `request_reader`, `response_writer`, and here
what drives them: asyncio's callbacks, the serving, the deadlines.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import httptools

from hms_addons.engine.framing import Refusal, RequestHead
from hms_addons.engine.request_reader import PIPELINE
from hms_addons.engine.response_writer import ResponseWriter, write_head
from hms_addons.errors import Failure, Fault, problem
from hms_addons.http_message import HIGH_WATER, Answer, BodyStream
from hms_addons.lazy_timer import LazyTimer

if TYPE_CHECKING:
    from hms_addons.clock import Clock
    from hms_addons.engine.lane import Lane

SLICE: Final = 16 * 1024
"""Bytes that are parsed at a time: a read of 256 KiB can hold 14,000 requests, which would take 100
times its memory. Past the pipeline's bound the rest of the read waits as it came."""


class Http1Server(ResponseWriter):
    """One connection from a client.

    Attributes for the lane: `transport`, `peername`, `sockname`, and `context`, the lane's own.
    """

    __slots__ = ("_tunnel", "context", "peername", "sockname")

    def __init__(self, lane: Lane, clock: Clock) -> None:
        super().__init__(lane, clock)
        self.context: Any = None
        self.peername: tuple[str, int] = ("", 0)
        self.sockname: tuple[str, int] = ("", 0)
        # After `101 Switching Protocols`.
        self._tunnel: BodyStream | None = None
        # Last, since they are given what is made here: mypyc then knows that all of it is set.
        self._timer = LazyTimer(clock, self._timed_out)
        self._parser = httptools.HttpRequestParser(self)

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
        if isinstance(request, Refusal):
            self._answer_refusal(request)
            return
        if request.stream is None:
            self._timer.clear()
        # Eager: most of a request runs at once, without a turn of the loop.
        coroutine = self.lane.handle(self, request)
        task = asyncio.Task(coroutine, loop=self._loop, eager_start=True)
        if not task.done():
            self._task = task

    def _answer_refusal(self, refusal: Refusal) -> None:
        failure = refusal.failure
        reason, fields, body = problem(failure, refusal.request_id)
        answer = Answer(failure.status, reason, fields, body, local=True)
        self.transport.write(write_head(answer, None, keep_alive=False) + body)
        self.lane.refused(self, refusal)
        self._linger(unread=True)

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

    # -- deadlines ------------------------------------------------------------------------------

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

    # -- its last requests ----------------------------------------------------------------------

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
