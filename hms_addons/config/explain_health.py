"""What `hms explain` says of a cluster's or a route's limits, ejections and health checks."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hms_addons.config.snapshot import Cluster, Thresholds


def thresholds_of(thresholds: Thresholds | None) -> dict[str, Any] | None:
    """Thresholds as JSON-ready types."""
    if thresholds is None:
        return None
    return {
        "max_connections": thresholds.max_connections,
        "max_pending_requests": thresholds.max_pending_requests,
        "max_requests": thresholds.max_requests,
        "max_retries": thresholds.max_retries,
        "adaptive": None if thresholds.adaptive is None else asdict(thresholds.adaptive),
    }


def health_of(cluster: Cluster) -> dict[str, Any]:
    """How a cluster's endpoints are watched, as JSON-ready types."""
    outliers, check = cluster.outlier_detection, cluster.health_check
    return {
        "outlier_detection": outliers is not None,
        "success_rate": outliers is not None and outliers.success_rate is not None,
        "health_check": None
        if check is None
        else {
            "request": None if check.path is None else f"{check.method} {check.path}",
            "statuses": [list(pair) for pair in check.statuses],
            "interval_s": check.interval,
            "timeout_s": check.timeout,
            "unhealthy": check.unhealthy,
            "healthy": check.healthy,
        },
    }


def health_lines(cluster: Mapping[str, Any]) -> list[str]:
    """The same for people; nothing where nothing is configured."""
    parts = []
    check = cluster["health_check"]
    if check is not None:
        what = check["request"] or "a connection"
        parts.append(f"checked with {what} every {check['interval_s']:g}s")
    if cluster["success_rate"]:
        parts.append("success rates compared")
    adaptive = cluster["thresholds"]["adaptive"]
    if adaptive is not None:
        parts.append(
            f"{adaptive['min_limit']} to {adaptive['max_limit']} requests at once, by latency"
        )
    return [f"          {', '.join(parts)}"] if parts else []
