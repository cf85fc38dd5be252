"""Success rates: who is compared, what is far below the others, and who is left alone."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hms_addons.config.snapshot import EndpointSpec
from hms_addons.config.snapshot_health import SuccessRate
from hms_addons.upstream.endpoint import Endpoint
from hms_addons.upstream.success_rate import SuccessRates, ejection_threshold

SETTINGS = SuccessRate()


def members(*counts: tuple[int, int]) -> list[Endpoint]:
    """Endpoints with so many successes and failures."""
    made = []
    for number, (successes, failures) in enumerate(counts):
        endpoint = Endpoint(EndpointSpec(host=f"e{number}", port=80), "auth-svc")
        endpoint.successes, endpoint.failures = successes, failures
        made.append(endpoint)
    return made


def outliers(*counts: tuple[int, int], settings: SuccessRate = SETTINGS) -> list[str]:
    return [o.endpoint.address for o in SuccessRates().outliers(members(*counts), settings)]


def test_who_fails_far_more_often_than_the_others() -> None:
    assert outliers(*[(100, 0)] * 9, (50, 50)) == ["e9:80"]
    (found,) = SuccessRates().outliers(members(*[(100, 0)] * 9, (50, 50)), SETTINGS)
    assert found.cause == (
        "50.0% of its requests succeeded, less than the 66.5% that 10 endpoints set "
        "(mean - 1.9 standard deviations)"
    )


def test_all_in_equal_trouble_are_no_outliers() -> None:
    assert outliers(*[(10, 90)] * 10) == []


def test_five_hosts_must_have_a_hundred_requests() -> None:
    loose = SuccessRate(stdev_factor=1.0)
    assert outliers(*[(100, 0)] * 4, (50, 50), settings=loose) == ["e4:80"]
    assert outliers(*[(100, 0)] * 4, (50, 49), settings=loose) == []
    assert outliers(*[(100, 0)] * 3, (50, 50), settings=loose) == []
    assert outliers(*[(100, 0)] * 5, (0, 99), settings=loose) == []


def test_with_five_hosts_one_alone_can_be_two_deviations_off() -> None:
    """Of n values one is at most sqrt(n - 1) deviations from the mean: 2 of five, so 1.9 can be met."""
    assert outliers(*[(100, 0)] * 4, (0, 100)) == ["e4:80"]


def test_only_what_happened_in_the_interval_counts() -> None:
    endpoints = members(*[(1000, 0)] * 9, (0, 1000))
    rates = SuccessRates()
    rates.begin(endpoints)
    assert rates.outliers(endpoints, SETTINGS) == []
    for endpoint in endpoints:
        endpoint.successes += 100
    assert rates.outliers(endpoints, SETTINGS) == []
    endpoints[0].failures += 100
    assert [o.endpoint for o in rates.outliers(endpoints, SETTINGS)] == [endpoints[0]]


def test_the_worst_comes_first() -> None:
    settings = SuccessRate(stdev_factor=1.0)
    counts = [(100, 0)] * 8 + [(40, 60), (20, 80)]
    assert outliers(*counts, settings=settings) == ["e9:80", "e8:80"]


@given(st.lists(st.floats(0, 100), min_size=1, max_size=50), st.floats(0.1, 5))
def test_the_threshold_is_the_populations(rates: list[float], factor: float) -> None:
    expected = statistics.fmean(rates) - factor * statistics.pstdev(rates)
    assert ejection_threshold(rates, factor) == pytest.approx(expected, abs=1e-6)


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300)), max_size=20))
def test_never_everybody(counts: list[tuple[int, int]]) -> None:
    """Somebody is at the mean or above it."""
    assert len(outliers(*counts)) < max(1, len(counts))
