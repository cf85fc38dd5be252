"""`least_request`: load and weights."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from hms_addons.upstream.balancers.least_request import LeastRequest
from tests.fakes.balancers import ANY, endpoints, picks


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
