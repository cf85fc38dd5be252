"""The forward phase: one request, carried out in spite of failures.

Balance, time out, retry, break: the decisions are those of `hms_addons.upstream`; here they are put in
order. An exchange occupies a request slot (cluster's and route's breaker) to the end of its response,
and each try a connection slot (see `attempt`). While a coroutine here waits, it holds the request's
slots; a response that still streams leaves them to its connection, which gives them back at its end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hms_addons.errors import ExchangeFailed, Flag
from hms_addons.upstream import failures, retry
from hms_addons.upstream.attempt import Try
from hms_addons.upstream.circuit_breaker import BreakerFullError
from hms_addons.upstream.outcome import Outcome, UpstreamError

if TYPE_CHECKING:
    from hms_addons.exchange import Exchange
    from hms_addons.http_message import Answer
    from hms_addons.upstream.circuit_breaker import CircuitBreaker
    from hms_addons.upstream.cluster_manager import ClusterManager
    from hms_addons.upstream.endpoint import Endpoint

_CLIENT_ERROR: Final = 400
_TIMER_RESOLUTION: Final = 0.002
"""Seconds by which a timer may have run early."""


class Forwarding(Try):
    """One exchange's tries, in order."""

    __slots__ = ("_repeatable", "_retrying")

    def __init__(self, exchange: Exchange, manager: ClusterManager) -> None:
        super().__init__(exchange, manager)
        self._retrying: tuple[CircuitBreaker, ...] = ()
        self._repeatable: bool | None = None  # decided when it is first asked

    # -- the attempts ---------------------------------------------------------------------------

    async def run(self) -> Answer:
        """Forward, with retries.

        Raises:
            ExchangeFailed: see `Resilience.hms_forward`.
        """
        self._begin_request()
        adaptive = self._is_adaptive()
        began = self._manager.clock.monotonic() if adaptive else 0.0
        timeout = self._route.timeout
        if timeout is not None and self._exchange.body is None:
            self._deadline = self._manager.clock.monotonic() + timeout
        held = True
        try:
            answer = await self._attempts()
            if adaptive:
                self._record_latency(began)
            held = not self._hand_over(answer)
            return answer
        except BaseException as error:
            if self._answer is not None:
                self._answer.release()  # nobody else can: its connection and slot would be lost
            if adaptive and isinstance(error, ExchangeFailed) and error.failure.flag is Flag.UT:
                self._record_latency(began)
            raise
        finally:
            for breaker in self._retrying:
                breaker.end_retry()
            if held:
                self._breaker.end_request()
                if self._route_breaker is not None:
                    self._route_breaker.end_request()

    def _begin_request(self) -> None:
        breaker, route_breaker = self._breaker, self._route_breaker
        try:
            breaker.begin_request()
            if route_breaker is not None:
                try:
                    route_breaker.begin_request()
                except BreakerFullError:
                    breaker.end_request()
                    raise
        except BreakerFullError as error:
            raise failures.overflow(self._route, self._cluster, error) from error

    def _is_adaptive(self) -> bool:
        """Whether anybody wants to know how long this request takes."""
        route_breaker = self._route_breaker
        return self._breaker.adaptive is not None or (
            route_breaker is not None and route_breaker.adaptive is not None
        )

    def _record_latency(self, began: float) -> None:
        now = self._manager.clock.monotonic()
        self._breaker.record_latency(began, now)
        if self._route_breaker is not None:
            self._route_breaker.record_latency(began, now)

    def _hand_over(self, answer: Answer) -> bool:
        """Let the connection hold the request's slots if the response still streams."""
        connection = self._connection
        body = answer.body
        if isinstance(body, bytes):
            if answer.tunnel is None or connection is None or connection.closed:
                return False
        elif body.ended or connection is None:
            return False
        connection.held_requests = (
            (self._breaker,)
            if self._route_breaker is None
            else (self._breaker, self._route_breaker)
        )
        return True

    async def _attempts(self) -> Answer:
        retries = 0
        again: Endpoint | None = None  # replay on a fresh connection to this very endpoint
        while True:
            answer: Answer | None = None
            error: UpstreamError | None = None
            try:
                answer = await self._attempt(again)
            except UpstreamError as failed:
                error = failed
                if failed.stale and again is None and self._can_replay():
                    again = self._endpoint
                    continue
            again = None
            if answer is not None and not self._is_retriable(answer.status):
                return answer
            wait = self._retry_in(retries, answer, error)
            if wait is None:
                if answer is not None:
                    return answer
                assert error is not None  # noqa: S101 - one of the two is there
                raise failures.lost(
                    self._exchange, error, timed_out=self._is_over(error)
                ) from error
            retries += 1
            if answer is not None:
                self._answer = None
                answer.release()
            if wait > 0:
                await self._manager.clock.sleep(wait)

    # -- decisions ------------------------------------------------------------------------------

    def _is_repeatable(self) -> bool:
        repeatable = self._repeatable
        if repeatable is None:
            exchange = self._exchange
            repeatable = self._repeatable = retry.is_repeatable(
                exchange.method_bytes, exchange.head, self._route.retry
            )
        return repeatable

    def _can_replay(self) -> bool:
        """A request that may have been executed could be sent again: allowed, and still there."""
        return self._exchange.body is None and self._is_repeatable()

    def _is_retriable(self, status: int) -> bool:
        policy = self._route.retry
        if not policy.attempts or (status < _CLIENT_ERROR and not policy.status_codes):
            return False
        return retry.retries_status(policy, status, repeatable=self._can_replay())

    def _retry_in(
        self, retries: int, answer: Answer | None, error: UpstreamError | None
    ) -> float | None:
        """Seconds after which to try again; None if this was the last attempt."""
        policy, cluster, manager = self._route.retry, self._cluster, self._manager
        if error is not None and (
            not policy.attempts
            or self._is_over(error)
            or not retry.retries_outcome(policy, error.outcome, repeatable=self._can_replay())
        ):
            return None
        if retries >= policy.attempts:
            self._exchange.flag = Flag.URX
            return None
        if not cluster.candidates:
            return None
        wait = retry.backoff(policy, retries + 1, manager.rng)
        if answer is not None and not cluster.has_other(self._tried):
            # It speaks for the endpoint that said it; another need not be waited for.
            asked = retry.retry_after(answer.fields, manager.clock.wall())
            if asked is not None:
                wait = max(wait, asked)
        deadline = self._deadline
        if deadline is not None and manager.clock.monotonic() + wait >= deadline:
            return None
        return wait if self._begin_retry() else None

    def _begin_retry(self) -> bool:
        """Occupy retry slots, once for all retries of this exchange."""
        if self._retrying:
            return True
        breaker, route_breaker = self._breaker, self._route_breaker
        if not breaker.try_retry():
            return False
        if route_breaker is None:
            self._retrying = (breaker,)
        elif route_breaker.try_retry():
            self._retrying = (breaker, route_breaker)
        else:
            breaker.end_retry()
            return False
        return True

    def _is_over(self, error: UpstreamError) -> bool:
        """The route's timeout has passed: 504, never retried."""
        deadline = self._deadline
        return (
            error.outcome is Outcome.TIMEOUT
            and deadline is not None
            and self._manager.clock.monotonic() >= deadline - _TIMER_RESOLUTION
        )
