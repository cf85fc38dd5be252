"""Balancers: shares, spread, and what a change of candidates does."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hms_addons.config.snapshot import EndpointSpec
from hms_addons.upstream.endpoint import Endpoint
from hms_addons.upstream.load_balancer import BUILT_IN, LeastRequest, Random, RoundRobin

if TYPE_CHECKING:
    from hms_addons.exchange import Exchange
    from hms_addons.upstream.load_balancer import LoadBalancer

ANY = cast("Exchange", None)  # none of these look at the request
WEIGHTS = st.lists(st.integers(1, 20), min_size=1, max_size=8)


def endpoints(*weights: int) -> list[Endpoint]:
    return [
        Endpoint(EndpointSpec(host=f"10.0.0.{n}", port=80, weight=weight), "c")
        for n, weight in enumerate(weights)
    ]


def picks(balancer: LoadBalancer, count: int) -> list[Endpoint]:
    return [balancer.pick(ANY) for _ in range(count)]


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


def test_least_request_prefers_the_idle_one() -> None:
    busy, free = endpoints(1, 1)
    busy.active = 1
    balancer = LeastRequest(random.Random(1))
    balancer.update([busy, free])
    assert set(picks(balancer, 50)) == {free}


@given(st.integers(2, 10), st.integers())
def test_least_request_never_picks_the_busiest(count: int, seed: int) -> None:
    """Its two choices differ, so the one endpoint that is busier than all others always loses."""
    members = endpoints(*[1] * count)
    members[seed % count].active = 5
    balancer = LeastRequest(random.Random(seed))
    balancer.update(members)
    assert members[seed % count] not in picks(balancer, 60)


def test_least_request_chooses_pairs_evenly() -> None:
    members = endpoints(1, 1, 1, 1)
    balancer = LeastRequest(random.Random(5))
    balancer.update(members)
    counts = Counter(picks(balancer, 8000))
    assert all(1800 < counts[member] < 2200 for member in members)


def test_least_request_with_one() -> None:
    (only,) = members = endpoints(1)
    balancer = LeastRequest(random.Random(1))
    balancer.update(members)
    assert picks(balancer, 3) == [only] * 3


def test_least_request_weights_fall_with_load() -> None:
    light, heavy = endpoints(1, 4)
    balancer = LeastRequest(random.Random(1))
    balancer.update([light, heavy])
    assert Counter(picks(balancer, 50)) == {light: 10, heavy: 40}
    heavy.active = 3  # 4 / (3 + 1) is 1: as good as the other
    assert Counter(picks(balancer, 50)) == {light: 25, heavy: 25}


def test_least_request_settles_when_load_is_real() -> None:
    """With requests in flight it keeps all endpoints within two of each other, mostly."""
    members = endpoints(*[1] * 5)
    balancer = LeastRequest(random.Random(3))
    balancer.update(members)
    for _ in range(500):
        balancer.pick(ANY).active += 1
    assert max(m.active for m in members) - min(m.active for m in members) <= 6


@pytest.mark.parametrize("weights", [(1, 1, 1), (1, 2, 7)])
def test_random_follows_the_weights(weights: tuple[int, ...]) -> None:
    members = endpoints(*weights)
    balancer = Random(random.Random(11))
    balancer.update(members)
    counts = Counter(picks(balancer, 10_000))
    for member, weight in zip(members, weights, strict=True):
        due = 10_000 * weight / sum(weights)
        assert abs(counts[member] - due) < 200


@given(st.sampled_from(sorted(BUILT_IN)), st.lists(WEIGHTS, min_size=1, max_size=4), st.integers())
def test_all_only_ever_pick_a_candidate(name: str, updates: list[list[int]], seed: int) -> None:
    balancer = BUILT_IN[name](random.Random(seed))
    balancer.update([])
    for weights in updates:
        members = endpoints(*weights)
        balancer.update(members)
        assert set(picks(balancer, 30)) <= set(members)


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_the_same_seed_repeats_a_run(name: str) -> None:
    runs = []
    members = endpoints(1, 2, 3)
    for _ in range(2):
        balancer = BUILT_IN[name](random.Random(99))
        balancer.update(members)
        runs.append(picks(balancer, 100))
    assert runs[0] == runs[1]


def test_equal_weights_cost_one_step() -> None:
    """O(1): the pick of an equal-weight round robin is a C iterator's `__next__`."""
    balancer = RoundRobin(random.Random(1))
    balancer.update(endpoints(*[1] * 1000))
    assert isinstance(balancer._next.__self__, itertools.cycle)  # type: ignore[attr-defined]
