"""What the snapshot holds of how a cluster's health is found out: checks, outliers, gradient limits.

Frozen, as all of the snapshot (`config.snapshot`). Durations are seconds.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthCheck:
    """How endpoints are asked whether they are well, off the request path."""

    path: str | None = "/health"
    """What is asked for; None: connecting (TLS included) is enough."""
    method: str = "GET"
    host: str | None = None
    """Sent as `Host`; None: the cluster's service."""
    headers: tuple[tuple[str, str], ...] = ()
    """Sent with each check, beside `Host`."""
    statuses: tuple[tuple[int, int], ...] = ((200, 299),)
    """Ranges, both ends included, of the answers of a healthy endpoint."""
    interval: float = 5.0
    """From the end of one check to the begin of the next."""
    jitter: float = 0.1
    """Each interval is longer by a share of up to this, drawn anew."""
    timeout: float = 1.0
    """For a whole check: connecting, TLS, and the answer's head."""
    unhealthy: int = 3
    """Failures in a row that take an endpoint out."""
    healthy: int = 2
    """Passes in a row that take it back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SuccessRate:
    """Ejects endpoints whose share of successes is far below the others' (Envoy's numbers)."""

    minimum_hosts: int = 5
    """Endpoints with enough requests that there must be for a comparison."""
    request_volume: int = 100
    """Requests in an interval that make an endpoint's share count."""
    stdev_factor: float = 1.9
    """Standard deviations below the mean that are too many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptiveConcurrency:
    """A limit of requests in flight that follows the latency (Envoy's gradient controller)."""

    percentile: float = 90.0
    """Of a window's latencies, the one that is compared."""
    update_interval: float = 0.1
    """Length of a window; each gives a new limit."""
    min_limit: int = 3
    max_limit: int = 1000
    min_rtt_interval: float = 60.0
    """Between measurements of the ideal latency."""
    min_rtt_requests: int = 50
    """Requests that one such measurement takes."""
    min_rtt_jitter: float = 0.15
    """The interval is longer by a share of up to this."""
    min_rtt_buffer: float = 0.25
    """By this share more latency than the ideal counts as none."""
