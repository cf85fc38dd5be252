"""Smooth weighted round robin: what several balancers take turns by when weights differ."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hms_addons.upstream.endpoint import Endpoint


def equal_weights(candidates: Sequence[Endpoint]) -> bool:
    """Whether all of them, if any, have the same weight."""
    return len({endpoint.weight for endpoint in candidates}) <= 1


class SmoothWeighted:
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
        """The next in turn."""
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
