"""What `hms explain` tells of failover, fallbacks, mirrors and hedging."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hms_addons.config.snapshot_forwarding import FallbackKind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hms_addons.config.snapshot import Cluster, Route
    from hms_addons.config.snapshot_forwarding import FallbackStep


def explain_forwarding(route: Route) -> dict[str, Any]:
    """`fallback`, `mirrors` and `hedge` of a route, as JSON-ready types."""
    hedge = route.hedge
    return {
        "fallback": [_step(step) for step in route.fallback],
        "mirrors": [
            {
                "cluster": mirror.cluster,
                "percent": mirror.percent,
                "timeout_s": mirror.route.timeout,
            }
            for mirror in route.mirrors
        ],
        "hedge": None
        if hedge is None
        else {
            "after_s": hedge.after,
            "quantile": hedge.quantile if hedge.after is None else None,
            "max": hedge.most,
        },
    }


def _step(step: FallbackStep) -> dict[str, Any]:
    found: dict[str, Any] = {
        "kind": str(step.kind),
        "flags": sorted(step.flags),
        "statuses": sorted(step.statuses),
    }
    if step.kind is FallbackKind.CLUSTER and step.route is not None:
        found["cluster"] = step.route.clusters[0].cluster
        found["timeout_s"] = step.route.timeout if step.own_timeout else None
    elif step.kind is FallbackKind.RESPONSE:
        found["status"] = step.status
    elif step.kind is FallbackKind.STALE:
        found["max_age_s"] = step.max_age
    else:
        found["plugin"] = step.plugin
    return found


def forwarding_lines(found: Mapping[str, Any]) -> list[str]:
    """The same for a person; `found` is the explained route."""
    lines = [f"fallback on {_conditions(step)}: {_words(step)}" for step in found["fallback"]]
    lines += [
        f"mirror {mirror['percent']:g}% to {mirror['cluster']}" for mirror in found["mirrors"]
    ]
    hedge = found["hedge"]
    if hedge is not None:
        after = (
            f"p{hedge['quantile'] * 100:g} of its latency"
            if hedge["after_s"] is None
            else f"{hedge['after_s']:g}s"
        )
        lines.append(f"hedge after {after}, at most {hedge['max']} further")
    return lines


def failover_line(chain: Sequence[str]) -> str:
    """Where a cluster's requests go when it has no usable endpoint."""
    return f"failover to {', then '.join(chain)}, when none of these is usable"


def failover_of(cluster: Cluster) -> list[str]:
    """The chain, as JSON-ready types."""
    return list(cluster.failover)


def _conditions(step: Mapping[str, Any]) -> str:
    statuses = step["statuses"]
    numbers = [f"{statuses[0]}-{statuses[-1]}"] if len(statuses) > 3 else map(str, statuses)  # noqa: PLR2004 - 5xx
    return ", ".join([*step["flags"], *numbers])


def _words(step: Mapping[str, Any]) -> str:
    kind = step["kind"]
    if kind == FallbackKind.CLUSTER:
        return f"the cluster {step['cluster']}"
    if kind == FallbackKind.RESPONSE:
        return f"a fixed answer, {step['status']}"
    if kind == FallbackKind.STALE:
        return f"the last good answer, up to {step['max_age_s']:g}s old"
    return f"the plugin {step['plugin']}"
