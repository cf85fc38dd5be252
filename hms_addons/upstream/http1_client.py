"""One upstream HTTP/1.1 connection: an `asyncio.Protocol` around a `ResponseParser`.

It carries one exchange at a time: `send` writes a request and gives a future of the `Answer`;
`pump` sends a streaming body beside it, so that an early response is not missed. Responses of known,
small length are held whole and cost one wake-up; all others stream with backpressure.

However an exchange ends, the owner (a `Pool`) hears of it exactly once, synchronously, through
`finished`. That is where slots are given back, so none can leak while a coroutine is being cancelled.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, Protocol

from hms_addons.http_message import Answer, BodyStream
from hms_addons.lazy_timer import LazyTimer
from hms_addons.upstream.outcome import Outcome, UpstreamError
from hms_addons.upstream.request_pump import RequestPump
from hms_addons.upstream.response_parser import ResponseParser, ViolationError
from hms_addons.upstream.upstream_tunnel import UpstreamTunnel

if TYPE_CHECKING:
    from collections.abc import Callable

    from hms_addons.clock import Clock, Timer
    from hms_addons.http_message import Fields
    from hms_addons.tasks import TaskSet
    from hms_addons.upstream.circuit_breaker import CircuitBreaker

HELD_LIMIT: Final = 1024 * 1024
"""Default for the longest response body, in bytes, that is held whole."""

RETIRED: Final = -1
"""The epoch of no pool."""

_CONTINUE: Final = 100

# What the connection is doing.
_IDLE, _HEAD, _BODY, _TUNNEL, _CLOSED = range(5)
_NAMES: Final = ("idle", "awaiting", "receiving", "tunnel", "closed")


class ConnectionOwner(Protocol):
    """What a connection belongs to."""

    def finished(self, connection: Http1Connection, *, reusable: bool) -> None:
        """The exchange is over; keep the connection, or close it if it cannot be used again."""

    def lost(self, connection: Http1Connection) -> None:
        """It is closed, or closing; nothing more will come of it."""

    def gone(self, connection: Http1Connection) -> None:
        """Its transport is gone too."""


class _BodyControl:
    """A streaming response's hold on its connection; let go when the response is whole.

    Its consumer may still be draining it when the connection serves the next exchange already.
    """

    __slots__ = ("connection",)

    def __init__(self, connection: Http1Connection) -> None:
        self.connection: Http1Connection | None = connection

    def pause(self) -> None:
        if self.connection is not None:
            self.connection.transport.pause_reading()

    def resume(self) -> None:
        if self.connection is not None:
            self.connection.transport.resume_reading()

    def abandon(self) -> None:
        if self.connection is not None:
            self.connection.abort()


class Http1Connection:
    """A connection to one endpoint.

    Attributes:
        transport: set once connected.
        owner: its pool.
        loop: the event loop it lives on.
        handle: what a `ConnectionObserver` gave for it, else None.
        epoch: of the pool when it was made; another epoch's connections are not pooled again.
        expiry: set for when the peer's certificate expires; whoever sets it calls it off.
        served: requests sent over it.
        write_paused: the transport's buffer is above its high-water mark.
        route_breaker: whose connection slot the current exchange occupies, beside its cluster's.
        held_requests: breakers whose request slot lasts as long as the current response streams.
    """

    __slots__ = (
        "_clock",
        "_control",
        "_deadline",
        "_head_deadline",
        "_hold",
        "_interim",
        "_parser",
        "_pump",
        "_state",
        "_stream",
        "_tasks",
        "_timeouts",
        "_timer",
        "_tunnel",
        "_waiter",
        "epoch",
        "expiry",
        "handle",
        "held_requests",
        "loop",
        "owner",
        "route_breaker",
        "served",
        "transport",
        "write_paused",
    )

    transport: asyncio.Transport

    def __init__(self, owner: ConnectionOwner, clock: Clock, tasks: TaskSet) -> None:
        # For the life of the connection.
        self.owner = owner
        self.loop = asyncio.get_running_loop()
        self.handle: Any = None
        self.epoch = 0
        self.expiry: Timer | None = None
        self.served = 0
        self.write_paused = False
        self._clock = clock
        self._tasks = tasks
        self._timer = LazyTimer(clock, self._timed_out)
        self._parser = ResponseParser()
        self._state = _IDLE
        # Of the current exchange.
        self.route_breaker: CircuitBreaker | None = None
        self.held_requests: tuple[CircuitBreaker, ...] = ()
        self._waiter: asyncio.Future[Answer] | None = None
        self._deadline: float | None = None
        self._head_deadline: float | None = None
        self._hold = HELD_LIMIT
        self._interim: Callable[[int, bytes, Fields], None] | None = None
        # Of its streams; None while there are none.
        self._pump: RequestPump | None = None
        self._timeouts: tuple[float | None, float | None] = (None, None)
        self._stream: BodyStream | None = None
        self._control: _BodyControl | None = None
        self._tunnel: UpstreamTunnel | None = None

    def __repr__(self) -> str:
        return f"<Http1Connection {_NAMES[self._state]} served={self.served}>"

    @property
    def closed(self) -> bool:
        """It is gone, or on its way."""
        return self._state == _CLOSED

    # -- the exchange ---------------------------------------------------------------------------

    def send(
        self,
        data: bytes,
        deadline: float | None = None,
        head_deadline: float | None = None,
        *,
        to_head: bool = False,
        upgrade: bool = False,
        hold: int = HELD_LIMIT,
        interim: Callable[[int, bytes, Fields], None] | None = None,
    ) -> asyncio.Future[Answer]:
        """Write a request; never waits. The connection must be idle.

        Args:
            data: the head, and the body where that is held.
            deadline: monotonic seconds by which the response must be whole.
            head_deadline: the same for its head, if that is sooner.
            to_head: the method is HEAD.
            upgrade: the request asks for an upgrade.
            hold: bytes of response body, of known length, that are held whole.
            interim: given interim (1xx) responses.

        Returns:
            A future of the answer, or of an `UpstreamError`. Its body, if a stream, fails with an
            `UpstreamError` if the upstream does not finish it. Cancelling the future is not enough:
            call `abort`.
        """
        waiter: asyncio.Future[Answer] = self.loop.create_future()
        self._waiter = waiter
        self._deadline = deadline
        self._head_deadline = head_deadline
        self._hold = hold
        self._interim = interim
        if self._state != _IDLE or self.transport.is_closing():
            self._refuse(waiter)
            return waiter
        self.served += 1
        self._state = _HEAD
        self._parser.begin(to_head=to_head, upgrade=upgrade)
        first = head_deadline or deadline
        if first is None:
            self._timer.clear()
        else:
            self._timer.set(first)
        self.transport.write(data)
        return waiter

    def _refuse(self, waiter: asyncio.Future[Answer]) -> None:
        detail = "the connection was closed before it was used"
        if self._state == _CLOSED:
            self._waiter = None
            self.owner.finished(self, reusable=False)
            waiter.set_exception(UpstreamError(Outcome.RESET_BEFORE_REQUEST, detail))
        else:
            self._fail(Outcome.RESET_BEFORE_REQUEST, detail)

    def pump(
        self,
        body: BodyStream,
        length: int | None,
        timeout: float | None,
        head_timeout: float | None,
    ) -> None:
        """Send a streaming body after the head that `send` has just written.

        Args:
            body: the bytes.
            length: as announced in the head, None if chunked was.
            timeout, head_timeout: seconds, from the end of the body, to the end of the response
                and to its head.
        """
        if self._state == _CLOSED:
            return
        self._timeouts = (timeout, head_timeout)
        self._pump = pump = RequestPump(self, body, length, timeout)
        pump.task = self._tasks.start(pump.run(), "request body")

    def abort(self) -> None:
        """End it at once, whatever is going on; an answer still awaited fails. Idempotent."""
        if self._state == _CLOSED:
            return
        waiter = self._waiter
        self._end(reusable=False)
        if waiter is not None and not waiter.done():
            waiter.set_exception(UpstreamError(Outcome.RESET, "the connection was given up"))

    def give_up(self, waiter: asyncio.Future[Answer]) -> None:
        """Whoever awaited `send`'s future was cancelled: nobody will take the answer.

        The connection may already be carrying somebody else's exchange; that one is left alone.
        """
        if self._waiter is waiter:
            self.abort()
        elif waiter.done() and not waiter.cancelled() and waiter.exception() is None:
            waiter.result().release()

    def park(self, until: float) -> None:
        """Owner: it is idle now; close it at `until` (monotonic seconds) unless it is used."""
        self._timer.set(until)

    def retire(self) -> None:
        """Its peer is not to be trusted any more: close it, after the exchange in flight if any.

        A tunnel, which has no end, is cut.
        """
        self.epoch = RETIRED
        if self._state == _TUNNEL:
            self.abort()
        else:
            self.close()

    def close(self) -> None:
        """Owner: close an idle connection in good order. Idempotent."""
        if self._state == _IDLE:
            self._state = _CLOSED
            self._timer.close()
            self.transport.close()
            self.owner.lost(self)

    # -- told by the pump -----------------------------------------------------------------------

    def request_sent(self) -> None:
        """The streaming body has been written; the response's time begins."""
        self._pump = None
        if self._state not in {_HEAD, _BODY}:
            return
        now = self._clock.monotonic()
        timeout, head_timeout = self._timeouts
        self._deadline = None if timeout is None else now + timeout
        first = self._deadline
        if self._state == _HEAD and head_timeout is not None:
            self._head_deadline = now + head_timeout
            first = self._head_deadline if first is None else min(first, self._head_deadline)
        if first is not None:
            self._timer.set(first)

    def request_failed(self, detail: str) -> None:
        """The streaming body cannot be completed, so neither can the request."""
        self._pump = None
        if self._state != _CLOSED:
            self._fail(Outcome.REQUEST_BODY, detail)

    def limit_drain(self, timeout: float | None) -> None:
        """The upstream has `timeout` seconds to take some of the body; None: it has."""
        if timeout is None:
            self._timer.clear()
        else:
            self._timer.set(self._clock.monotonic() + timeout)

    # -- asyncio.Protocol -----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.BaseProtocol`; for TLS, after the handshake."""
        self.transport = transport  # type: ignore[assignment] # TCP and TLS transports both are

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        state = self._state
        if state == _TUNNEL:
            self._tunnel.incoming.feed(data)  # type: ignore[union-attr] # a tunnel has one
            return
        if state in (_IDLE, _CLOSED):
            self.abort()  # bytes that nobody asked for: not to be taken for the next response
            return
        parser = self._parser
        violation: ViolationError | None = None
        try:
            parser.feed(data)
        except ViolationError as error:
            violation = error
        if parser.interim:
            self._pass_interim()
        if state == _HEAD and parser.head_complete:
            if parser.rest is not None:
                self._begin_tunnel(parser.rest)
                return
            self._state = _BODY
            if not parser.ended:
                self._begin_body()
        stream = self._stream
        if stream is not None and parser.pieces:
            pieces, parser.pieces = parser.pieces, []
            for piece in pieces:
                stream.feed(piece)
        if parser.ended:
            self._complete(reusable=violation is None and parser.keep_alive)
        elif violation is not None:
            self._fail(Outcome.PROTOCOL_ERROR, f"broke HTTP/1.1: {violation}")

    def eof_received(self) -> bool:
        """The upstream has closed its side."""
        state = self._state
        if state == _TUNNEL:
            self._tunnel.incoming.feed_eof()  # type: ignore[union-attr] # a tunnel has one
            return self.transport.can_write_eof()  # the other half goes on, but not over TLS
        if state == _IDLE:
            self.close()
        elif state != _CLOSED:
            self._cut("closed the connection", None)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.BaseProtocol`."""
        if self._state in (_IDLE, _TUNNEL):
            self._end(reusable=False, error=exc)
        elif self._state != _CLOSED:
            self._cut("reset the connection" if exc else "closed the connection", exc)
        self.owner.gone(self)

    def pause_writing(self) -> None:
        """See `asyncio.BaseProtocol`."""
        self.write_paused = True

    def resume_writing(self) -> None:
        """See `asyncio.BaseProtocol`."""
        self.write_paused = False
        if self._pump is not None:
            self._pump.resume()
        elif self._tunnel is not None:
            self._tunnel.resume()

    # -- the response ---------------------------------------------------------------------------

    def _pass_interim(self) -> None:
        heads = self._parser.interim
        self._parser.interim = []
        if self._interim is not None:
            for status, reason, fields in heads:
                if status != _CONTINUE:  # the caller's Expect ended at the downstream connection
                    self._interim(status, reason, tuple(fields))

    def _begin_body(self) -> None:
        """The head is there and the body is not yet whole: hold it, or let it stream."""
        parser = self._parser
        if self._head_deadline is not None and self._pump is None:
            if self._deadline is None:
                self._timer.clear()
            else:
                self._timer.set(self._deadline)
        length = parser.length
        if parser.bodyless or (length is not None and length <= self._hold):
            return
        self._control = control = _BodyControl(self)
        self._stream = BodyStream(control.pause, control.resume, control.abandon)
        self._resolve(
            Answer(parser.status, parser.reason, tuple(parser.fields), self._stream, length=length)
        )

    def _complete(self, *, reusable: bool) -> None:
        """The response is whole."""
        parser = self._parser
        stream = self._stream
        if stream is not None:
            stream.feed_eof(tuple(parser.trailers))
            self._end(reusable=reusable, whole=True)
            return
        pieces = parser.pieces
        if not pieces:
            body = b""
        elif len(pieces) == 1:
            body = pieces[0]
            parser.pieces = []
        else:
            body = b"".join(pieces)
            parser.pieces = []
        fields = tuple(parser.fields)
        answer = Answer(parser.status, parser.reason, fields, body)
        answer.vouched = fields
        if parser.bodyless:
            answer.length = parser.length
        elif parser.trailers:
            answer.trailers = tuple(parser.trailers)
        waiter = self._waiter
        self._end(reusable=reusable, whole=True)
        if waiter is not None and not waiter.done():
            waiter.set_result(answer)

    def _resolve(self, answer: Answer) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(answer)
        else:
            # Whoever waited was cancelled in this very turn of the loop: nobody will take it.
            self.loop.call_soon(answer.release)

    def _begin_tunnel(self, rest: bytes) -> None:
        parser = self._parser
        self._state = _TUNNEL
        self._timer.clear()  # the route's timeout is for responses; a tunnel has no end to wait for
        self._tunnel = tunnel = UpstreamTunnel(self)
        if rest:
            tunnel.incoming.feed(rest)
        self._resolve(Answer(parser.status, parser.reason, tuple(parser.fields), tunnel=tunnel))

    # -- ends -----------------------------------------------------------------------------------

    def _timed_out(self) -> None:
        if self._state == _IDLE:
            self.close()
        elif self._pump is not None:
            self._fail(Outcome.TIMEOUT, "stopped taking the request body")
        elif self._state == _HEAD:
            self._fail(Outcome.TIMEOUT, "gave no response in time")
        else:
            self._fail(Outcome.TIMEOUT, "did not finish its response in time")

    def _cut(self, how: str, exc: Exception | None) -> None:
        """The upstream's end of the connection is gone while it owes a response."""
        parser = self._parser
        if exc is None and parser.eof():
            self._complete(reusable=False)
        elif parser.head_complete:
            self._fail(Outcome.RESET, f"{how} in the middle of its response")
        elif parser.started:
            self._fail(Outcome.RESET, f"{how} in the middle of its response head")
        else:
            stale = self.served > 1
            self._fail(Outcome.RESET, f"{how} without a response", stale=stale)

    def _fail(self, outcome: Outcome, detail: str, *, stale: bool = False) -> None:
        error = UpstreamError(outcome, detail, stale=stale)
        waiter = self._waiter
        self._end(reusable=False, error=error)
        if waiter is not None and not waiter.done():
            waiter.set_exception(error)

    def _end(
        self, *, reusable: bool, whole: bool = False, error: BaseException | None = None
    ) -> None:
        """The one way out of an exchange: let go of everything, then tell the owner.

        Args:
            reusable: the connection may carry another.
            whole: the response is, so the connection can be closed in good order.
            error: what becomes of a stream that is not.
        """
        was_busy = self._state != _IDLE or self._waiter is not None
        self._waiter = None
        self._interim = None
        if self._pump is not None:
            # It answered before it had the whole request. What is left of that cannot be sent
            # behind the answer's back, so the connection is of no further use.
            task = self._pump.task
            self._pump = None
            reusable = whole = False
            if task is not None:
                task.cancel()
        if self._stream is not None:
            self._release_stream(error)
        if self._tunnel is not None:
            tunnel, self._tunnel = self._tunnel, None
            tunnel.end(error)
        if reusable:
            self._state = _IDLE
        else:
            self._state = _CLOSED
            self._timer.close()
            if whole:
                self.transport.close()
            else:
                self.transport.abort()
        if was_busy:
            self.owner.finished(self, reusable=reusable)
        if not reusable:
            self.owner.lost(self)

    def _release_stream(self, error: BaseException | None) -> None:
        stream, self._stream = self._stream, None
        control, self._control = self._control, None
        if control is not None:
            control.connection = None
        if stream is not None and not stream.ended:
            stream.fail(error or ConnectionResetError("the exchange was given up"))
        # The consumer may have paused reading; the next exchange must not inherit that.
        self.transport.resume_reading()
