"""`ewma`: where an answer is likely to come soonest; Finagle's and Linkerd's "peak EWMA"."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from hms_addons.clock import SYSTEM_CLOCK
from hms_addons.upstream.balancers.smooth_weighted import equal_weights
from hms_addons.upstream.balancers.weighted_random import WeightedRandom

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from hms_addons.clock import Clock
    from hms_addons.exchange import Exchange
    from hms_addons.upstream.endpoint import Endpoint

DECAY: Final = 10.0
"""Seconds in which what was measured loses all but 1/e of its say (Linkerd's default)."""
FIRST_GUESS: Final = 0.03
"""Seconds that an endpoint is taken to need before anything was measured (Linkerd's default)."""
FAILED: Final = 1.0
"""Seconds that a gateway failure counts as, at least. *Ours*: one that refuses at once would
otherwise look like the quickest of all, and draw the traffic."""
_GATEWAY_FAILURES: Final = frozenset({502, 503, 504})


class _Estimate:
    """The latency of one endpoint, in seconds, and when it was last told (monotonic seconds)."""

    __slots__ = ("at", "seconds")

    def __init__(self, seconds: float, at: float) -> None:
        self.seconds = seconds
        self.at = at


class PeakEwma:
    """`ewma`: of two chosen at random, by weight, the one with the lower load.

    Load is the latency's exponentially weighted moving average, times the requests in flight with
    this one. A latency above the average replaces it at once (hence "peak"), one below pulls it down
    over `DECAY`; and it sinks by itself while nothing is measured, so that who was slow is tried again.

    With unequal weights the two are drawn in proportion to them, and those in flight are counted by
    weight, so that equal latencies lead to shares as configured.
    """

    def __init__(self, rng: random.Random) -> None:
        self._random = rng.random
        self._clock = SYSTEM_CLOCK
        self._candidates: Sequence[Endpoint] = ()
        self._weighted: WeightedRandom | None = None
        self._by_weight = WeightedRandom(rng)
        self._mean_weight = 1.0
        self._estimates: dict[Endpoint, _Estimate] = {}

    def use_clock(self, clock: Clock) -> None:
        """See `Timed`."""
        self._clock = clock

    def update(self, candidates: Sequence[Endpoint]) -> None:
        """See `LoadBalancer`. What is known of an endpoint is kept while it is ejected."""
        self._candidates = candidates
        self._weighted = None
        if not equal_weights(candidates):
            self._by_weight.update(candidates)
            self._weighted = self._by_weight
            self._mean_weight = sum([e.weight for e in candidates]) / len(candidates)
        known = self._estimates.items()
        self._estimates = {endpoint: it for endpoint, it in known if not endpoint.drained}

    def pick(self, exchange: Exchange) -> Endpoint:  # noqa: ARG002 - the protocol's signature
        """See `LoadBalancer`."""
        now = self._clock.monotonic()
        weighted = self._weighted
        if weighted is not None:
            a, b = weighted.draw(), weighted.draw()
            if a is b:
                return a
            mean = self._mean_weight
            in_flight_a, in_flight_b = a.active * mean / a.weight, b.active * mean / b.weight
        else:
            candidates = self._candidates
            count = len(candidates)
            first = int(self._random() * count)
            if count == 1:
                return candidates[first]
            second = int(self._random() * (count - 1))
            if second >= first:
                second += 1
            a, b = candidates[first], candidates[second]
            in_flight_a, in_flight_b = float(a.active), float(b.active)
        load_a = self.latency(a, now) * (in_flight_a + 1)
        load_b = self.latency(b, now) * (in_flight_b + 1)
        return b if load_b < load_a else a

    def latency(self, endpoint: Endpoint, now: float) -> float:
        """What it is taken to need, in seconds, at `now` (monotonic seconds)."""
        known = self._estimates.get(endpoint)
        if known is None:
            return FIRST_GUESS
        return known.seconds * math.exp((known.at - now) / DECAY)

    def attempt_ended(self, endpoint: Endpoint, seconds: float, status: int) -> None:
        """See `Learning`."""
        if status in _GATEWAY_FAILURES and seconds < FAILED:
            seconds = FAILED
        now = self._clock.monotonic()
        known = self._estimates.get(endpoint)
        if known is None:
            known = self._estimates[endpoint] = _Estimate(FIRST_GUESS, now)
        kept = math.exp((known.at - now) / DECAY)
        sunk = known.seconds * kept
        known.seconds = seconds if seconds > sunk else sunk + seconds * (1 - kept)
        known.at = now
