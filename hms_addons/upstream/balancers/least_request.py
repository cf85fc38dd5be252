"""`least_request`: where the fewest requests are in flight."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hms_addons.upstream.balancers.smooth_weighted import SmoothWeighted, equal_weights

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from hms_addons.exchange import Exchange
    from hms_addons.upstream.endpoint import Endpoint


class LeastRequest:
    """`least_request`: of two chosen at random, the one with fewer requests in flight.

    With unequal weights, all in turn with the effective weight `weight / (active + 1)` (Envoy's rule,
    active request bias 1).
    """

    def __init__(self, rng: random.Random) -> None:
        self._random = rng.random
        self._candidates: Sequence[Endpoint] = ()
        self._weighted: SmoothWeighted | None = None

    def update(self, candidates: Sequence[Endpoint]) -> None:
        """See `LoadBalancer`."""
        self._candidates = candidates
        if equal_weights(candidates):
            self._weighted = None
        else:
            if self._weighted is None:
                self._weighted = SmoothWeighted(self._effective_weight)
            self._weighted.update(candidates)

    @staticmethod
    def _effective_weight(endpoint: Endpoint) -> float:
        return endpoint.weight / (endpoint.active + 1)

    def pick(self, exchange: Exchange) -> Endpoint:  # noqa: ARG002 - the protocol's signature
        """See `LoadBalancer`."""
        if self._weighted is not None:
            return self._weighted.pick()
        candidates = self._candidates
        count = len(candidates)
        first = int(self._random() * count)
        if count == 1:
            return candidates[first]
        # The second is another one: draw from the rest, and step over the first.
        second = int(self._random() * (count - 1))
        if second >= first:
            second += 1
        a, b = candidates[first], candidates[second]
        return b if b.active < a.active else a
