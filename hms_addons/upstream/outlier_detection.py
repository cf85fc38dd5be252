"""Outlier detection: the circuit breaker of each endpoint (SEMANTICS, Breakers).

Every endpoint is closed (in use), open (ejected) or half-open. Five failures in a row open it, for
the base ejection time multiplied by how many times in a row that has happened. When that is over it
is half-open: one real request may try it. Success closes it; failure opens it again, for longer. While
it is closed the multiplier falls by one for each healthy interval, so old sins are forgotten.

With `success_rate`, the endpoints are also compared with each other at each interval (`success_rate`); that
never ejects the last healthy one. A passed active health check makes an ejected endpoint half-open at once.
Envoy takes it back into full use then (`successful_active_health_check_uneject_host`); *ours* is to let one
request try, as a path that health checks ask for may be well when others are not.

Results of requests that were on their way when the endpoint was ejected change nothing: only the
probe's counts.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from hms_addons.lazy_timer import LazyTimer
from hms_addons.upstream.endpoint import Endpoint, EndpointState
from hms_addons.upstream.success_rate import SuccessRates

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hms_addons.clock import Clock
    from hms_addons.config.snapshot import OutlierDetection

logger = logging.getLogger(__name__)

_GATEWAY_FAILURES: Final = frozenset({502, 503, 504})
_SERVER_ERROR: Final = 500

_CLOSED: Final = EndpointState.CLOSED
_OPEN: Final = EndpointState.OPEN
_HALF_OPEN: Final = EndpointState.HALF_OPEN


class OutlierDetector:
    """The breakers of one cluster's endpoints.

    Args:
        cluster: its name, for log lines.
        settings: when to eject; None never does.
        endpoints: the cluster's members, a live view.
        clock: time.
        changed: called when the set of usable endpoints may have changed.
    """

    __slots__ = (
        "_changed",
        "_clock",
        "_cluster",
        "_comparison",
        "_endpoints",
        "_rates",
        "_settings",
        "_timer",
    )

    def __init__(
        self,
        cluster: str,
        settings: OutlierDetection | None,
        endpoints: Mapping[tuple[str, int], Endpoint],
        clock: Clock,
        changed: Callable[[], object],
    ) -> None:
        self._cluster = cluster
        self._settings = settings
        self._endpoints = endpoints
        self._clock = clock
        self._changed = changed
        self._rates = SuccessRates()
        # Last, since they are given what is made here: mypyc then knows that all of it is set.
        self._timer = LazyTimer(clock, self._ejections_over)
        self._comparison = LazyTimer(clock, self._compare)
        self._begin_comparison()

    def __repr__(self) -> str:
        states = [endpoint.state for endpoint in self._endpoints.values()]
        counts = " ".join(f"{state.value}={states.count(state)}" for state in EndpointState)
        return f"<OutlierDetector {self._cluster} {counts}>"

    def replace_settings(self, settings: OutlierDetection | None) -> None:
        """Take new settings; switching detection off closes every breaker."""
        self._settings = settings
        self._begin_comparison()
        if settings is None:
            for endpoint in self._endpoints.values():
                if endpoint.state is not _CLOSED and not endpoint.by_hand:
                    self._close(endpoint, "outlier detection was switched off")

    def close(self) -> None:
        """Let go of the timers."""
        self._timer.close()
        self._comparison.close()

    # -- results --------------------------------------------------------------------------------

    def begin_probe(self, endpoint: Endpoint) -> None:
        """A request is about to try this half-open endpoint; nobody else may until it is settled."""
        endpoint.probing = True
        self._changed()

    def abandon_probe(self, endpoint: Endpoint) -> None:
        """The probing request ended without saying anything about the endpoint; the next may try."""
        if endpoint.probing:
            endpoint.probing = False
            self._changed()

    def record(self, endpoint: Endpoint, status: int, cause: str, *, probe: bool) -> None:
        """An attempt has ended.

        Args:
            endpoint: where it went.
            status: of the response, or what a lost attempt counts as (`STATUS_EQUIVALENT`).
            cause: in words, for a failure.
            probe: this attempt is the one that tried a half-open endpoint.
        """
        if status < _SERVER_ERROR:
            endpoint.consecutive_5xx = 0
            endpoint.consecutive_gateway_failure = 0
            endpoint.successes += 1
            if probe and endpoint.state is _HALF_OPEN:
                self._close(endpoint, "its probe succeeded")
            return
        endpoint.failures += 1
        endpoint.consecutive_5xx += 1
        if status in _GATEWAY_FAILURES:
            endpoint.consecutive_gateway_failure += 1
        else:
            endpoint.consecutive_gateway_failure = 0
        settings = self._settings
        if settings is None:
            return
        if endpoint.state is _HALF_OPEN:
            if probe:
                self._open(endpoint, f"its probe failed: {cause}", settings)
        elif endpoint.state is _CLOSED:
            self._consider(endpoint, cause, settings)

    def _consider(self, endpoint: Endpoint, cause: str, settings: OutlierDetection) -> None:
        gateway, any_5xx = endpoint.consecutive_gateway_failure, endpoint.consecutive_5xx
        if 0 < settings.consecutive_gateway_failure <= gateway:
            reason = f"{gateway} gateway failures in a row, the last: {cause}"
        elif 0 < settings.consecutive_5xx <= any_5xx:
            reason = f"{any_5xx} server errors in a row, the last: {cause}"
        else:
            return
        if self._may_eject(settings):
            self._open(endpoint, reason, settings)

    def _may_eject(self, settings: OutlierDetection) -> bool:
        """Whether one more would still be within `max_ejection_percent` of all."""
        ejected = sum(member.state is not _CLOSED for member in self._endpoints.values())
        return (ejected + 1) * 100 <= settings.max_ejection_percent * len(self._endpoints)

    # -- success rates ----------------------------------------------------------------------------

    def _begin_comparison(self) -> None:
        settings = self._settings
        if settings is None or settings.success_rate is None:
            self._comparison.close()
            return
        self._rates.begin(self._endpoints.values())
        self._comparison.set(self._clock.monotonic() + settings.interval)

    def _compare(self) -> None:
        """An interval is over: eject who has done far worse than the others."""
        settings = self._settings
        if settings is None or settings.success_rate is None:
            return
        in_use = [
            endpoint
            for endpoint in self._endpoints.values()
            if endpoint.state is _CLOSED and endpoint.healthy
        ]
        left = len(in_use)
        for endpoint, cause in self._rates.outliers(in_use, settings.success_rate):
            if left <= 1 or not self._may_eject(settings):
                break
            self._open(endpoint, cause, settings)
            left -= 1
        self._begin_comparison()

    # -- health checks ----------------------------------------------------------------------------

    def health_check_passed(self, endpoint: Endpoint) -> None:
        """An active check of a healthy endpoint has passed: if it is ejected, a request may try it."""
        settings = self._settings
        if endpoint.by_hand:
            return
        if settings is not None and settings.health_check_unejects and endpoint.state is _OPEN:
            self._let_try(endpoint, "its health check passes")
            self._changed()

    # -- by hand ----------------------------------------------------------------------------------

    def open_by_hand(self, endpoint: Endpoint, seconds: float) -> None:
        """Eject an endpoint because a person says so, however well it is; then it is in use again."""
        endpoint.by_hand = True
        endpoint.ejected_until = self._clock.monotonic() + seconds
        self._become(endpoint, _OPEN, f"opened by hand for {seconds:g}s; hms.mend closes it")
        logger.warning(
            "cluster %s: endpoint %s is opened by hand for %gs",
            self._cluster,
            endpoint.address,
            seconds,
        )
        self._schedule()
        self._changed()

    def mend(self, endpoint: Endpoint) -> bool:
        """Close what was opened by hand; false if it was not."""
        if not endpoint.by_hand:
            return False
        self._close(endpoint, "it was mended by hand")
        return True

    # -- changes of state -----------------------------------------------------------------------

    def _open(self, endpoint: Endpoint, cause: str, settings: OutlierDetection) -> None:
        now = self._clock.monotonic()
        if endpoint.state is _CLOSED and settings.interval > 0:
            forgiven = int((now - endpoint.changed_at) / settings.interval)
            endpoint.ejections = max(0, endpoint.ejections - forgiven)
        endpoint.ejections += 1
        duration = min(
            settings.base_ejection_time * endpoint.ejections,
            # A base above the maximum is meant (Envoy: max_ejection_time is at least the base).
            max(settings.max_ejection_time, settings.base_ejection_time),
        )
        endpoint.ejected_until = now + duration
        self._become(endpoint, _OPEN, cause)
        logger.warning(
            "cluster %s: endpoint %s is ejected for %gs: %s",
            self._cluster,
            endpoint.address,
            duration,
            cause,
        )
        self._schedule()
        self._changed()

    def _close(self, endpoint: Endpoint, reason: str) -> None:
        self._become(endpoint, _CLOSED, None)
        endpoint.by_hand = False
        endpoint.consecutive_5xx = 0
        endpoint.consecutive_gateway_failure = 0
        logger.info(
            "cluster %s: endpoint %s is back in use: %s", self._cluster, endpoint.address, reason
        )
        self._changed()

    def _become(self, endpoint: Endpoint, state: EndpointState, cause: str | None) -> None:
        endpoint.state = state
        endpoint.cause = cause
        endpoint.probing = False
        endpoint.changed_at = self._clock.monotonic()

    def _ejections_over(self) -> None:
        now = self._clock.monotonic()
        for endpoint in self._endpoints.values():
            # The timer may run a moment early; see LazyTimer.
            if endpoint.state is not _OPEN or endpoint.ejected_until > now + 0.001:
                continue
            if endpoint.by_hand:
                self._close(endpoint, "the time for which it was opened by hand is up")
            else:
                self._let_try(endpoint, "its time is up")
        self._schedule()
        self._changed()

    def _let_try(self, endpoint: Endpoint, why: str) -> None:
        self._become(endpoint, _HALF_OPEN, endpoint.cause)
        logger.info(
            "cluster %s: endpoint %s is half-open, as %s: the next request may try it",
            self._cluster,
            endpoint.address,
            why,
        )

    def _schedule(self) -> None:
        until = [e.ejected_until for e in self._endpoints.values() if e.state is _OPEN]
        if until:
            self._timer.set(min(until))

    def retry_after(self) -> float | None:
        """Seconds until the first ejected endpoint may be tried; None if none is ejected.

        0 while one is being tried: it may be back at any moment.
        """
        members = self._endpoints.values()
        if any(endpoint.state is _HALF_OPEN for endpoint in members):
            return 0.0
        until = [endpoint.ejected_until for endpoint in members if endpoint.state is _OPEN]
        return max(0.0, min(until) - self._clock.monotonic()) if until else None
