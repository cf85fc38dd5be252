"""One try of a request: which endpoint, which connection, and what it occupies meanwhile.

A try occupies a connection slot of its cluster's breaker, and of its route's. While a coroutine here
waits, the try holds them; from `send` on the connection does, and gives them back however the exchange
ends. The order of tries is in `forwarding`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from hms_addons.exchange import Attempt
from hms_addons.upstream import failures
from hms_addons.upstream.circuit_breaker import BreakerFullError, WaitTimeoutError
from hms_addons.upstream.endpoint import EndpointState
from hms_addons.upstream.outcome import STATUS_EQUIVALENT, UpstreamError
from hms_addons.upstream.request_encoder import UnsendableError, encode_request

if TYPE_CHECKING:
    from hms_addons.config.snapshot import Route
    from hms_addons.exchange import Exchange
    from hms_addons.http_message import Answer, BodyStream
    from hms_addons.trace_context import TracedTry
    from hms_addons.upstream.circuit_breaker import CircuitBreaker
    from hms_addons.upstream.cluster import Cluster
    from hms_addons.upstream.cluster_manager import ClusterManager
    from hms_addons.upstream.endpoint import Endpoint
    from hms_addons.upstream.http1_client import Http1Connection

_STATUS_TEXT: Final = {status: str(status) for status in range(100, 600)}
_SERVER_ERROR: Final = 500
_HALF_OPEN: Final = EndpointState.HALF_OPEN


class Try:
    """One try at a time of an exchange at its cluster; used again for the next.

    Args:
        exchange: routed; its request is encoded here, once for all tries.
        manager: the clusters.
        route: how it is forwarded, if not as the exchange's own route says.
        like: another try of the same exchange, that this one is made beside.

    Raises:
        ExchangeFailed: there is no such cluster, or the request cannot be written.
    """

    __slots__ = (
        "_answer",
        "_breaker",
        "_cluster",
        "_connection",
        "_deadline",
        "_encoded",
        "_endpoint",
        "_exchange",
        "_hedged",
        "_manager",
        "_probe",
        "_route",
        "_route_breaker",
        "_span",
        "_tried",
    )

    def __init__(
        self,
        exchange: Exchange,
        manager: ClusterManager,
        route: Route | None = None,
        like: Try | None = None,
    ) -> None:
        route, spec = route or exchange.route, exchange.cluster
        if route is None or spec is None:
            raise failures.no_route()
        cluster = manager.get(spec.name)
        if cluster is None:
            raise failures.removed(route, spec.name)
        self._exchange = exchange
        self._manager = manager
        self._route: Route = route
        self._cluster: Cluster = cluster
        self._breaker = cluster.breaker
        self._route_breaker: CircuitBreaker | None = (
            None if route.thresholds is None else manager.route_breaker(route)
        )
        self._deadline: float | None = None
        self._tried: list[Endpoint] = []
        self._endpoint: Endpoint | None = None
        self._connection: Http1Connection | None = None
        self._answer: Answer | None = None  # in hand, and not yet handed on
        self._probe = False
        self._hedged = like is not None
        self._span: TracedTry | None = None  # of the try that goes on, where it is traced
        self._encoded: tuple[bytes, int | None, bytes | None]  # see `encode_request`
        if like is not None:
            self._encoded = like._encoded  # noqa: SLF001 - another of its kind
            self._deadline = like._deadline  # noqa: SLF001 - as above
            self._tried = like._tried  # noqa: SLF001 - as above
            return
        try:
            self._encoded = encode_request(exchange)
        except UnsendableError as error:
            raise failures.unsendable(route, cluster, error) from error

    # -- one attempt ----------------------------------------------------------------------------

    async def _attempt(self, again: Endpoint | None) -> Answer:
        """One try.

        Args:
            again: the endpoint to use, on a fresh connection; None lets the balancer choose.

        Raises:
            UpstreamError: it was lost; recorded already.
            ExchangeFailed: nothing was tried, and trying again would be no use.
        """
        exchange, cluster = self._exchange, self._cluster
        clock = self._manager.clock
        if not cluster.candidates and again is None:
            raise failures.no_endpoint(self._route, self._cluster)
        breaker, route_breaker = self._breaker, self._route_breaker
        if route_breaker is not None or not breaker.try_connection():
            await self._wait_for_slot()
        started = clock.monotonic()
        endpoint: Endpoint | None = None
        sent = probe = False
        try:
            endpoint = self._choose(again, started)
            probe = self._probe
            endpoint.active += 1
            endpoint.requests += 1
            cluster.check_identity()
            head_deadline = self._head_deadline(started)
            connection = endpoint.pool.take() if again is None else None
            if connection is None:
                connection = await cluster.connect(endpoint, head_deadline or self._deadline)
            self._connection = connection
            if connection.handle is not None:
                exchange.use_server(connection.handle)
            connection.route_breaker = route_breaker
            sent = True  # from here on the connection holds the slots
            head, length, upgrade = self._encoded
            if exchange.trace is not None and self._span is not None:
                head = exchange.trace.stamp(head, self._span)
            waiter = connection.send(
                head,
                self._deadline,
                head_deadline,
                to_head=exchange.method_bytes == b"HEAD",
                upgrade=upgrade,
                hold=exchange.listener.limits.buffer_limit,
                interim=exchange.interim,
            )
            if exchange.body is not None:
                self._pump(connection, exchange.body, length)
            try:
                answer = self._answer = await waiter
            except asyncio.CancelledError:
                connection.give_up(waiter)
                raise
        except UpstreamError as error:
            assert endpoint is not None  # noqa: S101 - only what is tried can be lost
            self._settle(endpoint, breaker, sent=sent)
            self._record_loss(endpoint, started, error)
            raise
        except BaseException:
            # Not `finally`: there mypyc takes the endpoint for one that is there, and raises if not.
            self._settle(endpoint, breaker, sent=sent)
            if endpoint is not None and probe:
                cluster.detector.abandon_probe(endpoint)
            raise
        self._record_answer(endpoint, started, answer.status)
        return answer

    def _choose(self, again: Endpoint | None, started: float) -> Endpoint:
        endpoint = again or self._cluster.pick(self._exchange, self._tried)
        if endpoint is None:
            raise failures.no_endpoint(self._route, self._cluster)
        self._endpoint = endpoint
        self._exchange.endpoint = endpoint.address
        self._tried.append(endpoint)
        self._probe = endpoint.state is _HALF_OPEN and not endpoint.probing
        if self._probe:
            self._cluster.detector.begin_probe(endpoint)
        trace = self._exchange.trace
        if trace is not None:
            self._span = trace.begin(
                endpoint.address, self._cluster.name, started, hedged=self._hedged
            )
        return endpoint

    def _head_deadline(self, started: float) -> float | None:
        """When this attempt's response head must be there, if that is before the deadline."""
        per_try = self._route.retry.per_try_timeout
        if per_try is None or self._exchange.body is not None:
            return None
        deadline = self._deadline
        return started + per_try if deadline is None else min(started + per_try, deadline)

    def _pump(self, connection: Http1Connection, body: BodyStream, length: int | None) -> None:
        route = self._route
        connection.pump(body, length, route.timeout, route.retry.per_try_timeout)

    async def _wait_for_slot(self) -> None:
        """Wait for a connection slot of the route, then of the cluster.

        Raises:
            ExchangeFailed: too many wait already, or the wait was too long.
        """
        clock = self._manager.clock
        deadline = self._deadline
        if deadline is None and self._route.timeout is not None:
            deadline = clock.monotonic() + self._route.timeout
        held: CircuitBreaker | None = None
        try:
            for breaker in (self._route_breaker, self._breaker):
                if breaker is not None and not breaker.try_connection():
                    await breaker.wait_connection(clock, deadline)
                held = held or breaker
        except BaseException as error:
            if held is not None:
                held.end_connection()
            if isinstance(error, BreakerFullError):
                raise failures.overflow(self._route, self._cluster, error) from error
            if isinstance(error, WaitTimeoutError):
                raise failures.waited_too_long(self._route, self._cluster, error) from error
            raise

    def _settle(self, endpoint: Endpoint | None, breaker: CircuitBreaker, *, sent: bool) -> None:
        """The attempt failed: if nothing was sent, give back what it occupied.

        The breaker is given, as `self` may have turned to another cluster when a cancelled try ends.
        """
        if sent:
            return
        if endpoint is not None:
            endpoint.active -= 1
        breaker.end_connection()
        if self._route_breaker is not None:
            self._route_breaker.end_connection()

    def _record_answer(self, endpoint: Endpoint, started: float, status: int) -> None:
        now = self._manager.clock.monotonic()
        cluster = self._cluster
        self._exchange.attempts.append(
            Attempt(endpoint.address, started, now, _STATUS_TEXT[status], cluster.name)
        )
        if self._span is not None:
            self._span.end(now, _STATUS_TEXT[status])
        learn = self._cluster.attempt_ended
        if learn is not None:
            learn(endpoint, now - started, status)
        if status >= _SERVER_ERROR or endpoint.consecutive_5xx or self._probe:
            cluster.detector.record(endpoint, status, f"status {status}", probe=self._probe)
        else:
            endpoint.successes += 1

    def _record_loss(self, endpoint: Endpoint, started: float, error: UpstreamError) -> None:
        now = self._manager.clock.monotonic()
        cluster = self._cluster
        self._exchange.attempts.append(
            Attempt(endpoint.address, started, now, error.outcome.value, cluster.name)
        )
        if self._span is not None:
            self._span.end(now, error.outcome.value, error.detail)
        detector = cluster.detector
        status = STATUS_EQUIVALENT.get(error.outcome)
        if status is not None and not error.stale:
            learn = self._cluster.attempt_ended
            if learn is not None:
                learn(endpoint, now - started, status)
            detector.record(endpoint, status, error.detail, probe=self._probe)
        elif self._probe:
            detector.abandon_probe(endpoint)
