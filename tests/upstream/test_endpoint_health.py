"""The verdict of an endpoint's checks: the first decides alone, then it takes so many in a row."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hms_addons.config.snapshot_health import HealthCheck
from hms_addons.upstream.endpoint_health import EndpointHealth, HealthState

SETTINGS = HealthCheck(unhealthy=3, healthy=2)


def after(*results: bool, settings: HealthCheck = SETTINGS) -> EndpointHealth:
    health = EndpointHealth()
    for passed in results:
        _ = health.passed(settings) if passed else health.failed(settings, "refused")
    return health


def test_the_first_check_decides_alone() -> None:
    assert after().state is HealthState.UNCHECKED
    assert after(True).state is HealthState.HEALTHY
    failed = after(False)
    assert failed.state is HealthState.UNHEALTHY
    assert failed.cause == "1 health check failed, the last: refused"


def test_three_failures_in_a_row_take_it_out_and_two_passes_back() -> None:
    assert after(True, False, False).state is HealthState.HEALTHY
    assert after(True, False, False, True, False, False).state is HealthState.HEALTHY
    out = after(True, False, False, False)
    assert out.state is HealthState.UNHEALTHY
    assert out.cause == "3 health checks in a row failed, the last: refused"
    assert after(True, False, False, False, True).state is HealthState.UNHEALTHY
    assert after(True, False, False, False, True, False, True).state is HealthState.UNHEALTHY
    back = after(True, False, False, False, True, True)
    assert (back.state, back.cause) == (HealthState.HEALTHY, None)


def test_each_result_says_whether_the_verdict_changed() -> None:
    health = EndpointHealth()
    assert health.passed(SETTINGS)
    assert not health.passed(SETTINGS)
    assert [health.failed(SETTINGS, "x") for _ in range(4)] == [False, False, True, False]
    assert [health.passed(SETTINGS) for _ in range(3)] == [False, True, False]


@given(
    results=st.lists(st.booleans(), max_size=60),
    unhealthy=st.integers(1, 4),
    healthy=st.integers(1, 4),
)
def test_it_is_what_its_definition_says(results: list[bool], unhealthy: int, healthy: int) -> None:
    settings = HealthCheck(unhealthy=unhealthy, healthy=healthy)
    expected: bool | None = None
    row: list[bool] = []
    for passed in results:
        row = [*row, passed] if row and row[-1] is passed else [passed]
        if expected is None or len(row) >= (healthy if passed else unhealthy):
            expected = passed
    state = {None: "unchecked", True: "healthy", False: "unhealthy"}[expected]
    health = after(*results, settings=settings)
    assert health.state.value == state
    assert (health.checks_total, health.failed_total) == (len(results), results.count(False))
    assert (health.cause is None) is (expected is True)


def test_repr_and_description() -> None:
    health = after(True, False)
    assert repr(health) == "<EndpointHealth healthy passes=0 failures=1>"
    assert health.describe() == {
        "health": "healthy",
        "health_cause": None,
        "health_checks_total": 2,
        "health_check_failures_total": 1,
    }
