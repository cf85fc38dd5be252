"""`ring_hash`: spread, weights, and that only the keys of a member that goes or comes move."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hms_addons.upstream.balancers.ring_hash import MAX_SIZE, MIN_SIZE, RingHash, counts, points
from tests.fakes.balancers import Users, endpoints, moved, shares


def ring(members: list, seed: int = 1) -> RingHash:  # type: ignore[type-arg]
    made = RingHash(random.Random(seed))
    made.set_members(members)
    made.update(members)
    return made


def test_points_are_the_same_in_every_process() -> None:
    """Two sidecars must agree: pinned, so that a change of the hash is noticed."""
    assert points("10.0.0.1:80", 9)[:2] == [9018752320555811108, 17845971501458050317]
    assert points("10.0.0.1:80", 9) == points("10.0.0.1:80", 200)[:9]


@given(st.lists(st.integers(1, 1_000_000), min_size=1, max_size=50))
def test_a_ring_is_large_enough_and_bounded(weights: list[int]) -> None:
    made = counts(weights)
    assert min(made) >= 1
    assert sum(made) >= MIN_SIZE - len(weights)
    assert sum(made) <= MAX_SIZE + 2 * len(weights)


def test_points_are_in_proportion_to_weights() -> None:
    assert counts([1, 2, 3]) == [171, 342, 513]
    assert counts([7] * 4) == [256] * 4
    assert counts([1] * 3000) == [1] * 3000
    assert counts([1, 1_000_000]) == [1, MAX_SIZE]


def test_spread_over_ten_equal_members() -> None:
    members = endpoints(*[1] * 10)
    for share in shares(Users().picks(ring(members), 20_000), members):
        assert 0.06 < share < 0.14


def test_spread_follows_weights() -> None:
    members = endpoints(1, 4, 5)
    found = shares(Users().picks(ring(members), 20_000), members)
    for share, due in zip(found, (0.1, 0.4, 0.5), strict=True):
        assert abs(share - due) < 0.05


def test_the_same_key_goes_to_the_same_endpoint_on_every_sidecar() -> None:
    members = endpoints(1, 2, 3, 4)
    one = ring(members, seed=1)
    other = ring(list(reversed(members)), seed=2)
    users = Users()
    assert users.picks(one, 500) == users.picks(other, 500)


@pytest.mark.parametrize("count", [3, 10])
def test_only_the_keys_of_a_member_that_is_ejected_move(count: int) -> None:
    members, users = endpoints(*[1] * count), Users()
    balancer = ring(members)
    before = users.picks(balancer, 5000)
    gone = members[1]
    balancer.update([member for member in members if member is not gone])
    after = users.picks(balancer, 5000)
    assert all(b is a for a, b in zip(before, after, strict=True) if a is not gone)
    assert gone not in after
    heirs = Counter(b for a, b in zip(before, after, strict=True) if a is gone)
    assert len(heirs) == count - 1, "its keys are spread over all others"
    balancer.update(members)
    assert users.picks(balancer, 5000) == before, "and they come back with it"


def test_a_new_member_takes_its_share_and_nothing_else_moves() -> None:
    members, users = endpoints(*[1] * 10), Users()
    before = users.picks(ring(members[:9]), 10_000)
    after = users.picks(ring(members), 10_000)
    changed = [b for a, b in zip(before, after, strict=True) if a is not b]
    assert 0.06 < moved(before, after) < 0.2
    # Fewer points each, as there are more members: a few keys move among the old ones.
    assert changed.count(members[9]) / len(changed) > 0.5


def test_a_retry_takes_the_next_on_the_ring() -> None:
    members, users = endpoints(*[1] * 5), Users()
    balancer = ring(members)
    first = balancer.pick(users.request("a"))
    second = balancer.pick_other(users.request("a"), [first])
    assert second is not None
    balancer.update([member for member in members if member is not first])
    assert balancer.pick(users.request("a")) is second, "where the key goes when the first is gone"
    balancer.update(members)
    tried = [first]
    while (other := balancer.pick_other(users.request("a"), tried)) is not None:
        assert other not in tried
        tried.append(other)
    assert set(tried) == set(members)


def test_without_a_key_any_may_be_taken() -> None:
    members, users = endpoints(1, 1), Users()
    balancer = ring(members)
    assert {balancer.pick(users.request(None)) for _ in range(50)} == set(members)
    assert balancer.pick_other(users.request(None), members) is None


def test_a_change_of_health_makes_no_new_points() -> None:
    members = endpoints(*[1] * 4)
    balancer = ring(members)
    made = balancer._ring
    balancer.set_members(members)
    balancer.update(members[1:])
    assert balancer._ring is made
    assert repr(balancer) == "<RingHash members=4 points=768>"


def test_another_weight_makes_a_new_ring() -> None:
    members = endpoints(1, 1)
    balancer = ring(members)
    members[0].spec = endpoints(3)[0].spec
    balancer.set_members(members)
    balancer.update(members)
    assert Counter(balancer._owners) == {members[0]: 768, members[1]: 256}
