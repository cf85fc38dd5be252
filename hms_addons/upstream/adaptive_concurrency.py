"""Adaptive concurrency: how many requests a cluster takes well, found out by its latency.

Envoy's gradient controller (its documentation, "Adaptive concurrency"), told of each request's latency and
of nothing else, so that it needs neither task nor timer:

- In a **measurement** no more than the minimum is let through until so many requests have told their
  latency; the percentile of those is the ideal, *minRTT*. The first request begins one, and another begins
  when the last is older than its interval, or when five windows in a row ended at the minimum.
- In between, each **window** gives a percentile, *sampleRTT*, and a new limit:
  `gradient = minRTT * (1 + buffer) / sampleRTT`, kept within 0.5 and 2, and
  `limit = gradient * limit + sqrt(gradient * limit)`, kept within its bounds. The square root is room for a
  burst, and what lets the limit grow.

Windows end with the first request that ends after their time; one without requests changes nothing.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import random

    from hms_addons.config.snapshot_health import AdaptiveConcurrency

_MOST_SAMPLES: Final = 4096
"""Latencies kept of a window; of more, a fair sample."""
_GRADIENT_LEAST: Final = 0.5
_GRADIENT_MOST: Final = 2.0
_DISTRUST: Final = 5
"""Windows in a row at the minimum after which the ideal is measured anew: it may be wrong."""


class GradientController:
    """The limit of one breaker.

    Args:
        settings: bounds and paces.
        rng: jitter, and which latencies of a very busy window are kept.

    Attributes:
        limit: requests that may be in flight now.
        measuring: the ideal latency is being measured.
    """

    __slots__ = (
        "_at_minimum",
        "_count",
        "_epoch",
        "_held_limit",
        "_min_rtt",
        "_next_measurement",
        "_rng",
        "_sample_rtt",
        "_samples",
        "_settings",
        "_window_end",
        "limit",
        "measuring",
    )

    def __init__(self, settings: AdaptiveConcurrency, rng: random.Random) -> None:
        self._settings = settings
        self._rng = rng
        self._samples: list[float] = []
        self._count = 0
        self._min_rtt = 0.0
        self._sample_rtt = 0.0
        self._window_end = 0.0
        self._next_measurement = 0.0
        self._at_minimum = 0
        # The first measurement begins with the first request, whenever that is.
        self._epoch = -math.inf
        self._held_limit = settings.min_limit
        self.limit = settings.min_limit
        self.measuring = True

    def __repr__(self) -> str:
        doing = "measuring" if self.measuring else f"minRTT {self._min_rtt * 1000:.1f}ms"
        return f"<GradientController limit={self.limit} {doing}>"

    def replace_settings(self, settings: AdaptiveConcurrency) -> None:
        """Take other bounds and paces; what was learnt stays."""
        self._settings = settings
        self._held_limit = self._bounded(self._held_limit)
        self.limit = settings.min_limit if self.measuring else self._bounded(self.limit)

    def record(self, began: float, now: float) -> None:
        """A request that began at `began` has ended (monotonic seconds)."""
        if began < self._epoch:
            return  # before the last measurement, under another limit: it says nothing about now
        if self.measuring:
            self._add(now - began)
            if self._count >= self._settings.min_rtt_requests:
                self._end_measurement(now)
            return
        self._add(now - began)
        if now >= self._window_end:
            self._end_window(now)
        if now >= self._next_measurement:
            self._begin_measurement(now)

    def _add(self, latency: float) -> None:
        self._count += 1
        if len(self._samples) < _MOST_SAMPLES:
            self._samples.append(latency)
            return
        # Reservoir sampling (Vitter's algorithm R): each of the window has the same chance to stay.
        place = int(self._rng.random() * self._count)
        if place < _MOST_SAMPLES:
            self._samples[place] = latency

    def _take_percentile(self) -> float:
        """The percentile of the window's latencies (nearest rank); the next window is empty."""
        samples = sorted(self._samples)
        self._samples = []
        self._count = 0
        rank = math.ceil(len(samples) * self._settings.percentile / 100)
        return samples[max(rank, 1) - 1]

    def _begin_measurement(self, now: float) -> None:
        self.measuring = True
        self._held_limit = self.limit
        self.limit = self._settings.min_limit
        self._samples = []
        self._count = 0
        self._epoch = now

    def _end_measurement(self, now: float) -> None:
        settings = self._settings
        self._min_rtt = self._take_percentile()
        self.measuring = False
        self.limit = self._held_limit
        self._at_minimum = 0
        jitter = 1 + settings.min_rtt_jitter * self._rng.random()
        self._next_measurement = now + settings.min_rtt_interval * jitter
        self._window_end = now + settings.update_interval

    def _end_window(self, now: float) -> None:
        settings = self._settings
        self._sample_rtt = self._take_percentile()
        self._window_end = now + settings.update_interval
        before = self.limit
        allowed = self._min_rtt * (1 + settings.min_rtt_buffer)
        # No latency at all (a clock too coarse to see it) is the best there is.
        gradient = allowed / self._sample_rtt if self._sample_rtt > 0 else _GRADIENT_MOST
        fitting = before * max(_GRADIENT_LEAST, min(_GRADIENT_MOST, gradient))
        self.limit = self._bounded(int(fitting + math.sqrt(fitting)))
        if before == self.limit == settings.min_limit:
            self._at_minimum += 1
            if self._at_minimum >= _DISTRUST:
                self._next_measurement = now
        else:
            self._at_minimum = 0

    def _bounded(self, limit: int) -> int:
        return max(self._settings.min_limit, min(self._settings.max_limit, limit))

    def describe(self) -> dict[str, Any]:
        """What it is doing, as JSON-ready types, for `/clusters`."""
        return {
            "limit": self.limit,
            "measuring": self.measuring,
            "min_rtt_seconds": round(self._min_rtt, 6) or None,
            "sample_rtt_seconds": round(self._sample_rtt, 6) or None,
        }
