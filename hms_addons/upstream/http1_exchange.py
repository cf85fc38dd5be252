"""The one exchange that an upstream connection carries at a time: what it occupies, and how it ends.

However an exchange ends, the owner (a `Pool`) hears of it exactly once, synchronously, through
`finished`. That is where slots are given back, so none can leak while a coroutine is being cancelled.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

from hms_addons.upstream.outcome import Outcome, UpstreamError

if TYPE_CHECKING:
    from collections.abc import Callable

    from hms_addons.clock import Clock, Timer
    from hms_addons.http_message import Answer, BodyStream, Fields
    from hms_addons.lazy_timer import LazyTimer
    from hms_addons.upstream.circuit_breaker import CircuitBreaker
    from hms_addons.upstream.request_pump import RequestPump
    from hms_addons.upstream.upstream_tunnel import UpstreamTunnel

RETIRED: Final = -1
"""The epoch of no pool."""

# What the connection is doing.
IDLE: Final = 0
HEAD: Final = 1
BODY: Final = 2
TUNNEL: Final = 3
CLOSED: Final = 4


class ConnectionOwner[Connection](Protocol):
    """What a connection belongs to."""

    def finished(self, connection: Connection, *, reusable: bool) -> None:
        """The exchange is over; keep the connection, or close it if it cannot be used again."""

    def lost(self, connection: Connection) -> None:
        """It is closed, or closing; nothing more will come of it."""

    def gone(self, connection: Connection) -> None:
        """Its transport is gone too."""


class BodyControl:
    """A streaming response's hold on its connection; let go when the response is whole.

    Its consumer may still be draining it when the connection serves the next exchange already.
    """

    __slots__ = ("connection",)

    def __init__(self, connection: Http1Exchange) -> None:
        self.connection: Http1Exchange | None = connection

    def pause(self) -> None:
        """Read no more of it for now."""
        if self.connection is not None:
            self.connection.transport.pause_reading()

    def resume(self) -> None:
        """Go on reading."""
        if self.connection is not None:
            self.connection.transport.resume_reading()

    def abandon(self) -> None:
        """Nobody will read the rest."""
        if self.connection is not None:
            self.connection.abort()


class Http1Exchange:
    """The part of an `Http1Connection` that holds an exchange, and lets go of it.

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
        "_interim",
        "_pump",
        "_state",
        "_stream",
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
    owner: ConnectionOwner[Self]
    """A method that hands `self` to it annotates it, so that mypy takes it for the subclass."""
    _timer: LazyTimer
    """The deadline of whatever is waited for; set by `Http1Connection`, which it calls."""

    def __init__(self, owner: ConnectionOwner[Self], clock: Clock) -> None:
        # For the life of the connection.
        self.owner = owner
        self.loop = asyncio.get_running_loop()
        self.handle: Any = None
        self.epoch = 0
        self.expiry: Timer | None = None
        self.served = 0
        self.write_paused = False
        self._clock = clock
        self._state = IDLE
        # Of the current exchange.
        self.route_breaker: CircuitBreaker | None = None
        self.held_requests: tuple[CircuitBreaker, ...] = ()
        self._waiter: asyncio.Future[Answer] | None = None
        self._interim: Callable[[int, bytes, Fields], None] | None = None
        # Of its streams; None while there are none.
        self._pump: RequestPump | None = None
        self._stream: BodyStream | None = None
        self._control: BodyControl | None = None
        self._tunnel: UpstreamTunnel | None = None

    @property
    def closed(self) -> bool:
        """It is gone, or on its way."""
        return self._state == CLOSED

    # -- told by the owner, and by whoever awaits the answer -------------------------------------

    def abort(self) -> None:
        """End it at once, whatever is going on; an answer still awaited fails. Idempotent."""
        if self._state == CLOSED:
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
        if self._state == TUNNEL:
            self.abort()
        else:
            self.close()

    def close(self: Self) -> None:
        """Owner: close an idle connection in good order. Idempotent."""
        if self._state == IDLE:
            self._state = CLOSED
            self._timer.close()
            self.transport.close()
            self.owner.lost(self)

    # -- the ways out ---------------------------------------------------------------------------

    def _fail(self, outcome: Outcome, detail: str, *, stale: bool = False) -> None:
        error = UpstreamError(outcome, detail, stale=stale)
        waiter = self._waiter
        self._end(reusable=False, error=error)
        if waiter is not None and not waiter.done():
            waiter.set_exception(error)

    def _end(
        self: Self, *, reusable: bool, whole: bool = False, error: BaseException | None = None
    ) -> None:
        """The one way out of an exchange: let go of everything, then tell the owner.

        Args:
            reusable: the connection may carry another.
            whole: the response is, so the connection can be closed in good order.
            error: what becomes of a stream that is not.
        """
        was_busy = self._state != IDLE or self._waiter is not None
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
            self._state = IDLE
        else:
            self._state = CLOSED
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
