"""The forward phase: one request, carried out in spite of failures.

Balance, time out, retry, break: the decisions are those of `hms_addons.upstream`; here they are put in
order. An exchange occupies a request slot (cluster's and route's breaker) to the end of its response,
and each try a connection slot (see `attempt`). While a coroutine here waits, it holds the request's
slots; a response that still streams leaves them to its connection, which gives them back at its end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from hms_addons.errors import ExchangeFailed, Flag
from hms_addons.exchange import Attempt
from hms_addons.http_message import Answer
from hms_addons.upstream import failures, retry
from hms_addons.upstream.attempt import Try
from hms_addons.upstream.circuit_breaker import BreakerFullError
from hms_addons.upstream.hedging import HEDGED_METHODS, race
from hms_addons.upstream.outcome import Outcome, UpstreamError

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from hms_addons.config.snapshot import Route
    from hms_addons.config.snapshot_forwarding import Hedge
    from hms_addons.exchange import Exchange
    from hms_addons.upstream.circuit_breaker import CircuitBreaker
    from hms_addons.upstream.cluster import Cluster
    from hms_addons.upstream.cluster_manager import ClusterManager
    from hms_addons.upstream.endpoint import Endpoint
    from hms_addons.upstream.hedging import Finish

_CLIENT_ERROR: Final = 400
_SERVER_ERROR: Final = 500
_TIMER_RESOLUTION: Final = 0.002
"""Seconds by which a timer may have run early."""


class Rival(NamedTuple):
    """A try in a race, and when it began (monotonic seconds)."""

    one: Try
    began: float


class Forwarding(Try):
    """One exchange's tries, in order."""

    __slots__ = ("_repeatable", "_retrying")

    def __init__(
        self, exchange: Exchange, manager: ClusterManager, route: Route | None = None
    ) -> None:
        super().__init__(exchange, manager, route)
        self._retrying: tuple[CircuitBreaker, ...] = ()
        self._repeatable: bool | None = None  # decided when it is first asked

    # -- the attempts ---------------------------------------------------------------------------

    async def run(self) -> Answer:
        """Forward, with retries.

        Raises:
            ExchangeFailed: see `Resilience.hms_forward`.
        """
        if not self._cluster.candidates:
            other = self._failover()
            if other is not None:
                self._turn_to(other)
        self._begin_request()
        first, adaptive = self._breaker, self._is_adaptive()
        began = self._manager.clock.monotonic() if adaptive else 0.0
        timeout = self._route.timeout
        if timeout is not None and self._exchange.body is None:
            self._deadline = self._manager.clock.monotonic() + timeout
        held = True
        try:
            answer = await self._attempts()
            if adaptive:
                self._record_latency(first, began)
            held = not self._hand_over(answer)
            return answer
        except BaseException as error:
            if self._answer is not None:
                self._answer.release()  # nobody else can: its connection and slot would be lost
            if adaptive and isinstance(error, ExchangeFailed) and error.failure.flag is Flag.UT:
                self._record_latency(first, began)
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

    def _record_latency(self, first: CircuitBreaker, began: float) -> None:
        now = self._manager.clock.monotonic()
        if first is self._breaker:  # else it was not this one's doing alone
            first.record_latency(began, now)
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

    async def _attempts(self) -> Answer:  # noqa: C901, PLR0912 - flat: a call per step costs
        retries = 0
        hedge = self._route.hedge
        if hedge is not None and not self._may_hedge():
            hedge = None
        again: Endpoint | None = None  # replay on a fresh connection to this very endpoint
        while True:
            answer: Answer | None = None
            error: UpstreamError | None = None
            try:
                if hedge is None or again is not None:
                    answer = await self._attempt(again)
                else:
                    answer = await self._hedged_attempt(hedge)
            except UpstreamError as failed:
                error = failed
                if failed.stale and again is None and self._can_replay():
                    again = self._endpoint
                    continue
            except ExchangeFailed as failed:
                # The last endpoint has gone while this waited for its turn; nothing was sent.
                if failed.failure.flag is not Flag.UH or not self._move():
                    raise
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
                    self._exchange, self._route, error, timed_out=self._is_over(error)
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
        policy, manager = self._route.retry, self._manager
        if error is not None and (
            not policy.attempts
            or self._is_over(error)
            or not retry.retries_outcome(policy, error.outcome, repeatable=self._can_replay())
        ):
            return None
        if retries >= policy.attempts:
            self._exchange.flag = Flag.URX
            return None
        cluster = self._cluster if self._cluster.candidates else self._failover()
        if cluster is None:
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
        if cluster is not self._cluster and not self._move():
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

    # -- hedging --------------------------------------------------------------------------------

    def _may_hedge(self) -> bool:
        """Reading twice changes nothing, and costs no body."""
        exchange = self._exchange
        return (
            exchange.method_bytes in HEDGED_METHODS
            and exchange.body is None
            and not exchange.content
            and self._encoded[2] is None  # an upgrade
        )

    async def _hedged_attempt(self, hedge: Hedge) -> Answer:
        """As `_attempt`, with further tries beside it if it is slow."""
        manager = self._manager
        clock = manager.clock
        began = clock.monotonic()
        latency = None if hedge.after is not None else manager.latency(self._route)
        delay = hedge.after if latency is None else latency.value(hedge.quantile)
        if delay is None:
            answer = await self._attempt(None)
            if latency is not None and answer.status < _SERVER_ERROR:
                latency.record(clock.monotonic() - began)
            return answer
        rivals: list[Rival] = [Rival(self, began)]
        held: list[CircuitBreaker] = []

        def another() -> Coroutine[Any, Any, Answer] | None:
            if len(rivals) > hedge.most or not self._can_hedge(held):
                return None
            rival = Try(self._exchange, manager, self._route, self)
            rivals.append(Rival(rival, clock.monotonic()))
            return rival._attempt(None)  # noqa: SLF001 - of its own base class

        try:
            finish = await race(self._attempt(None), another, delay, clock, manager.tasks)
        finally:
            for breaker in held:
                breaker.end_retry()
        outcome = finish.outcome
        if latency is not None and isinstance(outcome, Answer) and outcome.status < _SERVER_ERROR:
            # Of one that was cancelled it is only known that it takes longer; which is all a
            # quantile below it asks.
            latency.record(clock.monotonic() - began)
        self._take_over(rivals, finish)
        if isinstance(outcome, Answer):
            self._answer = outcome
            return outcome
        raise outcome

    def _can_hedge(self, held: list[CircuitBreaker]) -> bool:
        """Another endpoint, slots at once, and retry slots, which go to `held`."""
        if not self._cluster.has_other(self._tried):
            return False
        breaker, route_breaker = self._breaker, self._route_breaker
        if not breaker.has_connection or not breaker.try_retry():
            return False
        if route_breaker is not None:
            if not route_breaker.has_connection or not route_breaker.try_retry():
                breaker.end_retry()
                return False
            held.append(route_breaker)
        held.append(breaker)
        return True

    def _take_over(self, rivals: list[Rival], finish: Finish) -> None:
        """Go on as if this had been the try that counts; the others are written down."""
        exchange, now = self._exchange, self._manager.clock.monotonic()
        for number in finish.lost:
            lost, began = rivals[number]
            if lost._endpoint is not None:  # noqa: SLF001 - of its own base class
                address = lost._endpoint.address  # noqa: SLF001 - as above
                exchange.attempts.append(
                    Attempt(address, began, now, "cancelled", self._cluster.name)
                )
                if lost._span is not None:  # noqa: SLF001 - as above
                    lost._span.end(now, "cancelled")  # noqa: SLF001 - as above
        winner = rivals[finish.number].one
        self._answer = None
        self._endpoint = winner._endpoint  # noqa: SLF001 - as above
        self._connection = winner._connection  # noqa: SLF001 - as above
        if self._endpoint is not None:
            exchange.endpoint = self._endpoint.address
        if self._connection is not None and self._connection.handle is not None:
            exchange.use_server(self._connection.handle)

    # -- failover -------------------------------------------------------------------------------

    def _failover(self) -> Cluster | None:
        """The first cluster of the chain that has an endpoint which may be used."""
        if self._route.follows_failover:
            for name in self._cluster.spec.failover:
                cluster = self._manager.get(name)
                if cluster is not None and cluster.candidates:
                    return cluster
        return None

    def _turn_to(self, cluster: Cluster) -> None:
        """From now on try this cluster."""
        self._manager.count_failover(self._cluster.name, cluster.name)
        self._exchange.notes.setdefault("failover_from", self._cluster.name)
        self._cluster = cluster
        self._breaker = cluster.breaker
        self._exchange.cluster = cluster.spec

    def _move(self) -> bool:
        """Turn to the failover, slots and all; False if there is none, or it has no room."""
        cluster = self._failover()
        if cluster is None:
            return False
        old, new = self._breaker, cluster.breaker
        try:
            new.begin_request()
        except BreakerFullError:
            return False
        if self._retrying:
            if not new.try_retry():
                new.end_request()
                return False
            self._retrying = (new, *self._retrying[1:])
            old.end_retry()
        old.end_request()
        self._turn_to(cluster)
        return True

    def _is_over(self, error: UpstreamError) -> bool:
        """The route's timeout has passed: 504, never retried."""
        deadline = self._deadline
        return (
            error.outcome is Outcome.TIMEOUT
            and deadline is not None
            and self._manager.clock.monotonic() >= deadline - _TIMER_RESOLUTION
        )
