"""The running sidecar's own state as metric families, worked out when somebody scrapes.

Each function is given what `Mesh.status`, `Mesh.clusters` and `Mesh.certificates` tell. Label values are
names of the configuration, or of a closed set.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from hms_addons.config.snapshot_interception import ORIGINAL_DESTINATION

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_LOGS: Final = ("access_log", "audit_log")
"""Parts of the sidecar's status that tell of a log."""


def of_listeners(listeners: Sequence[Mapping[str, Any]]) -> Iterator[Any]:
    """Connections, and requests in flight."""
    labels = ("listener", "direction")
    for key, name, about in (
        ("connections", "hms_connections_active", "Connections from callers."),
        ("in_flight", "hms_requests_in_flight", "Requests that are being served."),
    ):
        found = {(one["name"], one["direction"]): one[key] for one in listeners}
        yield gauge(name, about, labels, found)
    yield counter(
        "hms_malformed_requests",
        "Requests that could not be read, and were refused before anything else.",
        labels,
        {(one["name"], one["direction"]): one["malformed"] for one in listeners},
    )


def of_clusters(clusters: Sequence[Mapping[str, Any]]) -> Iterator[Any]:
    """The short ones first: what each takes, the event loop waits for."""
    yield gauge(
        "hms_breaker_open",
        "1 while a cluster has endpoints, but none that may be used.",
        ("cluster",),
        {(cluster["name"],): cluster["state"] == "open" for cluster in clusters},
    )
    yield counter(
        "hms_breaker_overflows",
        "Requests and retries that a cluster's thresholds have refused.",
        ("cluster",),
        {(c["name"],): c["circuit_breakers"]["overflows_total"] for c in clusters},
    )
    yield gauge(
        "hms_endpoint_state",
        "1 for the state of an endpoint: closed, open, half-open; or unhealthy or unchecked by its checks.",
        ("cluster", "endpoint", "state"),
        {
            (cluster["name"], endpoint["address"], _state(endpoint)): 1
            for cluster in clusters
            if cluster.get("load_balancer") != ORIGINAL_DESTINATION  # wherever apps call
            for endpoint in cluster["endpoints"]
        },
    )
    pools: Counter[tuple[str, str]] = Counter()
    for cluster in clusters:
        name = cluster["name"]
        for endpoint in cluster["endpoints"]:
            for state, number in endpoint["connections"].items():
                pools[name, state] += number
    yield gauge("hms_pool_connections", "Connections to endpoints.", ("cluster", "state"), pools)


def _state(endpoint: Mapping[str, Any]) -> str:
    """Its breaker's; or what its health checks say, if it is for them that it is not used."""
    state: str = endpoint["state"]
    health: str = endpoint.get("health", "healthy")
    return health if state == "closed" and health != "healthy" else state


def of_configuration(status: Mapping[str, Any]) -> Iterator[Any]:
    """Its version, changes that were refused, and how it stands with the control plane."""
    version = status["version"]
    yield gauge(
        "hms_config_version",
        "1 for the version of the configuration in force.",
        ("version",),
        {} if version is None else {(version,): 1},
    )
    control = status.get("control")
    if control is not None:
        yield gauge(
            "hms_config_sync_state",
            "1 for how it stands with the control plane: in sync, refused (its newest), or out of touch.",
            ("state",),
            {(_sync_state(control),): 1},
        )
    about = "Changes of the configuration that were refused."
    yield counter("hms_config_rejected", about, (), {(): status["rejections_total"]})


def _sync_state(control: Mapping[str, Any]) -> str:
    """As `hms status` has it, seen from here."""
    if control["refused"]:
        return "refused"
    return "in sync" if control["in_sync"] else "out of touch"


def of_certificates(certificates: Sequence[Mapping[str, Any]]) -> Iterator[Any]:
    """When each expires."""
    yield gauge(
        "hms_certificate_expiry_timestamp_seconds",
        "When a certificate in use expires, in seconds since 1970.",
        ("secret", "spiffe_id"),
        {
            (one["secret"], one["spiffe_id"]): datetime.fromisoformat(one["not_after"]).timestamp()
            for one in certificates
        },
    )


def of_logs(status: Mapping[str, Any]) -> Iterator[Any]:
    """Lines written, and lost."""
    logs = {name: log for name in _LOGS if (log := status.get(name)) is not None}
    for key, about in (
        ("written", "Lines that are in the file."),
        ("dropped", "Lines that a slow or full disk has cost."),
    ):
        found = {(name,): log[key] for name, log in logs.items()}
        yield counter(f"hms_log_lines_{key}", about, ("log",), found)


def of_shaping(status: Mapping[str, Any], clusters: Sequence[Mapping[str, Any]]) -> Iterator[Any]:
    """What limits have let through and refused, what was injected, and what became of copies."""
    limits: Counter[tuple[str, str]] = Counter()
    for one in status.get("rate_limits", ()):
        for outcome in ("admitted", "refused"):
            limits[one["limit"], outcome] += one[outcome]
    about = "Requests that a rate limit or quota has looked at; those of one name together."
    yield counter("hms_rate_limit_requests", about, ("limit", "outcome"), limits)
    faults = status.get("faults", {})
    about = "Requests that were delayed or aborted on purpose."
    found = {(kind,): faults[kind] for kind in ("delayed", "aborted") if kind in faults}
    yield counter("hms_faults_injected", about, ("fault",), found)
    about = "Copies of requests, by the cluster that was to get them, and what became of them."
    copies = {
        (cluster["name"], outcome): number
        for cluster in clusters
        for outcome, number in (cluster.get("mirrored") or {}).items()
    }
    yield counter("hms_mirrored_requests", about, ("cluster", "outcome"), copies)


def counter(name: str, about: str, labels: Sequence[str], values: Mapping[Any, float]) -> Any:
    """A family of counters: `values` by label values."""
    from prometheus_client.core import CounterMetricFamily  # noqa: PLC0415 - see the registry

    family = CounterMetricFamily(name, about, labels=labels)
    for names, value in values.items():
        family.add_metric(names, value)
    return family


def gauge(name: str, about: str, labels: Sequence[str], values: Mapping[Any, float]) -> Any:
    """A family of gauges: `values` by label values."""
    from prometheus_client.core import GaugeMetricFamily  # noqa: PLC0415 - see the registry

    family = GaugeMetricFamily(name, about, labels=labels)
    for names, value in values.items():
        family.add_metric(names, value)
    return family
