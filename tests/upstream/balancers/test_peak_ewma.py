"""`ewma`: what is measured counts at once when it is bad, and is forgiven with time."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hms_addons.upstream.balancers.peak_ewma import DECAY, FAILED, FIRST_GUESS, PeakEwma
from tests.fakes.balancers import ANY, endpoints, picks
from tests.fakes.clock import FakeClock


def ewma(members: list, seed: int = 1) -> tuple[PeakEwma, FakeClock]:  # type: ignore[type-arg]
    balancer, clock = PeakEwma(random.Random(seed)), FakeClock()
    balancer.use_clock(clock)
    balancer.update(members)
    return balancer, clock


def test_the_first_guess_stands_until_something_is_measured() -> None:
    balancer, clock = ewma(members := endpoints(1))
    clock.tick(100)
    assert balancer.latency(members[0], clock.monotonic()) == FIRST_GUESS


def test_a_peak_counts_at_once_and_sinks_over_ten_seconds() -> None:
    balancer, clock = ewma(members := endpoints(1))
    (only,) = members
    balancer.attempt_ended(only, 2.0, 200)
    assert balancer.latency(only, clock.monotonic()) == 2.0
    clock.tick(DECAY)
    assert balancer.latency(only, clock.monotonic()) == pytest.approx(2.0 / math.e)
    # A quick answer pulls it down by as much as the time since the last one has weight.
    balancer.attempt_ended(only, 0.1, 200)
    assert balancer.latency(only, clock.monotonic()) == pytest.approx(
        2.0 / math.e + 0.1 * (1 - 1 / math.e)
    )


def test_many_quick_answers_at_once_do_not_hide_a_slow_one() -> None:
    balancer, clock = ewma(members := endpoints(1))
    (only,) = members
    balancer.attempt_ended(only, 2.0, 200)
    for _ in range(100):
        balancer.attempt_ended(only, 0.001, 200)
    assert balancer.latency(only, clock.monotonic()) == 2.0


def test_the_quicker_of_two_is_picked_until_it_has_more_in_flight() -> None:
    balancer, _ = ewma(members := endpoints(1, 1))
    slow, quick = members
    balancer.attempt_ended(slow, 0.2, 200)
    balancer.attempt_ended(quick, 0.04, 200)
    assert set(picks(balancer, 50)) == {quick}
    quick.active = 6  # 0.04 x 7 is more than 0.2 x 1
    assert set(picks(balancer, 50)) == {slow}


def test_one_that_fails_fast_does_not_look_quick() -> None:
    balancer, clock = ewma(members := endpoints(1, 1))
    broken, good = members
    balancer.attempt_ended(good, 0.1, 200)
    balancer.attempt_ended(broken, 0.0001, 503)
    assert balancer.latency(broken, clock.monotonic()) == FAILED
    assert set(picks(balancer, 50)) == {good}
    balancer.attempt_ended(good, 0.1, 404)
    assert balancer.latency(good, clock.monotonic()) == pytest.approx(0.1), (
        "an answer like any other"
    )


def test_what_was_slow_is_tried_again_when_time_has_passed() -> None:
    balancer, clock = ewma(members := endpoints(1, 1))
    slow, other = members
    balancer.attempt_ended(slow, 1.0, 200)
    assert set(picks(balancer, 20)) == {other}
    clock.tick(40)  # 1 s has sunk to 18 ms, below the other's guess of 30
    assert set(picks(balancer, 20)) == {slow}


def test_what_is_known_outlives_an_ejection_but_not_the_endpoint() -> None:
    balancer, clock = ewma(members := endpoints(1, 1))
    balancer.attempt_ended(members[0], 1.0, 200)
    balancer.update(members[1:])
    balancer.attempt_ended(members[0], 1.5, 200)
    balancer.update(members)
    assert balancer.latency(members[0], clock.monotonic()) == 1.5
    members[0].drained = True
    balancer.update(members[1:])
    assert balancer._estimates == {}


@pytest.mark.parametrize("weights", [(1, 9), (1, 2, 7)])
def test_with_equal_latencies_shares_follow_weights(weights: tuple[int, ...]) -> None:
    balancer, _ = ewma(members := endpoints(*weights), seed=5)
    counts = Counter(picks(balancer, 10_000))
    for member, weight in zip(members, weights, strict=True):
        assert abs(counts[member] / 10_000 - weight / sum(weights)) < 0.02


def test_under_load_too() -> None:
    """Each request lasts for twenty further ones; a heavy endpoint may hold more at a time."""
    balancer, _ = ewma(members := endpoints(1, 4), seed=5)
    in_flight = []
    counts: Counter[object] = Counter()
    for _ in range(5000):
        endpoint = balancer.pick(ANY)
        counts[endpoint] += 1
        endpoint.active += 1
        in_flight.append(endpoint)
        if len(in_flight) > 20:
            in_flight.pop(0).active -= 1
    assert abs(counts[members[1]] / 5000 - 0.8) < 0.03


@given(st.integers(2, 10), st.integers())
def test_equal_ones_share_evenly_and_the_slowest_never_wins(count: int, seed: int) -> None:
    balancer, _ = ewma(members := endpoints(*[1] * count), seed)
    slowest = members[seed % count]
    balancer.attempt_ended(slowest, 5.0, 200)
    chosen = set(picks(balancer, 300))
    assert slowest not in chosen
    assert chosen == set(members) - {slowest}


def test_one_alone() -> None:
    balancer, _ = ewma(members := endpoints(1))
    assert picks(balancer, 3) == members * 3
