"""What the control plane tells Prometheus of itself.

Label values are bounded: an operation of the API or `other`, a status, a token's kind; never a path,
a name or a text that came from outside.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

if TYPE_CHECKING:
    from collections.abc import Callable

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class ControlMetrics:
    """The metrics of one control plane, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "hms_control_requests",
            "Requests answered, by operation and status.",
            ("operation", "code"),
            registry=self.registry,
        )
        self.seconds = Histogram(
            "hms_control_request_duration_seconds",
            "Time to answer a request; of a long poll from its end of waiting.",
            ("operation",),
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.svids = Counter(
            "hms_control_svids_signed",
            "SVIDs signed, by what was shown for them.",
            ("credential",),
            registry=self.registry,
        )
        self.pushes_refused = Counter(
            "hms_control_config_rejected",
            "Configurations that were pushed and refused.",
            registry=self.registry,
        )
        self.watchers = Gauge(
            "hms_control_watchers", "Long polls that wait for a snapshot.", registry=self.registry
        )

    def __repr__(self) -> str:
        return "<ControlMetrics>"

    def observe(self, name: str, about: str, read: Callable[[], float]) -> None:
        """A gauge that is read when somebody asks."""
        Gauge(name, about, registry=self.registry).set_function(read)

    def text(self) -> bytes:
        """All of them in Prometheus' text format."""
        return generate_latest(self.registry)
