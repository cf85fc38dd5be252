"""One upstream HTTP/1.1 connection: an `asyncio.Protocol` around a `ResponseParser`.

It carries one exchange at a time: `send` writes a request and gives a future of the `Answer`;
`pump` sends a streaming body beside it, so that an early response is not missed. Responses of known,
small length are held whole and cost one wake-up; all others stream with backpressure.

How an exchange ends, and who hears of it, is in `http1_exchange`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Self

from hms_addons.http_message import Answer, BodyStream
from hms_addons.lazy_timer import LazyTimer
from hms_addons.upstream.http1_exchange import (
    BODY,
    CLOSED,
    HEAD,
    IDLE,
    TUNNEL,
    BodyControl,
    Http1Exchange,
)
from hms_addons.upstream.outcome import Outcome, UpstreamError
from hms_addons.upstream.request_pump import RequestPump
from hms_addons.upstream.response_parser import ResponseParser, ViolationError
from hms_addons.upstream.upstream_tunnel import UpstreamTunnel

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from hms_addons.clock import Clock
    from hms_addons.http_message import Fields
    from hms_addons.tasks import TaskSet
    from hms_addons.upstream.http1_exchange import ConnectionOwner

HELD_LIMIT: Final = 1024 * 1024
"""Default for the longest response body, in bytes, that is held whole."""

_CONTINUE: Final = 100

_NAMES: Final = ("idle", "awaiting", "receiving", "tunnel", "closed")


class Http1Connection(Http1Exchange):
    """A connection to one endpoint; its attributes are those of `Http1Exchange`."""

    __slots__ = ("_deadline", "_head_deadline", "_hold", "_parser", "_tasks", "_timeouts")

    def __init__(self, owner: ConnectionOwner[Self], clock: Clock, tasks: TaskSet) -> None:
        super().__init__(owner, clock)
        self._tasks = tasks
        self._parser = ResponseParser()
        # Of the current exchange.
        self._deadline: float | None = None
        self._head_deadline: float | None = None
        self._hold = HELD_LIMIT
        self._timeouts: tuple[float | None, float | None] = (None, None)
        # Last, since it is given what is made here: mypyc then knows that all of it is set.
        self._timer = LazyTimer(clock, self._timed_out)

    def __repr__(self) -> str:
        return f"<Http1Connection {_NAMES[self._state]} served={self.served}>"

    # -- the exchange ---------------------------------------------------------------------------

    def send(
        self,
        data: bytes,
        deadline: float | None = None,
        head_deadline: float | None = None,
        *,
        to_head: bool = False,
        upgrade: bytes | None = None,
        hold: int = HELD_LIMIT,
        interim: Callable[[int, bytes, Fields], None] | None = None,
    ) -> asyncio.Future[Answer]:
        """Write a request; never waits. The connection must be idle.

        Args:
            data: the head, and the body where that is held.
            deadline: monotonic seconds by which the response must be whole.
            head_deadline: the same for its head, if that is sooner.
            to_head: the method is HEAD.
            upgrade: the protocols that the request offers to upgrade to, if it does.
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
        if self._state != IDLE or self.transport.is_closing():
            self._refuse(waiter)
            return waiter
        self.served += 1
        self._state = HEAD
        self._parser.begin(to_head=to_head, upgrade=upgrade)
        first = head_deadline or deadline
        if first is None:
            self._timer.clear()
        else:
            self._timer.set(first)
        self.transport.write(data)
        return waiter

    def _refuse(self: Self, waiter: asyncio.Future[Answer]) -> None:
        detail = "the connection was closed before it was used"
        if self._state == CLOSED:
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
        if self._state == CLOSED:
            return
        self._timeouts = (timeout, head_timeout)
        self._pump = pump = RequestPump(self, body, length, timeout)
        pump.task = self._tasks.start(pump.run(), "request body")

    # -- told by the pump -----------------------------------------------------------------------

    def request_sent(self) -> None:
        """The streaming body has been written; the response's time begins."""
        self._pump = None
        if self._state not in {HEAD, BODY}:
            return
        now = self._clock.monotonic()
        timeout, head_timeout = self._timeouts
        self._deadline = None if timeout is None else now + timeout
        first = self._deadline
        if self._state == HEAD and head_timeout is not None:
            self._head_deadline = now + head_timeout
            first = self._head_deadline if first is None else min(first, self._head_deadline)
        if first is not None:
            self._timer.set(first)

    def request_failed(self, detail: str) -> None:
        """The streaming body cannot be completed, so neither can the request."""
        self._pump = None
        if self._state != CLOSED:
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
        if state == TUNNEL:
            self._tunnel.incoming.feed(data)  # type: ignore[union-attr] # a tunnel has one
            return
        if state in (IDLE, CLOSED):
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
        if state == HEAD and parser.head_complete:
            if parser.rest is not None:
                self._begin_tunnel(parser.rest)
                return
            self._state = BODY
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
        if state == TUNNEL:
            self._tunnel.incoming.feed_eof()  # type: ignore[union-attr] # a tunnel has one
            return self.transport.can_write_eof()  # the other half goes on, but not over TLS
        if state == IDLE:
            self.close()
        elif state != CLOSED:
            self._cut("closed the connection", None)
        return False

    def connection_lost(self: Self, exc: Exception | None) -> None:
        """See `asyncio.BaseProtocol`."""
        if self._state in (IDLE, TUNNEL):
            self._end(reusable=False, error=exc)
        elif self._state != CLOSED:
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
        self._control = control = BodyControl(self)
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
        self._state = TUNNEL
        self._timer.clear()  # the route's timeout is for responses; a tunnel has no end to wait for
        self._tunnel = tunnel = UpstreamTunnel(self, parser.protocol)
        if rest:
            tunnel.incoming.feed(rest)
        self._resolve(Answer(parser.status, parser.reason, tuple(parser.fields), tunnel=tunnel))

    # -- ends -----------------------------------------------------------------------------------

    def _timed_out(self) -> None:
        if self._state == IDLE:
            self.close()
        elif self._pump is not None:
            self._fail(Outcome.TIMEOUT, "stopped taking the request body")
        elif self._state == HEAD:
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
