from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hms_addons.control.rate_limit import Rate, RateLimiter
from tests.fakes.clock import FakeClock

RATE = Rate(2, 3)


def test_a_burst_is_let_through_and_then_one_call_each_half_second() -> None:
    clock = FakeClock()
    limiter = RateLimiter(clock)
    assert [limiter.take("a", RATE) for _ in range(4)] == [0, 0, 0, 0.5]
    clock.tick(0.25)
    assert limiter.take("a", RATE) == 0.25
    clock.tick(0.25)
    assert limiter.take("a", RATE) == 0
    assert limiter.take("a", RATE) == 0.5


def test_each_caller_has_a_bucket_of_its_own() -> None:
    limiter = RateLimiter(FakeClock())
    assert [limiter.take("a", RATE) for _ in range(4)][-1] > 0
    assert limiter.take("b", RATE) == 0


def test_a_bucket_never_holds_more_than_a_burst() -> None:
    clock = FakeClock()
    limiter = RateLimiter(clock)
    limiter.take("a", RATE)
    clock.tick(3600)
    assert [limiter.take("a", RATE) > 0 for _ in range(4)] == [False, False, False, True]


def test_the_table_is_bounded_and_forgets_who_was_silent_longest() -> None:
    limiter = RateLimiter(FakeClock(), max_callers=2)
    one = Rate(1, 1)
    assert [limiter.take(name, one) for name in "aba"] == [0, 0, 1]
    limiter.take("c", one)  # forgets b, not a
    assert repr(limiter) == "<RateLimiter callers=2>"
    assert limiter.take("a", one) == 1
    assert limiter.take("b", one) == 0


@given(
    st.lists(st.floats(0, 2), min_size=1, max_size=60),
    st.floats(0.5, 20),
    st.integers(1, 10),
)
def test_over_any_time_no_more_passes_than_burst_and_rate_allow(
    pauses: list[float], per_second: float, burst: int
) -> None:
    clock = FakeClock()
    limiter = RateLimiter(clock)
    start, passed = clock.monotonic(), 0
    for pause in pauses:
        clock.tick(pause)
        passed += limiter.take("a", Rate(per_second, burst)) == 0
        assert passed <= burst + (clock.monotonic() - start) * per_second + 1e-6


def test_waiting_as_long_as_told_is_enough() -> None:
    clock = FakeClock()
    limiter = RateLimiter(clock)
    rate = Rate(7, 1)
    limiter.take("a", rate)
    wait = limiter.take("a", rate)
    assert wait == pytest.approx(1 / 7)
    clock.tick(wait + 1e-9)
    assert limiter.take("a", rate) == 0
