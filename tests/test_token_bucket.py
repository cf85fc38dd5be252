from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from hms_addons.token_bucket import NANOSECONDS, KeyedBuckets, Rate

RATES = st.builds(
    Rate,
    requests=st.integers(1, 50),
    per=st.sampled_from([1, 7, NANOSECONDS // 3, NANOSECONDS, 86_400 * NANOSECONDS]),
    burst=st.integers(1, 20),
)


def admit(buckets: KeyedBuckets, key: bytes, now: int) -> bool:
    if buckets.wait(key, now):
        buckets.refuse()
        return False
    buckets.take(key, now)
    return True


@given(RATES, st.lists(st.floats(0, 3), max_size=200))
def test_no_window_admits_more_than_the_burst_and_what_was_refilled(
    rate: Rate, steps: list[float]
) -> None:
    buckets = KeyedBuckets(rate)
    now = 10**15
    admitted = []
    for step in steps:
        now += int(step * rate.per / rate.requests)
        if admit(buckets, b"k", now):
            admitted.append(now)
    for first, start in enumerate(admitted):
        for count, end in enumerate(admitted[first:], start=1):
            assert count <= rate.burst + Fraction((end - start) * rate.requests, rate.per)


@given(RATES, st.integers(0, 40), st.integers(0, 10**12))
def test_exactly_the_burst_and_what_was_refilled_is_admitted(
    rate: Rate, refills: int, start: int
) -> None:
    buckets = KeyedBuckets(rate)
    assert [admit(buckets, b"k", start) for _ in range(rate.burst + 3)].count(True) == rate.burst
    later = start + -(-refills * rate.per // rate.requests)
    expected = min(rate.burst, (later - start) * rate.requests // rate.per)
    assert [admit(buckets, b"k", later) for _ in range(rate.burst + 3)].count(True) == expected


@given(RATES, st.lists(st.integers(0, 3), max_size=60))
def test_who_waits_as_long_as_told_is_admitted_and_not_before(rate: Rate, steps: list[int]) -> None:
    buckets = KeyedBuckets(rate)
    now = 0
    for step in steps:
        now += step * rate.per // (2 * rate.requests)
        wait = buckets.wait(b"k", now)
        if wait:
            assert buckets.wait(b"k", now + wait) == 0
            assert buckets.wait(b"k", now + wait - 1) > 0
        else:
            buckets.take(b"k", now)


def test_time_that_passes_in_small_steps_is_not_lost() -> None:
    buckets = KeyedBuckets(Rate.of(10, 1.0, 1))
    admitted = sum(admit(buckets, b"k", step * NANOSECONDS // 1000) for step in range(10_001))
    assert admitted == 101  # one at once, then ten a second for ten seconds


def test_keys_do_not_share_a_bucket() -> None:
    buckets = KeyedBuckets(Rate.of(1, 60.0, 1))
    assert admit(buckets, b"a", 0)
    assert not admit(buckets, b"a", 0)
    assert admit(buckets, b"b", 0)


def test_a_million_keys_are_not_remembered_the_least_recent_is_dropped_and_counted() -> None:
    buckets = KeyedBuckets(Rate.of(1, 3600.0, 1), max_keys=1000)
    for number in range(1_000_000):
        assert admit(buckets, b"%d" % number, number)
    assert len(buckets) == 1000
    assert buckets.dropped == 999_000
    assert not admit(buckets, b"999999", 10**6)
    assert admit(buckets, b"0", 10**6)  # forgotten, so its bucket is full again


def test_a_key_that_is_being_refused_is_not_forgotten_for_it() -> None:
    buckets = KeyedBuckets(Rate.of(1, 3600.0, 1), max_keys=3)
    assert admit(buckets, b"busy", 0)
    for number in range(100):
        admit(buckets, b"%d" % number, 0)
        assert not admit(buckets, b"busy", 0)


def test_full_buckets_are_forgotten_without_being_counted() -> None:
    buckets = KeyedBuckets(Rate.of(1, 1.0, 1), max_keys=100)
    for number in range(10_000):
        admit(buckets, b"%d" % number, number * NANOSECONDS)
    assert len(buckets) <= 2
    assert buckets.dropped == 0


def test_its_state_can_be_read() -> None:
    buckets = KeyedBuckets(Rate.of(2, 1.0, 3))
    assert buckets.tokens(b"k", 0) == 3
    for _ in range(4):
        admit(buckets, b"k", 0)
    assert buckets.tokens(b"k", 0) == 0
    assert buckets.tokens(b"k", NANOSECONDS) == 2
    assert repr(buckets) == "<KeyedBuckets 2/1s burst=3 keys=1 admitted=3 refused=1 dropped=0>"
