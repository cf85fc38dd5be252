"""The connections of one endpoint: those in use, and the idle ones, last in first out.

Last in, first out keeps few connections warm under light load and lets the others reach their idle
timeout. Taking an idle connection is synchronous: there is no await between the decision and its
effect, so nothing can come between. A pool has one epoch per TLS identity (and TLS configuration):
connections of an older one finish their request and close.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from hms_addons.clock import Clock
    from hms_addons.upstream.circuit_breaker import CircuitBreaker
    from hms_addons.upstream.endpoint import Endpoint
    from hms_addons.upstream.http1_client import Http1Connection


class Pool:
    """Connections to one endpoint; the `ConnectionOwner` of each.

    Args:
        endpoint: whose they are.
        breaker: the cluster's; each connection in use holds one of its connection slots.
        clock: time.
        idle_timeout: seconds an idle connection is kept.
        on_gone: told of each connection whose transport is gone.

    Attributes:
        connections: all that are open.
        idle: those that can be taken, most recently used last.
        connecting: being made.
        epoch: see the module's text.
    """

    __slots__ = (
        "_breaker",
        "_clock",
        "_endpoint",
        "_on_gone",
        "connecting",
        "connections",
        "epoch",
        "idle",
        "idle_timeout",
    )

    def __init__(
        self,
        endpoint: Endpoint,
        breaker: CircuitBreaker,
        clock: Clock,
        idle_timeout: float,
        on_gone: Callable[[Http1Connection], object],
    ) -> None:
        self._endpoint = endpoint
        self._breaker = breaker
        self._clock = clock
        self._on_gone = on_gone
        self.idle_timeout = idle_timeout
        self.connections: set[Http1Connection] = set()
        self.idle: list[Http1Connection] = []
        self.connecting = 0
        self.epoch = 0

    def __repr__(self) -> str:
        return (
            f"<Pool {self._endpoint.address} active={self.active} idle={len(self.idle)} "
            f"connecting={self.connecting} epoch={self.epoch}>"
        )

    @property
    def active(self) -> int:
        """Connections that carry an exchange."""
        return len(self.connections) - len(self.idle)

    def take(self) -> Http1Connection | None:
        """The idle connection that was used last, or None. The caller must `send` on it at once."""
        idle = self.idle
        while idle:
            connection = idle.pop()
            if not connection.transport.is_closing():
                return connection
            connection.close()
        return None

    def add(self, connection: Http1Connection, epoch: int) -> None:
        """A connection that has just been made, about to be used.

        Args:
            connection: the new one.
            epoch: when it was begun; the pool's may be another by now.
        """
        connection.epoch = epoch
        self.connections.add(connection)

    def finished(self, connection: Http1Connection, *, reusable: bool) -> None:
        """See `ConnectionOwner`: give back the exchange's slots, keep the connection if possible."""
        endpoint = self._endpoint
        endpoint.active -= 1
        if connection.held_requests:
            for breaker in connection.held_requests:
                breaker.end_request()
            connection.held_requests = ()
        if reusable:
            if connection.epoch == self.epoch and not endpoint.drained:
                connection.park(self._clock.monotonic() + self.idle_timeout)
                self.idle.append(connection)
            else:
                connection.close()
        route_breaker = connection.route_breaker
        if route_breaker is not None:
            connection.route_breaker = None
            route_breaker.end_connection()
        self._breaker.end_connection()

    def lost(self, connection: Http1Connection) -> None:
        """See `ConnectionOwner`."""
        self.connections.discard(connection)
        if connection in self.idle:
            self.idle.remove(connection)

    def gone(self, connection: Http1Connection) -> None:
        """See `ConnectionOwner`."""
        self._on_gone(connection)

    def rotate(self) -> None:
        """Begin a new epoch: idle connections close, those in use do so when they have finished."""
        self.epoch += 1
        self.close_idle()

    def close_idle(self) -> None:
        """Close the idle connections."""
        for connection in tuple(self.idle):
            connection.close()

    def close_oldest_idle(self) -> None:
        """Close the idle connection that was used longest ago, to make room; there must be one."""
        self.idle[0].close()

    def describe(self) -> dict[str, Any]:
        """Counts as JSON-ready types, for `/clusters`."""
        return {"active": self.active, "idle": len(self.idle), "connecting": self.connecting}
