"""A fallback's cluster: one more try of a request, at a cluster that it was not routed to."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from hms_addons.errors import ExchangeFailed
from hms_addons.upstream import retry
from hms_addons.upstream.forwarding import Forwarding
from hms_addons.upstream.outcome import NOT_DELIVERED

if TYPE_CHECKING:
    from hms_addons.config.snapshot import RetryPolicy
    from hms_addons.config.snapshot_forwarding import FallbackStep
    from hms_addons.exchange import Exchange
    from hms_addons.http_message import Answer
    from hms_addons.upstream.cluster_manager import ClusterManager

_NOT_DELIVERED: Final = frozenset(outcome.value for outcome in NOT_DELIVERED)
_LEAST: Final = 0.002
"""Seconds that must be left of the route's timeout for a try to make sense."""


def may_repeat(exchange: Exchange, policy: RetryPolicy) -> bool:
    """True unless the request may have been executed and must not be twice, as with retries."""
    if all(attempt.outcome in _NOT_DELIVERED for attempt in exchange.attempts):
        return True
    return exchange.body is None and retry.is_repeatable(
        exchange.method_bytes, exchange.head, policy
    )


async def try_elsewhere(
    exchange: Exchange, manager: ClusterManager, step: FallbackStep, began: float
) -> Answer | None:
    """The answer of the step's cluster, if it has a good one.

    Args:
        exchange: whose own cluster has failed it.
        manager: the clusters.
        step: of kind CLUSTER.
        began: monotonic seconds when it was forwarded first; the route's timeout runs from there.
    """
    own, route, before = exchange.route, step.route, exchange.cluster
    if own is None or route is None or before is None or not may_repeat(exchange, own.retry):
        return None
    cluster = exchange.snapshot.clusters[route.clusters[0].cluster]
    if cluster.name == before.name:
        return None  # it was asked already, as one of the route's or by failover
    if not step.own_timeout and route.timeout is not None and exchange.body is None:
        left = began + route.timeout - manager.clock.monotonic()
        if left < _LEAST:
            return None
        route = replace(route, timeout=left)
    exchange.cluster = cluster
    try:
        answer = await Forwarding(exchange, manager, route).run()
    except ExchangeFailed:
        exchange.cluster = before
        return None
    if answer.status in step.statuses:
        answer.release()
        exchange.cluster = before
        return None
    return answer
