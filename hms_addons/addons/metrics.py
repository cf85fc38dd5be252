"""`metrics`: what happened, counted for Prometheus (SEMANTICS, "Metrics").

Once per request `hms_complete` finds the tally of all requests that were like it (same direction,
service, cluster, status, flag), and adds one to it: 1 µs. Everything else is worked out when somebody
scrapes `/metrics`: totals from the tallies, gauges from the running sidecar's own state.

    hms_complete ──▶ Tally ──┐
                             ├──scrape──▶ hms_requests_total, hms_request_duration_seconds, …
    mesh.clusters() … ───────┘

Label values are bounded, whatever callers, apps and third parties send: services and clusters are the
configuration's, statuses those of the registry, flags a closed set. Past `MAX_SERIES` (a
configuration whose clusters come and go, a plugin that makes up services) the tallies of clusters that
are no more are given up, then further ones are counted as `other`.
"""

from __future__ import annotations

from collections import Counter
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from hms_addons.clock import SYSTEM_CLOCK
from hms_addons.config.snapshot import Direction
from hms_addons.errors import Flag
from hms_addons.hookspecs import hookimpl
from hms_addons.request_tally import BUCKETS, RequestTally, Tally
from hms_addons.state_metrics import (
    counter,
    of_certificates,
    of_clusters,
    of_configuration,
    of_listeners,
    of_logs,
    of_shaping,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hms_addons.clock import Clock
    from hms_addons.config.snapshot import Snapshot
    from hms_addons.exchange import Attempt, Exchange
    from hms_addons.hookspecs import Mesh
    from hms_addons.request_tally import Key

MAX_SERIES: Final = 10_000
"""Tallies of their own; beyond them there are those of `other`, a few hundred."""
UNKNOWN: Final = "unknown"
"""The service and the cluster of a request that no route took, as Istio calls it."""
OTHER: Final = "other"
NO_FLAG: Final = "-"
"""The flag of a request that nothing is to be said of, as in Envoy's access log."""

NO_POLICY: Final = "-"
"""Stands for a policy's name where it was the absence of one that decided."""

_BOUNDS: Final = (*map(str, BUCKETS), "+Inf")
_MAX_OUTCOMES: Final = 32
_STATUS_DIGITS: Final = 3
_CLIENT_GONE: Final = 499
_STATUSES: Final = {
    status: str(status) for status in (*(known.value for known in HTTPStatus), _CLIENT_GONE)
}
_FLAGS: Final[dict[Flag | None, str]] = {None: NO_FLAG, **{flag: flag.value for flag in Flag}}


class _Labels(NamedTuple):
    """What the requests of one tally have in common; bounded texts."""

    direction: str
    service: str
    cluster: str
    code: str
    flag: str
    outcome: str | None
    """Of their one attempt; None if they had none or several, which are counted apart."""


class Metrics:
    """The built-in plugin `metrics`.

    Args:
        clock: how long requests took.
        max_series: see `MAX_SERIES`.
    """

    def __init__(self, *, clock: Clock = SYSTEM_CLOCK, max_series: int = MAX_SERIES) -> None:
        self._now = clock.monotonic
        self._max_series = max_series
        self._mesh: Mesh | None = None
        self._requests = RequestTally(self._find, self._take_decisions)
        self._tallies: dict[_Labels, Tally] = {}
        self._attempts: Counter[str] = Counter()
        self._retries = 0
        # From 0 on, so that the first of them is an increase like any other.
        self._decisions: Counter[tuple[str, str]] = Counter(
            {("allowed", NO_POLICY): 0, ("denied", NO_POLICY): 0}
        )
        self._made_room_for: Snapshot | None = None

    def __repr__(self) -> str:
        return f"<Metrics series={len(self._tallies)}>"

    @hookimpl
    def hms_open(self, mesh: Mesh) -> None:
        """Have `/metrics` ask here."""
        self._mesh = mesh
        mesh.add_metrics("metrics", self)

    # -- a request ------------------------------------------------------------------------------

    @hookimpl
    def hms_complete(self, exchange: Exchange) -> None:
        """Count it. Called for every request, so there is nothing here that could wait for a scrape."""
        if self._requests.count(exchange, self._now()):
            self._count_attempts(exchange.attempts)

    def _count_attempts(self, attempts: Sequence[Attempt]) -> None:
        self._retries += len(attempts) - 1
        for attempt in attempts:
            self._attempts[self._outcome(attempt.outcome)] += 1

    def _take_decisions(self) -> None:
        """Take what was counted of decisions since the last time."""
        for (allowed, policy, would_deny, audit_policy), number in self._requests.decided.items():
            key = ("allowed" if allowed else "denied", policy or NO_POLICY)
            self._decisions[self._bounded(key)] += number
            if would_deny:
                audited = ("would_deny", audit_policy or NO_POLICY)
                self._decisions[self._bounded(audited)] += number
        self._requests.decided.clear()

    def _bounded(self, key: tuple[str, str]) -> tuple[str, str]:
        """Policies are the configuration's, and may come and go with it."""
        known = key in self._decisions or len(self._decisions) < self._max_series
        return key if known else (key[0], OTHER)

    def _find(self, key: Key) -> Tally:
        """The tally of the first request of its kind, or of one whose kind has been forgotten."""
        inbound, service, cluster, status, flag, outcome = key
        labels = _Labels(
            direction=(Direction.INBOUND if inbound else Direction.OUTBOUND).value,
            service=UNKNOWN if service is None else service,
            cluster=UNKNOWN if cluster is None else cluster,
            code=_code(status),
            # A plugin may have made up a flag of its own.
            flag=_FLAGS.get(flag, OTHER),
            outcome=None if outcome is None else self._outcome(outcome),
        )
        tally = self._tallies.get(labels)
        if tally is None:
            if len(self._tallies) >= self._max_series and not self._make_room():
                labels = labels._replace(service=OTHER, cluster=OTHER)
            tally = self._tallies.setdefault(labels, Tally())
        return tally

    def _outcome(self, outcome: str) -> str:
        """An attempt's end, as a label: the class of its status, or the name of what went wrong."""
        if len(outcome) == _STATUS_DIGITS and outcome.isascii() and outcome.isdigit():
            return f"{outcome[0]}xx"
        if outcome in self._attempts or len(self._attempts) < _MAX_OUTCOMES:
            self._attempts[outcome] += 0  # takes it up
            return outcome
        return OTHER

    def _make_room(self) -> bool:
        """Give up what is counted of clusters that are no more; once per configuration.

        Returns:
            Whether there is room now.
        """
        snapshot = None if self._mesh is None else self._mesh.snapshot
        if snapshot is None or snapshot is self._made_room_for:
            return False
        self._made_room_for = snapshot
        kept = {}
        for labels, tally in self._tallies.items():
            if labels.cluster in snapshot.clusters or labels.cluster in {UNKNOWN, OTHER}:
                kept[labels] = tally
            elif labels.outcome is not None:
                self._attempts[labels.outcome] += tally.count  # which has no cluster to be gone
        self._tallies = kept
        self._requests.forget()
        return len(kept) < self._max_series

    # -- a scrape -------------------------------------------------------------------------------

    def collect(self) -> Iterator[Any]:
        """See `metrics_registry.Collector`."""
        yield from self._counted()
        mesh = self._mesh
        if mesh is None:
            return
        status = mesh.status()
        yield from of_listeners(status["listeners"])
        clusters = mesh.clusters()
        yield from of_clusters(clusters)
        yield from of_shaping(status, clusters)
        yield from of_configuration(status)
        yield from of_certificates(mesh.certificates())
        yield from of_logs(status)
        yield counter(
            "hms_plugin_errors",
            "Exceptions in plugins' hooks.",
            ("plugin", "hook"),
            {(e["plugin"], e["hook"]): e["count"] for e in status["plugin_errors"]},
        )

    def _counted(self) -> Iterator[Any]:
        from prometheus_client.core import HistogramMetricFamily  # noqa: PLC0415 - see the registry

        self._requests.count_decisions()
        self._take_decisions()
        requests: Counter[tuple[str, ...]] = Counter()
        attempts: Counter[tuple[str, ...]] = Counter({(o,): n for o, n in self._attempts.items()})
        durations: dict[tuple[str, str, str], Tally] = {}
        for labels, tally in self._tallies.items():
            count = tally.count
            requests[labels[:5]] += count
            if labels.outcome is not None:
                attempts[labels.outcome,] += count
            durations.setdefault(labels[:3], Tally()).add(tally)
        yield counter(
            "hms_requests", "Requests, however they ended.", _Labels._fields[:5], requests
        )
        histogram = HistogramMetricFamily(
            "hms_request_duration_seconds",
            "From a request's head to the end of its response.",
            labels=_Labels._fields[:3],
        )
        for names, tally in durations.items():
            histogram.add_metric(names, _cumulative(tally.buckets), tally.seconds)
        yield histogram
        about = "Tries at an endpoint, by how they ended: a class of statuses, or what went wrong."
        yield counter("hms_upstream_attempts", about, ("outcome",), attempts)
        about = "Attempts after a request's first."
        yield counter("hms_upstream_retries", about, (), {(): self._retries})
        yield counter(
            "hms_rbac_decisions",
            "What the policies said: allowed, denied; or would_deny, if those of mode: audit counted.",
            ("decision", "policy"),
            self._decisions,
        )


def _code(status: int) -> str:
    """A status as a label: as it is if it is registered, else its class; `0` for none at all."""
    known = _STATUSES.get(status)
    if known is not None:
        return known
    return f"{status // 100}xx" if 100 <= status <= 599 else "0" if not status else OTHER  # noqa: PLR2004


def _cumulative(buckets: Sequence[int]) -> list[tuple[str, float]]:
    total = 0
    found: list[tuple[str, float]] = []
    for bound, number in zip(_BOUNDS, buckets, strict=True):
        total += number
        found.append((bound, total))
    return found
