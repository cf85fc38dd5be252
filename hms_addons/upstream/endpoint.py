"""Endpoint: one address of a cluster, and what is known about how it is doing."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hms_addons.config.snapshot import EndpointSpec
    from hms_addons.upstream.endpoint_health import EndpointHealth
    from hms_addons.upstream.pool import Pool


class EndpointState(StrEnum):
    """The state of an endpoint's circuit breaker. A tripped breaker is *open*."""

    CLOSED = "closed"
    """In use."""
    OPEN = "open"
    """Ejected: not called at all until its time is up."""
    HALF_OPEN = "half-open"
    """Its time is up: one real request may try it."""


class Endpoint:
    """One address of a cluster; compared by identity.

    Attributes:
        spec: as configured or resolved; replaced when only weight, zone or priority change.
        weight: what balancers go by: the spec's, less while it starts slowly.
        cluster: the cluster's name.
        address: `host:port`; its name in logs and metrics.
        pool: its connections.
        active: requests in flight.
        requests, successes, failures: counted since it was added; failures are 5xx and lost attempts,
            and what says nothing about the endpoint (a client that left) is neither.
        healthy: false takes it out: its health check says so, or has yet to say anything.
        health: what its checks say; None if it is not checked.
        state, cause: its breaker, and in words why it is not closed.
        by_hand: a person has opened it; nothing but time or a person closes it again.
        consecutive_5xx, consecutive_gateway_failure: since the last success.
        ejections: times ejected in a row; shrinks again while it is healthy.
        changed_at: monotonic seconds of the last change of state.
        ejected_until: monotonic seconds; meaningful while open.
        probing: half-open, and the one request that may try it is under way.
        drained: no longer a member; finishes what is in flight.
    """

    __slots__ = (
        "active",
        "address",
        "by_hand",
        "cause",
        "changed_at",
        "cluster",
        "consecutive_5xx",
        "consecutive_gateway_failure",
        "drained",
        "ejected_until",
        "ejections",
        "failures",
        "health",
        "healthy",
        "pool",
        "probing",
        "requests",
        "spec",
        "state",
        "successes",
        "weight",
    )

    pool: Pool

    def __init__(self, spec: EndpointSpec, cluster: str, now: float = 0.0) -> None:
        self.spec = spec
        self.weight = float(spec.weight)
        self.cluster = cluster
        self.address = spec.address
        self.active = 0
        self.requests = 0
        self.successes = 0
        self.failures = 0
        self.healthy = True
        self.health: EndpointHealth | None = None
        self.state = EndpointState.CLOSED
        self.cause: str | None = None
        self.by_hand = False
        self.consecutive_5xx = 0
        self.consecutive_gateway_failure = 0
        self.ejections = 0
        self.changed_at = now
        self.ejected_until = 0.0
        self.probing = False
        self.drained = False

    def __repr__(self) -> str:
        parts = [self.cluster, self.address, self.state.value, f"active={self.active}"]
        if self.probing:
            parts.append("probing")
        if self.cause is not None:
            parts.append(f"({self.cause})")
        if not self.healthy:
            parts.append("unhealthy")
        if self.drained:
            parts.append("drained")
        return f"<Endpoint {' '.join(parts)}>"

    @property
    def trouble(self) -> str:
        """In words, what its breaker and its health checks have against it."""
        told = self.state.value + (f" ({self.cause})" if self.cause else "")
        if self.healthy or self.health is None:
            return told
        unhealthy = f"{self.health.state.value} ({self.health.cause})"
        return unhealthy if self.state is EndpointState.CLOSED else f"{told} and {unhealthy}"

    def describe(self, now: float) -> dict[str, Any]:
        """Its state as JSON-ready types, for `/clusters`; `now` is monotonic seconds."""
        description: dict[str, Any] = {
            "address": self.address,
            "weight": self.spec.weight,
            "effective_weight": round(self.weight, 3),
            "slow_start": self.weight < self.spec.weight,
            "zone": self.spec.zone,
            "priority": self.spec.priority,
            "state": self.state.value,
            "cause": self.cause,
            "for_seconds": round(now - self.changed_at, 3),
            "retry_in_seconds": None,
            "ejections_in_a_row": self.ejections,
            "active_requests": self.active,
            "requests_total": self.requests,
            "successes_total": self.successes,
            "failures_total": self.failures,
            "connections": self.pool.describe(),
        }
        if self.state is EndpointState.OPEN:
            description["retry_in_seconds"] = round(max(0.0, self.ejected_until - now), 3)
        if self.by_hand:
            description["by_hand"] = True
        if self.health is not None:
            description.update(self.health.describe())
        return description
