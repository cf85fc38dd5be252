"""`round_robin`: each in turn."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from hms_addons.upstream.balancers.smooth_weighted import SmoothWeighted, equal_weights

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from hms_addons.exchange import Exchange
    from hms_addons.upstream.endpoint import Endpoint


def _weight(endpoint: Endpoint) -> float:
    return endpoint.weight


class RoundRobin:
    """`round_robin`: each in turn, in proportion to weight. O(1) when all weights are equal."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._smooth = SmoothWeighted(_weight)
        self._next: Callable[[], Endpoint] = self._smooth.pick

    def update(self, candidates: Sequence[Endpoint]) -> None:
        """See `LoadBalancer`."""
        if not equal_weights(candidates):
            self._smooth.update(candidates)
            self._next = self._smooth.pick
            return
        # A random start: otherwise every sidecar begins with the first endpoint, and each change of
        # health sends the next request there.
        start = self._rng.randrange(len(candidates)) if candidates else 0
        self._next = itertools.cycle([*candidates[start:], *candidates[:start]]).__next__

    def pick(self, exchange: Exchange) -> Endpoint:  # noqa: ARG002 - the protocol's signature
        """See `LoadBalancer`."""
        return self._next()
