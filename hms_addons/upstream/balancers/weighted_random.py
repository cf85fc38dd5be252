"""`random`: each with a probability in proportion to its weight."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from hms_addons.upstream.balancers.smooth_weighted import equal_weights

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from hms_addons.exchange import Exchange
    from hms_addons.upstream.endpoint import Endpoint


class WeightedRandom:
    """`random`; also what a hashing balancer does with a request that has no key."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._candidates: Sequence[Endpoint] = ()
        self._cumulative: list[float] | None = None

    def update(self, candidates: Sequence[Endpoint]) -> None:
        """See `LoadBalancer`."""
        self._candidates = candidates
        self._cumulative = (
            None
            if equal_weights(candidates)
            else list(itertools.accumulate(endpoint.weight for endpoint in candidates))
        )

    def draw(self) -> Endpoint:
        """One of the candidates."""
        if self._cumulative is None:
            return self._candidates[int(self._rng.random() * len(self._candidates))]
        return self._rng.choices(self._candidates, cum_weights=self._cumulative)[0]

    def pick(self, exchange: Exchange) -> Endpoint:  # noqa: ARG002 - the protocol's signature
        """See `LoadBalancer`."""
        return self.draw()
