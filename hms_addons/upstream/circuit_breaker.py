"""Circuit breaker thresholds: how much may go to a cluster, or come from a route, at once.

Past `max_requests` a request is refused at once. Past `max_connections` it waits, in order, for
another to finish; past `max_pending_requests` waiting it is refused. Retries have a budget, so that a
cluster in trouble is not given several times its usual load. With `adaptive`, the limit of requests follows the
latency (`adaptive_concurrency`), below `max_requests`.

Differs from Envoy in one point: what `max_connections` counts is connections in use. Idle ones give
way to new ones (`Cluster` closes them when the total would pass the limit), so a pool that holds idle
connections to one endpoint never keeps requests from another.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from hms_addons.errors import MeshError
from hms_addons.upstream.adaptive_concurrency import GradientController

if TYPE_CHECKING:
    import random

    from hms_addons.clock import Clock
    from hms_addons.config.snapshot import Thresholds

RETRY_BUDGET: Final = 0.2
"""Share of the active requests that may be retries (Envoy's default)."""


_THRESHOLDS: Final = ("max_pending_requests", "max_requests", "adaptive", "max_retries")
"""What can refuse: `max_connections` never does by itself, it lets wait."""


class BreakerFullError(MeshError):
    """A threshold is reached; the message says which, of what, and its limit."""


class WaitTimeoutError(MeshError):
    """No connection slot came free in time."""


class CircuitBreaker:
    """Counts against one set of thresholds. Every `try_…` that says True needs its `end_…`.

    Args:
        name: for messages, such as `cluster auth-svc` or `route verify-id`.
        thresholds: the limits; `replace_thresholds` changes them.
        rng: chance, for the adaptive limit's jitter.

    Attributes:
        requests, retries, connections: in use now.
        request_limit: requests that may be in flight now: `max_requests`, or the adaptive limit.
        adaptive: what moves that limit, if anything does; told by `record_latency`.
        refused: by threshold, how often something was.
    """

    __slots__ = (
        "_pending",
        "_rng",
        "adaptive",
        "connections",
        "name",
        "refused",
        "request_limit",
        "requests",
        "retries",
        "thresholds",
    )

    def __init__(self, name: str, thresholds: Thresholds, rng: random.Random) -> None:
        self.name = name
        self.thresholds = thresholds
        self._rng = rng
        self.request_limit = thresholds.max_requests
        self.adaptive: GradientController | None = None
        self.refused: dict[str, int] = dict.fromkeys(_THRESHOLDS, 0)
        self.requests = 0
        self.retries = 0
        self.connections = 0
        self._pending: deque[asyncio.Future[None]] = deque()
        self._set_adaptive()

    def __repr__(self) -> str:
        limits = self.thresholds
        return (
            f"<CircuitBreaker {self.name} requests={self.requests}/{self.request_limit} "
            f"connections={self.connections}/{limits.max_connections} "
            f"pending={self.pending}/{limits.max_pending_requests} "
            f"retries={self.retries}/{self.max_retries}>"
        )

    @property
    def pending(self) -> int:
        """Requests that wait for a connection slot."""
        return len(self._pending)

    @property
    def overflows(self) -> int:
        """How often something was refused, whatever threshold it was."""
        return sum(self.refused.values())

    @property
    def has_connection(self) -> bool:
        """A connection slot is free, and nobody waits for it."""
        return self.connections < self.thresholds.max_connections and not self._pending

    @property
    def has_room(self) -> bool:
        """One more request would have its slots at once."""
        return self.requests < self.request_limit and self.has_connection

    @property
    def idle(self) -> bool:
        """Nothing is in use and nobody waits."""
        return not (self.requests or self.retries or self.connections or self._pending)

    @property
    def max_retries(self) -> int:
        """Retries that may be in flight now: the threshold, or 20% of the active requests if more.

        A threshold of 0 switches retries off.
        """
        least = self.thresholds.max_retries
        return max(least, int(self.requests * RETRY_BUDGET)) if least else 0

    # -- requests -------------------------------------------------------------------------------

    def begin_request(self) -> None:
        """Occupy a request slot.

        Raises:
            BreakerFullError: `max_requests` are active, or what the adaptive limit is now.
        """
        if self.requests >= self.request_limit:
            if self.request_limit < self.thresholds.max_requests:
                raise self._overflow("adaptive", self.request_limit)
            raise self._overflow("max_requests", self.request_limit)
        self.requests += 1

    def end_request(self) -> None:
        """Give a request slot back."""
        self.requests -= 1

    def record_latency(self, began: float, now: float) -> None:
        """A request has its answer, or has waited for it in vain; only where there is `adaptive`.

        Args:
            began, now: monotonic seconds of its `begin_request` and of its end.
        """
        adaptive = self.adaptive
        if adaptive is not None:
            adaptive.record(began, now)
            self.request_limit = min(self.thresholds.max_requests, adaptive.limit)

    def _set_adaptive(self) -> None:
        settings = self.thresholds.adaptive
        if settings is None:
            self.adaptive = None
            self.request_limit = self.thresholds.max_requests
            return
        if self.adaptive is None:
            self.adaptive = GradientController(settings, self._rng)
        else:
            self.adaptive.replace_settings(settings)
        self.request_limit = min(self.thresholds.max_requests, self.adaptive.limit)

    # -- retries --------------------------------------------------------------------------------

    def try_retry(self) -> bool:
        """Occupy a retry slot, if the budget has one."""
        if self.retries >= self.max_retries:
            self.refused["max_retries"] += 1
            return False
        self.retries += 1
        return True

    def end_retry(self) -> None:
        """Give a retry slot back."""
        self.retries -= 1

    # -- connections ----------------------------------------------------------------------------

    def try_connection(self) -> bool:
        """Occupy a connection slot, if one is free and nobody has waited longer."""
        if self.connections < self.thresholds.max_connections and not self._pending:
            self.connections += 1
            return True
        return False

    async def wait_connection(self, clock: Clock, deadline: float | None) -> None:
        """Wait for a connection slot; first come, first served.

        Args:
            clock: for the deadline.
            deadline: monotonic seconds; None waits for ever.

        Raises:
            BreakerFullError: `max_pending_requests` wait already.
            WaitTimeoutError: the deadline passed.
        """
        limit = self.thresholds.max_pending_requests
        if len(self._pending) >= limit:
            raise self._overflow("max_pending_requests", limit)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pending.append(turn)
        timer = None
        if deadline is not None:
            timer = clock.call_later(max(0.0, deadline - clock.monotonic()), self._expire, turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.end_connection()  # the slot came in the same moment as the cancellation
            else:
                self._forget(turn)
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def end_connection(self) -> None:
        """Give a connection slot back: to whoever has waited longest, if there is room for it."""
        if self.connections <= self.thresholds.max_connections:
            pending = self._pending
            while pending:
                turn = pending.popleft()
                if not turn.done():
                    turn.set_result(None)
                    return
        self.connections -= 1

    def replace_thresholds(self, thresholds: Thresholds) -> None:
        """Take new limits; if there is more room now, those who wait have it at once."""
        self.thresholds = thresholds
        self._set_adaptive()
        while self._pending and self.connections < thresholds.max_connections:
            turn = self._pending.popleft()
            if not turn.done():
                self.connections += 1
                turn.set_result(None)

    def _expire(self, turn: asyncio.Future[None]) -> None:
        if not turn.done():
            self._forget(turn)
            turn.set_exception(
                WaitTimeoutError(
                    f"{self.name}: no connection came free in time "
                    f"(max_connections {self.thresholds.max_connections} in use)"
                )
            )

    def _forget(self, turn: asyncio.Future[None]) -> None:
        if turn in self._pending:
            self._pending.remove(turn)

    def _overflow(self, threshold: str, limit: int) -> BreakerFullError:
        self.refused[threshold] += 1
        if threshold == "adaptive":
            return BreakerFullError(
                f"{self.name}: its adaptive limit, which is {limit} now, is reached"
            )
        return BreakerFullError(f"{self.name}: {threshold} {limit} is reached")

    def describe(self) -> dict[str, Any]:
        """How full it is, as JSON-ready types, for `/clusters`."""
        limits = self.thresholds
        description: dict[str, Any] = {
            "connections": {"in_use": self.connections, "max": limits.max_connections},
            "pending_requests": {"in_use": self.pending, "max": limits.max_pending_requests},
            "requests": {"in_use": self.requests, "max": self.request_limit},
            "retries": {"in_use": self.retries, "max": self.max_retries},
            # What a full connection threshold refuses has waited in vain: max_pending_requests.
            "overflows": dict(self.refused),
            "overflows_total": self.overflows,
        }
        if self.adaptive is not None:
            description["adaptive"] = self.adaptive.describe()
        return description
