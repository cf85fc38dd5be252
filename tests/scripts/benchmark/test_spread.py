from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.benchmark.spread import Spread, percentile, ratio, significant

figures = st.floats(min_value=0.001, max_value=1e6)


def test_a_spread_is_median_and_ends() -> None:
    assert Spread.of([4.0, 1.0, 2.0]) == Spread(median=2.0, min=1.0, max=4.0)
    assert Spread.of([1.0, 2.0]).median == 1.5


def test_json_has_four_significant_digits_and_no_more() -> None:
    shown = Spread(12345.678, 0.000123456, 1.0).as_json()
    assert shown == {"median": 12350.0, "min": 0.0001235, "max": 1.0}


def test_ratios_are_taken_within_a_round() -> None:
    # The machine halved its speed in the second round: the ratio does not move.
    assert ratio([100.0, 50.0], [200.0, 100.0]) == Spread(0.5, 0.5, 0.5)


def test_a_round_without_its_counterpart_is_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        ratio([1.0, 2.0], [1.0])


def test_nothing_measured_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Spread.of([])
    with pytest.raises(ValueError, match="at least one"):
        percentile([], 50)


@pytest.mark.parametrize("percent", [0, -1, 100.1])
def test_a_percentile_beyond_its_range_is_refused(percent: float) -> None:
    with pytest.raises(ValueError, match=r"\(0, 100\]"):
        percentile([1.0], percent)


@pytest.mark.parametrize(
    ("percent", "expected"), [(50, 500.0), (99, 990.0), (99.9, 999.0), (100, 1000.0), (0.01, 1.0)]
)
def test_percentiles_of_a_known_series(percent: float, expected: float) -> None:
    assert percentile([float(n) for n in range(1000, 0, -1)], percent) == expected


@given(st.lists(figures, min_size=1), st.floats(min_value=0.1, max_value=100))
def test_a_percentile_is_the_smallest_value_that_enough_do_not_exceed(
    values: list[float], percent: float
) -> None:
    found = percentile(values, percent)
    needed = math.ceil(round(len(values) * percent / 100, 9))
    assert found in values
    assert sum(value <= found for value in values) >= needed
    assert sum(value < found for value in values) < needed


@given(st.lists(figures, min_size=1))
def test_a_spread_is_in_order(values: list[float]) -> None:
    spread = Spread.of(values)
    assert spread.min <= spread.median <= spread.max


def test_significant_digits() -> None:
    assert significant(0) == 0
    assert significant(-98765.4321, 2) == -99000
