"""What a caller is told when its request could not be forwarded.

Each text names route, cluster and endpoint, what happened, and what to do about it; status and flag
are those of `errors.Fault`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hms_addons.errors import ExchangeFailed, Failure, Fault
from hms_addons.upstream.outcome import FAULTS, WRONG_PEER, Outcome

if TYPE_CHECKING:
    from hms_addons.config.snapshot import Route
    from hms_addons.errors import MeshError
    from hms_addons.exchange import Exchange
    from hms_addons.upstream.circuit_breaker import BreakerFullError
    from hms_addons.upstream.cluster import Cluster
    from hms_addons.upstream.outcome import UpstreamError
    from hms_addons.upstream.request_encoder import UnsendableError

PROBE_RETRY_AFTER: Final = 1.0
"""Seconds to ask for while the only hope is a probe that is under way."""

LOCAL_RETRY_AFTER: Final = 1.0
"""The same while this sidecar is short of something; requests in flight give it back soon."""

_REMEDIES: Final = {
    Outcome.CONNECT_FAILURE: "is the service running there, and may it be reached?",
    Outcome.RESET_BEFORE_REQUEST: "try again",
    Outcome.RESET: "see the service's own log; a request that may have been executed is repeated "
    "only if its method is idempotent or it has an Idempotency-Key",
    Outcome.TIMEOUT: "the route's per_try_timeout or timeout may be too short for this service",
    Outcome.PROTOCOL_ERROR: "is it an HTTP/1.1 server, and is TLS expected on both sides?",
    Outcome.REQUEST_BODY: "send the whole body",
    Outcome.LOCAL: "this is the sidecar's own trouble, not the service's",
}


def _failed(fault: Fault, detail: str, *, retry_after: float | None = None) -> ExchangeFailed:
    return ExchangeFailed(Failure.of(fault, detail, retry_after=retry_after))


def _where(route: str, cluster: str) -> str:
    return f"route {route}, cluster {cluster}"


def no_route() -> ExchangeFailed:
    """The chain has not routed the exchange."""
    return _failed(Fault.NO_ROUTE, "no route or cluster was chosen before the forward phase")


def removed(route: Route, cluster: str) -> ExchangeFailed:
    """The exchange began with a snapshot whose cluster a newer one no longer has."""
    return _failed(
        Fault.NO_HEALTHY_UPSTREAM,
        f"{_where(route.name, cluster)}: the cluster has just been removed from the "
        "configuration; send the request again",
    )


def unsendable(route: Route, cluster: Cluster, error: UnsendableError) -> ExchangeFailed:
    """Somebody on this side made the request into one that cannot be written."""
    return _failed(Fault.PLUGIN_ERROR, f"{_where(route.name, cluster.name)}: {error}")


def overflow(route: Route, cluster: Cluster, error: BreakerFullError) -> ExchangeFailed:
    """A threshold is reached."""
    return _failed(
        Fault.OVERFLOW,
        f"{_where(route.name, cluster.name)}: {error}; send less at once, or raise the limit in "
        "circuit_breakers",
    )


def waited_too_long(route: Route, cluster: Cluster, error: MeshError) -> ExchangeFailed:
    """The route's timeout passed before there was a connection to use."""
    return _failed(Fault.TIMEOUT, f"{_where(route.name, cluster.name)}: {error}")


def lost(
    exchange: Exchange, route: Route, error: UpstreamError, *, timed_out: bool
) -> ExchangeFailed:
    """The last attempt was lost.

    Args:
        exchange: with all attempts.
        route: by which it was forwarded.
        error: how the last one ended.
        timed_out: the route's own timeout has passed.
    """
    attempts = exchange.attempts
    tries = ""
    if len(attempts) > 1:
        each = ", ".join(f"{attempt.endpoint} {attempt.outcome}" for attempt in attempts)
        tries = f" ({len(attempts)} attempts: {each})"
    cluster = exchange.cluster
    assert cluster is not None  # noqa: S101 - there was an attempt
    remedy = _REMEDIES[error.outcome]
    if error.detail.startswith(WRONG_PEER):
        remedy = "which service is at this address? `tls_context.peers` says who may be"
    if timed_out:
        remedy = f"the route's timeout is {route.timeout:g}s"
    return _failed(
        FAULTS[error.outcome],
        f"{_where(route.name, cluster.name)}: endpoint {exchange.endpoint}: {error.detail}{tries}; "
        f"{remedy}",
        retry_after=LOCAL_RETRY_AFTER if error.outcome is Outcome.LOCAL else None,
    )


def no_endpoint(route: Route, cluster: Cluster) -> ExchangeFailed:
    """The cluster has no endpoint that may be used now."""
    where = _where(route.name, cluster.name)
    others = ""
    if route.follows_failover and cluster.spec.failover:
        others = f", nor has its failover ({', '.join(cluster.spec.failover)}) a usable one"
    if not cluster.endpoints:
        return _failed(
            Fault.NO_HEALTHY_UPSTREAM,
            f"{where}: the cluster has no endpoints{others}; configure some, register an instance of the "
            "service, or see whether its dns name resolves",
        )
    causes = "; ".join(
        f"{endpoint.address} is {endpoint.trouble}" for endpoint in cluster.endpoints.values()
    )
    after, check = cluster.detector.retry_after(), cluster.spec.health_check
    if after is None and check is not None:
        after = check.interval
        hope = f"health checks go on, every {after:g}s"
    else:
        after = after or PROBE_RETRY_AFTER
        hope = f"the first is tried again in {after:.0f}s"
    return _failed(
        Fault.NO_HEALTHY_UPSTREAM,
        f"{where}: no endpoint is in use: {causes}{others}; {hope}",
        retry_after=after,
    )
