"""`round_robin`: shares, and what a change of candidates does."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from hms_addons.upstream.balancers.round_robin import RoundRobin
from tests.fakes.balancers import ANY, WEIGHTS, endpoints, picks

if TYPE_CHECKING:
    from hms_addons.upstream.endpoint import Endpoint


@given(WEIGHTS, st.integers())
def test_round_robin_gives_each_exactly_its_share(weights: list[int], seed: int) -> None:
    members = endpoints(*weights)
    balancer = RoundRobin(random.Random(seed))
    balancer.update(members)
    rounds = 3
    counts = Counter(picks(balancer, rounds * sum(weights)))
    assert [counts[member] for member in members] == [rounds * weight for weight in weights]


@given(WEIGHTS)
def test_round_robin_never_bursts(weights: list[int]) -> None:
    """At any moment everybody is within one pick per member of their due."""
    members = endpoints(*weights)
    balancer = RoundRobin(random.Random(1))
    balancer.update(members)
    counts: Counter[Endpoint] = Counter()
    for n in range(1, 2 * sum(weights) + 1):
        counts[balancer.pick(ANY)] += 1
        for member, weight in zip(members, weights, strict=True):
            due = n * weight / sum(weights)
            assert abs(counts[member] - due) <= len(members)


def test_round_robin_interleaves_as_nginx_does() -> None:
    a, b, c = members = endpoints(5, 1, 1)
    balancer = RoundRobin(random.Random(1))
    balancer.update(members)
    assert picks(balancer, 7) == [a, a, b, a, c, a, a]


def test_round_robin_starts_anywhere() -> None:
    """Otherwise the first endpoint is every new sidecar's first choice."""
    members = endpoints(1, 1, 1, 1)
    first = set()
    for seed in range(40):
        balancer = RoundRobin(random.Random(seed))
        balancer.update(members)
        first.add(balancer.pick(ANY))
    assert first == set(members)


def test_weighted_round_robin_keeps_its_credit_when_a_member_leaves() -> None:
    a, b, c = endpoints(3, 2, 1)
    balancer = RoundRobin(random.Random(1))
    balancer.update([a, b, c])
    assert balancer.pick(ANY) is a
    balancer.update([a, b])
    # Without the credit `a`, which has just been served, would come first again.
    assert balancer.pick(ANY) is b


def test_equal_weights_cost_one_step() -> None:
    """O(1): the pick of an equal-weight round robin is a C iterator's `__next__`."""
    balancer = RoundRobin(random.Random(1))
    balancer.update(endpoints(*[1] * 1000))
    assert isinstance(balancer._next.__self__, itertools.cycle)  # type: ignore[attr-defined]


def test_a_weight_that_grows_takes_its_part_at_once() -> None:
    """Slow start changes `weight` and tells the balancer."""
    a, b = members = endpoints(2, 2)
    balancer = RoundRobin(random.Random(1))
    a.weight = 0.5
    balancer.update(members)
    assert Counter(picks(balancer, 50)) == {a: 10, b: 40}
    a.weight = 2.0
    balancer.update(members)
    assert Counter(picks(balancer, 50)) == {a: 25, b: 25}
