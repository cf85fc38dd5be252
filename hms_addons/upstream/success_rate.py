"""Success-rate outliers: endpoints that fail far more often than the others of their cluster.

Envoy's rule (its documentation, "Outlier detection", success rate): of the endpoints with enough requests in
the interval, those whose share of successes is below `mean - factor * standard deviation` are outliers, if
there are enough to compare. The counts are those that endpoints keep anyway, so a request pays nothing.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from hms_addons.config.snapshot_health import SuccessRate
    from hms_addons.upstream.endpoint import Endpoint


class Outlier(NamedTuple):
    """An endpoint to be ejected, and why."""

    endpoint: Endpoint
    cause: str


class SuccessRates:
    """What the endpoints' counts were when the interval began."""

    def __init__(self) -> None:
        self._began: dict[Endpoint, tuple[int, int]] = {}

    def begin(self, endpoints: Iterable[Endpoint]) -> None:
        """An interval begins, with these members."""
        self._began = {endpoint: _counts(endpoint) for endpoint in endpoints}

    def outliers(self, endpoints: Collection[Endpoint], settings: SuccessRate) -> list[Outlier]:
        """Those of `endpoints` that failed far more often in the interval than the others.

        Args:
            endpoints: those in use; who joined in the interval counts from then on.
            settings: what is enough, and what is far.

        Returns:
            The worst first.
        """
        rates: dict[Endpoint, float] = {}
        for endpoint in endpoints:
            successes, failures = _counts(endpoint)
            successes_before, failures_before = self._began.get(endpoint, (0, 0))
            succeeded, failed = successes - successes_before, failures - failures_before
            if succeeded + failed >= settings.request_volume:
                rates[endpoint] = 100 * succeeded / (succeeded + failed)
        if len(rates) < settings.minimum_hosts:
            return []
        threshold = ejection_threshold(rates.values(), settings.stdev_factor)
        return [
            Outlier(
                endpoint,
                f"{rate:.1f}% of its requests succeeded, less than the {threshold:.1f}% that "
                f"{len(rates)} endpoints set (mean - {settings.stdev_factor:g} standard deviations)",
            )
            for endpoint, rate in sorted(rates.items(), key=lambda item: item[1])
            if rate < threshold
        ]


def _counts(endpoint: Endpoint) -> tuple[int, int]:
    return endpoint.successes, endpoint.failures


def ejection_threshold(rates: Collection[float], stdev_factor: float) -> float:
    """Mean less so many (population) standard deviations."""
    mean = math.fsum(rates) / len(rates)
    variance = math.fsum((rate - mean) ** 2 for rate in rates) / len(rates)
    return mean - stdev_factor * math.sqrt(variance)
