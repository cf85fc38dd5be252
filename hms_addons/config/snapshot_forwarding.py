"""What a route does besides forwarding once: fallbacks, mirrors, hedging. A part of the snapshot.

Frozen like the rest of it; a route that has none of these holds None or an empty tuple. Durations are
seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hms_addons.config.snapshot import Route
    from hms_addons.http_message import Fields


class FallbackKind(StrEnum):
    """Where a fallback's answer comes from."""

    CLUSTER = "cluster"
    RESPONSE = "response"
    STALE = "stale"
    PLUGIN = "plugin"


@dataclass(frozen=True, slots=True, kw_only=True)
class FallbackStep:
    """One way to an answer when there is no good one; a route has several, in order."""

    kind: FallbackKind
    flags: frozenset[str]
    """Of local failures that it stands in for."""
    statuses: frozenset[int]
    """Of upstream answers that it stands in for, when retries are over."""
    route: Route | None = None
    """Of a cluster: where to, and with what timeout; without retries."""
    own_timeout: bool = False
    """Of a cluster: `route.timeout` is its own; else it has what is left of the route's."""
    status: int = 200
    fields: Fields = ()
    body: bytes = b""
    max_age: float = 0.0
    """Of stale answers."""
    plugin: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirror:
    """A copy of some requests, whose answers are dropped."""

    cluster: str
    percent: float
    route: Route
    """For the copy: no retries, no failover."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hedge:
    """A second try beside the first, when that is slow."""

    after: float | None
    """None: the quantile of the route's latencies."""
    quantile: float = 0.95
    most: int = 1
    """Further tries at once."""
