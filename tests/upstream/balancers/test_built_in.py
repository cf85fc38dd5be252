"""What all balancers have in common."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hms_addons.config.installed import BALANCERS, HASHING
from hms_addons.upstream.balancers.built_in import BUILT_IN
from hms_addons.upstream.load_balancer import Hashing
from tests.fakes.balancers import WEIGHTS, Users, endpoints

QUICK = sorted(BUILT_IN.keys() - {"maglev"})
"""Those that take no part of a second to be told of new members."""


def test_the_configuration_knows_their_names() -> None:
    assert BUILT_IN.keys() == BALANCERS
    assert {name for name, made in BUILT_IN.items() if issubclass(made, Hashing)} == HASHING


@given(st.sampled_from(QUICK), st.lists(WEIGHTS, min_size=1, max_size=4), st.integers())
def test_all_only_ever_pick_a_candidate(name: str, updates: list[list[int]], seed: int) -> None:
    balancer = BUILT_IN[name](random.Random(seed))
    balancer.update([])
    users = Users()
    for weights in updates:
        members = endpoints(*weights)
        balancer.update(members)
        assert set(users.picks(balancer, 30)) <= set(members)


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_the_same_seed_repeats_a_run(name: str) -> None:
    """Requests without a key, so that the hashing ones are seen to draw from the same source."""
    runs = []
    members, users = endpoints(1, 2, 3), Users(hash_on=None)
    for _ in range(2):
        balancer = BUILT_IN[name](random.Random(99))
        balancer.update(members)
        runs.append(users.picks(balancer, 100))
    assert runs[0] == runs[1]
    assert len(set(runs[0])) > 1


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_an_endpoint_of_twice_the_weight_gets_twice_the_requests(name: str) -> None:
    """Nothing in flight, equal latencies: what is left is the weights."""
    members, users = endpoints(1, 2, 2), Users()
    balancer = BUILT_IN[name](random.Random(7))
    balancer.update(members)
    chosen = users.picks(balancer, 5000)
    # A ring is as uneven as its points lie; see `test_ring_hash`.
    tolerance = 0.05 if name == "ring_hash" else 0.02
    for member, due in zip(members, (0.2, 0.4, 0.4), strict=True):
        assert abs(chosen.count(member) / 5000 - due) < tolerance
