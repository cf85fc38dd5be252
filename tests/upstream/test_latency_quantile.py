from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hms_addons.upstream.latency_quantile import WARM_UP, LatencyQuantile


def filled(*latencies: float) -> LatencyQuantile:
    quantile = LatencyQuantile()
    for latency in latencies:
        quantile.record(latency)
    return quantile


def test_nothing_is_told_before_it_is_warm() -> None:
    quantile = filled(*[0.1] * (WARM_UP - 1))
    assert quantile.value(0.95) is None
    quantile.record(0.1)
    assert quantile.value(0.95) == pytest.approx(0.1, rel=0.1)


@given(
    st.lists(st.floats(0.0005, 60.0), min_size=WARM_UP, max_size=1500),
    st.sampled_from([0.5, 0.9, 0.95, 0.99]),
)
def test_a_quantile_is_known_within_a_tenth(latencies: list[float], share: float) -> None:
    found = filled(*latencies).value(share)
    assert found is not None
    within = sum(latency <= found * 1.0001 for latency in latencies)
    assert within >= share * len(latencies)
    below = sum(latency <= found / 1.101 for latency in latencies)
    assert below <= share * len(latencies)


def test_a_change_is_learnt_and_the_past_forgotten() -> None:
    quantile = filled(*[0.01] * 5000)
    for _ in range(4000):
        quantile.record(1.0)
    assert quantile.value(0.5) == pytest.approx(1.0, rel=0.1)


def test_what_is_out_of_range_is_kept_at_its_end() -> None:
    assert filled(*[0.0] * WARM_UP).value(0.95) == 0.0001
    assert filled(*[1e9] * WARM_UP).value(0.95) == pytest.approx(120, rel=0.2)


def test_its_memory_is_bounded() -> None:
    rng = random.Random(1)
    quantile = filled(*[rng.random() for _ in range(10_000)])
    assert repr(quantile).startswith("<LatencyQuantile samples=")
    assert len(quantile._counts) == 148
    assert quantile._total < 2000
