"""Which endpoint takes the next request.

A balancer is told its candidates when membership or health changes (`update`), and asked once per
attempt (`pick`). So whatever can be computed beforehand is, and a pick costs next to nothing. Further
balancers come from plugins (`hms_load_balancers`): classes that follow `LoadBalancer`.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Mapping, Sequence

    from hms_addons.exchange import Exchange
    from hms_addons.upstream.endpoint import Endpoint


class LoadBalancer(Protocol):
    """Picks among the endpoints of one cluster."""

    def __init__(self, rng: random.Random) -> None:
        """`rng` is the only source of chance, so that a test can repeat a run."""

    def update(self, candidates: Sequence[Endpoint]) -> None:
        """From now on, pick among these. Called when they, their weights or their health change."""

    def pick(self, exchange: Exchange) -> Endpoint:
        """One of the candidates. Never called while there are none.

        Args:
            exchange: the request, for balancers that look at it (hashing); others ignore it.
        """


def _equal_weights(candidates: Sequence[Endpoint]) -> bool:
    return len({endpoint.spec.weight for endpoint in candidates}) <= 1


def _weight(endpoint: Endpoint) -> float:
    return endpoint.spec.weight


class _SmoothWeighted:
    """Smooth weighted round robin, as nginx does it: interleaved, never in bursts.

    In each pick every endpoint's credit grows by its weight; the richest one is taken and pays the
    sum. Weights may differ from pick to pick. O(n).
    """

    __slots__ = ("_credit", "_weight")

    def __init__(self, weight: Callable[[Endpoint], float]) -> None:
        self._weight = weight
        self._credit: dict[Endpoint, float] = {}

    def update(self, candidates: Sequence[Endpoint]) -> None:
        """Newcomers begin without credit; those who stay keep theirs."""
        before = self._credit
        self._credit = {endpoint: before.get(endpoint, 0.0) for endpoint in candidates}

    def pick(self) -> Endpoint:
        credit = self._credit
        total = 0.0
        best: Endpoint | None = None
        most = 0.0
        for endpoint, owned in credit.items():
            weight = self._weight(endpoint)
            total += weight
            credit[endpoint] = owned = owned + weight  # noqa: PLW2901 - the same value, updated
            if best is None or owned > most:
                best, most = endpoint, owned
        assert best is not None  # noqa: S101 - there are candidates
        credit[best] -= total
        return best


class RoundRobin:
    """`round_robin`: each in turn, in proportion to weight. O(1) when all weights are equal."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._smooth = _SmoothWeighted(_weight)
        self._next: Callable[[], Endpoint] = self._smooth.pick

    def update(self, candidates: Sequence[Endpoint]) -> None:
        """See `LoadBalancer`."""
        if not _equal_weights(candidates):
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


class LeastRequest:
    """`least_request`: of two chosen at random, the one with fewer requests in flight.

    With unequal weights, all in turn with the effective weight `weight / (active + 1)` (Envoy's rule,
    active request bias 1).
    """

    def __init__(self, rng: random.Random) -> None:
        self._random = rng.random
        self._candidates: Sequence[Endpoint] = ()
        self._weighted: _SmoothWeighted | None = None

    def update(self, candidates: Sequence[Endpoint]) -> None:
        """See `LoadBalancer`."""
        self._candidates = candidates
        if _equal_weights(candidates):
            self._weighted = None
        else:
            if self._weighted is None:
                self._weighted = _SmoothWeighted(self._effective_weight)
            self._weighted.update(candidates)

    @staticmethod
    def _effective_weight(endpoint: Endpoint) -> float:
        return endpoint.spec.weight / (endpoint.active + 1)

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


class Random:
    """`random`: each with a probability in proportion to its weight."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._candidates: Sequence[Endpoint] = ()
        self._cumulative: list[int] | None = None

    def update(self, candidates: Sequence[Endpoint]) -> None:
        """See `LoadBalancer`."""
        self._candidates = candidates
        self._cumulative = (
            None
            if _equal_weights(candidates)
            else list(itertools.accumulate(endpoint.spec.weight for endpoint in candidates))
        )

    def pick(self, exchange: Exchange) -> Endpoint:  # noqa: ARG002 - the protocol's signature
        """See `LoadBalancer`."""
        if self._cumulative is None:
            return self._candidates[int(self._rng.random() * len(self._candidates))]
        return self._rng.choices(self._candidates, cum_weights=self._cumulative)[0]


BUILT_IN: Final[Mapping[str, type[LoadBalancer]]] = {
    "round_robin": RoundRobin,
    "least_request": LeastRequest,
    "random": Random,
}
"""The balancers that need no plugin, by their name in a cluster's `load_balancer`."""
