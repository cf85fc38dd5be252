"""A running quantile of a route's latencies: bounded, cheap, and slow to forget but not to learn.

Latencies fall into buckets whose bounds grow by a tenth each, from 0.1 ms to about two minutes, so any
quantile is known within 10%. When many have been counted, all counts are halved: what is older weighs
less.
"""

from __future__ import annotations

import math
from typing import Final

WARM_UP: Final = 100
"""Samples before which no quantile is told."""
_FIRST: Final = 0.0001
_GROWTH: Final = 1.1
_LOG_GROWTH: Final = math.log(_GROWTH)
_BUCKETS: Final = 148
_MOST: Final = 2000
"""Samples after which all counts are halved."""
_FRESH: Final = 16
"""Samples for which a quantile that has been worked out is told again."""


class LatencyQuantile:
    """Latencies of one route; seconds in, seconds out."""

    __slots__ = ("_age", "_counts", "_known", "_total")

    def __init__(self) -> None:
        self._counts = [0] * _BUCKETS
        self._total = 0
        self._known: dict[float, float] = {}
        self._age = 0

    def __repr__(self) -> str:
        median = self.value(0.5)
        return f"<LatencyQuantile samples={self._total} median={median and round(median, 4)}>"

    def record(self, seconds: float) -> None:
        """One more latency."""
        index = 0
        if seconds > _FIRST:
            index = min(_BUCKETS - 1, 1 + int(math.log(seconds / _FIRST) / _LOG_GROWTH))
        self._counts[index] += 1
        self._total += 1
        self._age += 1
        if self._total >= _MOST:
            self._counts = [count // 2 for count in self._counts]
            self._total = sum(self._counts)

    def value(self, quantile: float) -> float | None:
        """The latency that this share of all does not exceed; None during the warm-up.

        Args:
            quantile: between 0 and 1.
        """
        if self._total < WARM_UP:
            return None
        if self._age >= _FRESH:
            self._known.clear()
            self._age = 0
        found = self._known.get(quantile)
        if found is None:
            found = self._known[quantile] = self._search(quantile)
        return found

    def _search(self, quantile: float) -> float:
        wanted = quantile * self._total
        passed = 0
        index = 0
        for index, count in enumerate(self._counts):  # noqa: B007 - the last one, if none is enough
            passed += count
            if passed >= wanted:
                break
        return _FIRST * math.exp(index * _LOG_GROWTH)
