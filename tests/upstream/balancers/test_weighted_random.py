"""`random`: shares."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from hms_addons.upstream.balancers.weighted_random import WeightedRandom
from tests.fakes.balancers import endpoints, picks


@pytest.mark.parametrize("weights", [(1, 1, 1), (1, 2, 7)])
def test_random_follows_the_weights(weights: tuple[int, ...]) -> None:
    members = endpoints(*weights)
    balancer = WeightedRandom(random.Random(11))
    balancer.update(members)
    counts = Counter(picks(balancer, 10_000))
    for member, weight in zip(members, weights, strict=True):
        due = 10_000 * weight / sum(weights)
        assert abs(counts[member] - due) < 200
