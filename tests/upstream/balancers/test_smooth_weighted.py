"""Smooth weighted round robin with weights that change from pick to pick."""

from __future__ import annotations

from collections import Counter

from hms_addons.upstream.balancers.smooth_weighted import SmoothWeighted, equal_weights
from tests.fakes.balancers import endpoints


def test_equal_weights() -> None:
    assert equal_weights([])
    assert equal_weights(endpoints(3, 3))
    assert not equal_weights(endpoints(3, 4))
    starting, other = endpoints(3, 3)
    starting.weight = 0.3
    assert not equal_weights([starting, other])


def test_weights_are_asked_for_at_every_pick() -> None:
    weights = dict(zip(endpoints(1, 1), (1.0, 3.0), strict=True))
    turns = SmoothWeighted(weights.__getitem__)
    turns.update(list(weights))
    a, b = weights
    assert Counter(turns.pick() for _ in range(8)) == {a: 2, b: 6}
    weights[a] = 3.0
    assert Counter(turns.pick() for _ in range(8)) == {a: 4, b: 4}
