"""Closed, open, half-open: when each endpoint's breaker changes, and for how long."""

from __future__ import annotations

import logging
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hms_addons.config.snapshot import EndpointSpec, OutlierDetection
from hms_addons.config.snapshot_health import SuccessRate
from hms_addons.upstream.endpoint import Endpoint, EndpointState
from hms_addons.upstream.outlier_detection import OutlierDetector
from tests.fakes.clock import FakeClock

CLOSED, OPEN, HALF_OPEN = EndpointState


class Rig:
    """A detector over a few endpoints."""

    def __init__(self, count: int = 2, **settings: Any) -> None:
        self.clock = FakeClock(monotonic=0.0)
        self.members = {
            (f"e{n}", 80): Endpoint(EndpointSpec(host=f"e{n}", port=80), "auth-svc")
            for n in range(count)
        }
        self.changes = 0
        self.detector = OutlierDetector(
            "auth-svc", OutlierDetection(**settings), self.members, self.clock, self.changed
        )
        self.e = self.members["e0", 80]

    def changed(self) -> None:
        self.changes += 1

    def result(self, *statuses: int, endpoint: Endpoint | None = None) -> None:
        for status in statuses:
            self.detector.record(endpoint or self.e, status, f"status {status}", probe=False)

    def probe(self, status: int) -> None:
        assert self.e.state is HALF_OPEN
        self.detector.begin_probe(self.e)
        self.detector.record(self.e, status, f"status {status}", probe=True)

    @property
    def left(self) -> float:
        assert self.e.state is OPEN
        return self.e.ejected_until - self.clock.monotonic()


def test_five_in_a_row_open_it_and_name_the_cause() -> None:
    rig = Rig()
    rig.result(503, 503, 503, 503)
    assert rig.e.state is CLOSED
    rig.result(503)
    assert (rig.e.state, rig.left) == (OPEN, 30.0)
    assert rig.e.cause == "5 gateway failures in a row, the last: status 503"
    assert rig.changes == 1


def test_a_success_between_starts_over() -> None:
    rig = Rig()
    rig.result(503, 503, 503, 503, 200, 503, 503, 503, 503)
    assert rig.e.state is CLOSED
    rig.result(404, 503)  # a client error is a healthy endpoint's answer
    assert rig.e.consecutive_5xx == 1


def test_gateway_failures_and_server_errors_count_apart() -> None:
    rig = Rig(consecutive_gateway_failure=2, consecutive_5xx=4)
    rig.result(503, 500, 503)
    assert rig.e.state is CLOSED
    rig.result(500)
    assert rig.e.cause == "4 server errors in a row, the last: status 500"
    other = rig.members["e1", 80]
    rig.result(500, 502, 504, endpoint=other)
    assert other.cause == "2 gateway failures in a row, the last: status 504"


def test_a_threshold_of_zero_never_opens() -> None:
    rig = Rig(consecutive_gateway_failure=0, consecutive_5xx=0)
    rig.result(*[503] * 50)
    assert rig.e.state is CLOSED


def test_half_open_when_its_time_is_up_then_one_probe_decides() -> None:
    rig = Rig()
    rig.result(*[503] * 5)
    rig.clock.tick(29.9)
    assert rig.e.state is OPEN
    rig.clock.tick(0.1)
    assert rig.e.state is HALF_OPEN
    rig.probe(200)
    assert (rig.e.state, rig.e.cause, rig.e.probing) == (CLOSED, None, False)
    # And it takes five again.
    rig.result(*[503] * 4)
    assert rig.e.state is CLOSED


def test_each_failed_probe_opens_it_for_longer_up_to_the_cap() -> None:
    rig = Rig()
    rig.result(*[503] * 5)
    for expected in [60, 90, 120, 150, 180, 210, 240, 270, 300, 300, 300]:
        rig.clock.tick(rig.left)
        rig.probe(500)
        assert rig.left == expected
    assert rig.e.cause == "its probe failed: status 500"


def test_the_multiplier_falls_with_each_healthy_interval() -> None:
    rig = Rig()
    rig.result(*[503] * 5)
    for _ in range(3):
        rig.clock.tick(rig.left)
        rig.probe(503)
    assert rig.left == 120
    rig.clock.tick(120)
    rig.probe(200)
    rig.clock.tick(25)  # two whole healthy intervals of ten seconds
    rig.result(*[503] * 5)
    assert rig.left == (4 - 2 + 1) * 30
    rig.clock.tick(rig.left)
    rig.probe(200)
    rig.clock.tick(3600)
    rig.result(*[503] * 5)
    assert rig.left == 30


def test_an_abandoned_probe_lets_the_next_request_try() -> None:
    rig = Rig()
    rig.result(*[503] * 5)
    rig.clock.tick(30)
    changes = rig.changes
    rig.detector.begin_probe(rig.e)
    rig.detector.abandon_probe(rig.e)
    assert (rig.e.state, rig.e.probing, rig.changes) == (HALF_OPEN, False, changes + 2)


def test_late_results_change_nothing() -> None:
    """Requests that were under way when it was ejected are no probes."""
    rig = Rig()
    rig.result(*[503] * 5)
    rig.result(200, 503, 503)
    assert (rig.e.state, rig.left) == (OPEN, 30.0)
    rig.clock.tick(30)
    rig.result(200)
    assert rig.e.state is HALF_OPEN
    rig.result(503)
    assert rig.e.state is HALF_OPEN


@pytest.mark.parametrize(
    ("percent", "members", "ejectable"),
    [(100, 5, 5), (50, 5, 2), (10, 5, 0), (10, 10, 1), (0, 3, 0)],
)
def test_no_more_than_max_ejection_percent(percent: int, members: int, ejectable: int) -> None:
    rig = Rig(members, max_ejection_percent=percent)
    for endpoint in rig.members.values():
        rig.result(*[503] * 10, endpoint=endpoint)
    assert sum(endpoint.state is OPEN for endpoint in rig.members.values()) == ejectable


def test_a_half_open_endpoint_still_counts_as_ejected() -> None:
    rig = Rig(2, max_ejection_percent=50)
    rig.result(*[503] * 5)
    rig.clock.tick(30)
    rig.result(*[503] * 5, endpoint=rig.members["e1", 80])
    assert rig.members["e1", 80].state is CLOSED


def test_retry_after_is_the_time_until_the_first_may_be_tried() -> None:
    rig = Rig()
    assert rig.detector.retry_after() is None
    rig.result(*[503] * 5)
    rig.clock.tick(10)
    rig.result(*[503] * 5, endpoint=rig.members["e1", 80])
    assert rig.detector.retry_after() == 20
    rig.clock.tick(20)
    assert rig.detector.retry_after() == 0


def test_switching_it_off_closes_everything() -> None:
    rig = Rig()
    rig.result(*[503] * 5)
    rig.detector.replace_settings(None)
    assert (rig.e.state, rig.e.cause) == (CLOSED, None)
    rig.result(*[503] * 50)
    assert rig.e.state is CLOSED
    assert rig.e.failures == 55


def test_changes_are_logged_with_the_endpoint_named(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig()
    with caplog.at_level(logging.INFO):
        rig.result(*[503] * 5)
        rig.clock.tick(30)
        rig.probe(200)
    assert caplog.messages == [
        (
            "cluster auth-svc: endpoint e0:80 is ejected for 30s: "
            "5 gateway failures in a row, the last: status 503"
        ),
        "cluster auth-svc: endpoint e0:80 is half-open, as its time is up: the next request may try it",
        "cluster auth-svc: endpoint e0:80 is back in use: its probe succeeded",
    ]


def test_close_leaves_no_timer() -> None:
    rig = Rig()
    rig.result(*[503] * 5)
    assert rig.clock.pending == 1
    rig.detector.close()
    assert rig.clock.pending == 0


def test_repr() -> None:
    rig = Rig(3)
    rig.result(*[503] * 5)
    assert repr(rig.detector) == "<OutlierDetector auth-svc closed=2 open=1 half-open=0>"


@given(st.integers(), st.integers(1, 300))
def test_invariants_of_a_random_life(seed: int, steps: int) -> None:
    rng = random.Random(seed)
    rig = Rig(3, max_ejection_percent=70)
    members = list(rig.members.values())
    for _ in range(steps):
        endpoint = rng.choice(members)
        if rng.random() < 0.2:
            rig.clock.tick(rng.choice([1, 7, 30, 200]))
        elif endpoint.state is HALF_OPEN and not endpoint.probing and rng.random() < 0.5:
            rig.detector.begin_probe(endpoint)
            if rng.random() < 0.2:
                rig.detector.abandon_probe(endpoint)
            else:
                rig.detector.record(endpoint, rng.choice([200, 503]), "x", probe=True)
        else:
            rig.result(rng.choice([200, 500, 503, 503, 503]), endpoint=endpoint)
        now = rig.clock.monotonic()
        for member in members:
            if member.state is OPEN:
                assert now < member.ejected_until <= now + 300
                assert member.cause
            assert not (member.probing and member.state is not HALF_OPEN)
        assert sum(member.state is not CLOSED for member in members) <= 2
    assert rig.clock.pending <= 1


# -- success rates -----------------------------------------------------------------------------------


def compared(count: int = 10, **settings: Any) -> Rig:
    settings.setdefault("success_rate", SuccessRate())
    return Rig(count, consecutive_5xx=0, consecutive_gateway_failure=0, **settings)


def traffic(rig: Rig, bad: dict[int, int], requests: int = 100) -> None:
    """An interval's requests to every endpoint; `bad` says how many of them failed where."""
    for number, endpoint in enumerate(rig.members.values()):
        failed = bad.get(number, 0)
        endpoint.successes += requests - failed
        rig.result(*[503] * failed, endpoint=endpoint)


def ejected(rig: Rig) -> list[str]:
    return [e.address for e in rig.members.values() if e.state is OPEN]


def test_a_success_rate_far_below_the_others_ejects_at_the_interval(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rig = compared()
    traffic(rig, {3: 40})
    rig.clock.tick(9.9)
    assert ejected(rig) == []
    rig.clock.tick(0.1)
    assert ejected(rig) == ["e3:80"]
    e3 = rig.members["e3", 80]
    assert (e3.ejections, e3.ejected_until - rig.clock.monotonic()) == (1, 30.0)
    assert e3.cause is not None
    assert e3.cause.startswith("60.0% of its requests succeeded, less than the ")
    assert "cluster auth-svc: endpoint e3:80 is ejected for 30s: 60.0% of its" in caplog.text
    # And from then on it is as any ejected one: a request tries it when its time is up.
    rig.clock.tick(30)
    assert e3.state is HALF_OPEN


def test_success_rates_are_off_by_default() -> None:
    rig = Rig(10, consecutive_5xx=0, consecutive_gateway_failure=0)
    assert rig.clock.pending == 0, "not even a timer"
    traffic(rig, {3: 100})
    rig.clock.tick(60)
    assert ejected(rig) == []


def test_each_interval_counts_for_itself() -> None:
    rig = compared()
    traffic(rig, {3: 40}, requests=90)
    rig.clock.tick(10)
    traffic(rig, {3: 40}, requests=90)
    rig.clock.tick(10)
    assert ejected(rig) == [], "never 100 requests in one interval"
    traffic(rig, {3: 40})
    rig.clock.tick(10)
    assert ejected(rig) == ["e3:80"]


def test_max_ejection_percent_bounds_success_rate_ejections() -> None:
    loose = SuccessRate(stdev_factor=1.0)
    rig = compared(max_ejection_percent=10, success_rate=loose)
    traffic(rig, {3: 60, 4: 80})
    rig.clock.tick(10)
    assert ejected(rig) == ["e4:80"], "the worst"
    rig = compared(success_rate=loose)
    traffic(rig, {3: 60, 4: 80})
    rig.clock.tick(10)
    assert ejected(rig) == ["e3:80", "e4:80"]


def test_the_last_healthy_endpoint_is_never_ejected_by_success_rate() -> None:
    settings = SuccessRate(minimum_hosts=2, stdev_factor=0.5)
    rig = compared(3, success_rate=settings)
    for number in (1, 2):
        rig.members[f"e{number}", 80].healthy = False  # by their health checks
    traffic(rig, {0: 100})
    rig.clock.tick(10)
    assert ejected(rig) == []
    rig.members["e1", 80].healthy = True
    traffic(rig, {0: 100})
    rig.clock.tick(10)
    assert ejected(rig) == ["e0:80"]
    traffic(rig, {1: 100})
    rig.clock.tick(10)
    assert ejected(rig) == ["e0:80"], "e1 is the last one in use"


def test_switching_success_rates_on_begins_with_the_counts_of_that_moment() -> None:
    rig = Rig(10, consecutive_5xx=0, consecutive_gateway_failure=0)
    traffic(rig, {3: 90}, requests=100)
    rig.detector.replace_settings(
        OutlierDetection(
            consecutive_5xx=0, consecutive_gateway_failure=0, success_rate=SuccessRate()
        )
    )
    traffic(rig, {}, requests=100)
    rig.clock.tick(10)
    assert ejected(rig) == []
    rig.detector.replace_settings(None)
    rig.detector.close()
    assert rig.clock.pending == 0


# -- health checks -----------------------------------------------------------------------------------


def test_a_passed_health_check_makes_an_ejected_endpoint_half_open() -> None:
    rig = Rig()
    rig.detector.health_check_passed(rig.e)
    assert (rig.e.state, rig.changes) == (CLOSED, 0)
    rig.result(*[503] * 5)
    rig.detector.health_check_passed(rig.e)
    assert rig.e.state is HALF_OPEN
    assert rig.e.cause == "5 gateway failures in a row, the last: status 503"
    rig.probe(503)
    assert rig.left == 60.0, "one request only, and it opens for longer"


def test_a_passed_health_check_may_be_told_not_to() -> None:
    rig = Rig(health_check_unejects=False)
    rig.result(*[503] * 5)
    rig.detector.health_check_passed(rig.e)
    assert rig.e.state is OPEN


# -- by hand ---------------------------------------------------------------------------------------


def test_what_a_person_opens_is_closed_by_time() -> None:
    rig = Rig()
    rig.detector.open_by_hand(rig.e, 60.0)
    assert (rig.e.state, rig.left, rig.e.by_hand) == (OPEN, 60.0, True)
    assert rig.e.trouble == "open (opened by hand for 60s; hms.mend closes it)"
    rig.clock.tick(59.0)
    assert rig.e.state is OPEN
    rig.clock.tick(1.0)
    assert (rig.e.state, rig.e.by_hand, rig.e.cause) == (CLOSED, False, None)


def test_neither_a_health_check_nor_new_settings_close_what_a_person_opened() -> None:
    rig = Rig()
    rig.detector.open_by_hand(rig.e, 60.0)
    rig.detector.health_check_passed(rig.e)
    rig.detector.replace_settings(None)
    assert rig.e.state is OPEN
    rig.clock.tick(60.0)
    assert rig.e.state is CLOSED


def test_a_person_closes_what_a_person_opened_and_nothing_else() -> None:
    rig = Rig(3)
    rig.result(*[503] * 5, endpoint=rig.members["e1", 80])
    rig.detector.open_by_hand(rig.e, 60.0)
    assert [rig.detector.mend(member) for member in rig.members.values()] == [True, False, False]
    assert rig.e.state is CLOSED
    assert rig.members["e1", 80].state is OPEN


def test_one_that_was_ejected_is_a_persons_from_then_on() -> None:
    rig = Rig()
    rig.result(*[503] * 5)
    rig.detector.open_by_hand(rig.e, 5.0)
    rig.clock.tick(5.0)
    assert rig.e.state is CLOSED
