"""Active health checks: when they are made, whom they take out and bring back, and that they end."""

from __future__ import annotations

import asyncio
import logging
import random
from typing import Any

import pytest

from hms_addons.config.snapshot import EndpointSpec, OutlierDetection
from hms_addons.config.snapshot_health import HealthCheck
from hms_addons.errors import ExchangeFailed
from hms_addons.tasks import TaskSet
from hms_addons.upstream.endpoint_health import HealthState
from hms_addons.upstream.health_check import MOST_AT_ONCE, HealthChecker
from hms_addons.upstream.health_probe import Verdict
from hms_addons.upstream.outcome import Outcome, UpstreamError
from tests.fakes.upstream import (
    OK,
    REFUSED,
    SILENCE,
    UNAVAILABLE,
    World,
    make_cluster,
    settle,
    specs,
)

EVERY_5S = HealthCheck(jitter=0.0)


class Checked(World):
    """A cluster with health checks; its first round is over."""

    @classmethod
    async def start(
        cls, endpoints: int = 1, check: HealthCheck = EVERY_5S, **options: Any
    ) -> Checked:
        world = cls(endpoints, health_check=check, **options)
        await settle()
        return world

    async def rounds(self, count: int = 1) -> None:
        for _ in range(count):
            await self.clock.advance(5.0)
            await settle()

    def change(self, check: HealthCheck | None, *endpoints: EndpointSpec, **options: Any) -> None:
        members = endpoints or self.cluster.spec.endpoints
        self.apply(make_cluster(health_check=check, endpoints=members, **options))

    @property
    def usable(self) -> list[str]:
        return [endpoint.address for endpoint in self.cluster.candidates]

    def health(self, number: int = 1) -> HealthState:
        health = self.endpoint(number).health
        assert health is not None
        return health.state


# -- whom they take out ------------------------------------------------------------------------------


async def test_three_failed_checks_take_an_endpoint_out_and_two_passes_bring_it_back() -> None:
    world = await Checked.start(2)
    assert world.usable == ["10.0.0.1:80", "10.0.0.2:80"]
    world.peer(1).on_check(UNAVAILABLE)
    await world.rounds(2)
    assert world.usable == ["10.0.0.1:80", "10.0.0.2:80"]
    await world.rounds(1)
    assert world.usable == ["10.0.0.2:80"]
    before = len(world.peer(1).requests)
    assert await world.get(6) == [200] * 6
    assert len(world.peer(1).requests) == before, "no request goes there"
    world.peer(1).on_check(OK)
    await world.rounds(1)
    assert world.usable == ["10.0.0.2:80"]
    await world.rounds(1)
    assert world.usable == ["10.0.0.1:80", "10.0.0.2:80"]
    await world.close()


async def test_unhealthy_is_not_ejected() -> None:
    world = await Checked.start(2)
    world.peer(1).on_connect(REFUSED)
    await world.rounds(3)
    described = world.cluster.describe()["endpoints"][0]
    assert described["state"] == "closed"
    assert described["health"] == "unhealthy"
    assert described["health_cause"] == (
        "3 health checks in a row failed, the last: connection refused"
    )
    assert (described["health_checks_total"], described["health_check_failures_total"]) == (4, 3)
    assert repr(world.endpoint(1)) == "<Endpoint auth-svc 10.0.0.1:80 closed active=0 unhealthy>"
    await world.close()


async def test_when_none_is_left_the_answer_names_each_cause() -> None:
    world = await Checked.start(1)
    world.peer(1).on_check(UNAVAILABLE)
    await world.rounds(3)
    with pytest.raises(ExchangeFailed) as caught:
        await world.forward()
    failure = caught.value.failure
    assert (failure.status, failure.flag.value) == (503, "UH")
    assert failure.detail == (
        "route verify-id, cluster auth-svc: no endpoint is in use: 10.0.0.1:80 is unhealthy "
        "(3 health checks in a row failed, the last: /health answered 503, not 200-299); health "
        "checks go on, every 5s"
    )
    assert failure.retry_after == 5.0
    await world.close()


async def test_changes_are_logged_once_with_endpoint_and_cause(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "hms_addons.upstream.health_check")
    world = await Checked.start()
    world.peer().on_check(UNAVAILABLE)
    await world.rounds(5)
    world.peer().on_check(OK)
    await world.rounds(3)
    assert [record.getMessage() for record in caplog.records] == [
        "cluster auth-svc: endpoint 10.0.0.1:80 is healthy",
        (
            "cluster auth-svc: endpoint 10.0.0.1:80 is unhealthy: 3 health checks in a row failed, "
            "the last: /health answered 503, not 200-299"
        ),
        "cluster auth-svc: endpoint 10.0.0.1:80 is healthy",
    ]
    await world.close()


async def test_this_sidecars_own_trouble_takes_nobody_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = await Checked.start()
    world.peer().on_connect(UpstreamError(Outcome.LOCAL, "too many files are open"))
    await world.rounds(10)
    assert world.health() is HealthState.HEALTHY
    assert "could not be checked: too many files are open" in caplog.text
    await world.close()


# -- the first check ---------------------------------------------------------------------------------


async def test_the_first_check_is_made_at_once_and_decides_alone() -> None:
    world = Checked(2, health_check=EVERY_5S)
    world.peer(1).on_check(UNAVAILABLE)
    assert world.usable == ["10.0.0.1:80", "10.0.0.2:80"], "nothing is known, so nothing is refused"
    await settle()
    assert world.usable == ["10.0.0.2:80"]
    world.peer(1).on_check(OK)
    await world.rounds(1)
    assert world.health(1) is HealthState.UNHEALTHY
    await world.rounds(1)
    assert world.usable == ["10.0.0.1:80", "10.0.0.2:80"]
    await world.close()


async def test_who_joins_healthy_endpoints_waits_for_its_first_check() -> None:
    world = await Checked.start(1)
    world.peer(2).on_check(SILENCE)
    world.change(EVERY_5S, *specs(2))
    assert world.usable == ["10.0.0.1:80"]
    described = world.cluster.describe()["endpoints"][1]
    assert (described["health"], described["health_cause"]) == ("unchecked", "not yet checked")
    await settle()
    world.peer(2).transports[-1].protocol.data_received(OK)
    await settle()
    assert world.usable == ["10.0.0.1:80", "10.0.0.2:80"]
    await world.close()


async def test_who_replaces_all_others_is_used_until_proven_unhealthy() -> None:
    world = await Checked.start(1)
    world.peer(9).on_check(UNAVAILABLE)
    world.change(EVERY_5S, EndpointSpec(host="10.0.0.9", port=80))
    assert world.usable == ["10.0.0.9:80"]
    await settle()
    assert world.usable == []
    await world.close()


# -- pace --------------------------------------------------------------------------------------------


async def test_checks_come_at_the_interval_with_jitter_on_top() -> None:
    world = await Checked.start(1, HealthCheck(interval=10.0, jitter=0.5))
    gaps = []
    last = world.clock.monotonic()
    for _ in range(30):
        seen = len(world.peer().checks)
        while len(world.peer().checks) == seen:
            await world.clock.advance(0.25)
            await settle(8)
        gaps.append(world.clock.monotonic() - last)
        last = world.clock.monotonic()
    assert all(10.0 <= gap <= 15.25 for gap in gaps)
    assert max(gaps) - min(gaps) > 2.5, "drawn anew each time"
    await world.close()


async def test_a_slow_check_delays_the_next_one_instead_of_overlapping() -> None:
    world = await Checked.start(1, HealthCheck(interval=1.0, timeout=3.0, jitter=0.0))
    world.peer().on_check(SILENCE)
    await world.clock.advance(1.0)
    await settle()
    assert len(world.peer().checks) == 2
    for _ in range(11):
        await world.clock.advance(0.25)
    assert len(world.peer().checks) == 2
    await world.clock.advance(0.25)  # timed out
    await settle()
    await world.clock.advance(1.0)
    await settle()
    assert len(world.peer().checks) == 3
    await world.close()


async def test_thousands_of_endpoints_are_checked_a_few_at_a_time() -> None:
    members = tuple(EndpointSpec(host=f"10.1.{n // 250}.{n % 250}", port=80) for n in range(2000))
    world = Checked(0, health_check=EVERY_5S)
    world.change(EVERY_5S, *members)
    most = 0
    while any(e.health and not e.health.checks_total for e in world.cluster.endpoints.values()):
        await asyncio.sleep(0)
        most = max(most, len(world.manager._tasks), world.connector.open)
    assert 1 < most <= MOST_AT_ONCE
    assert len(world.usable) == 2000
    await world.close()


async def test_endpoints_that_hang_hold_up_others_no_longer_than_their_timeout() -> None:
    world = Checked(MOST_AT_ONCE + 1, health_check=EVERY_5S)
    for number in range(1, MOST_AT_ONCE + 1):
        world.peer(number).on_check(SILENCE)
    await settle()
    assert world.peer(MOST_AT_ONCE + 1).checks == []
    await world.clock.advance(1.0)
    await settle()
    assert len(world.peer(MOST_AT_ONCE + 1).checks) == 1
    assert world.usable == [f"10.0.0.{MOST_AT_ONCE + 1}:80"]
    await world.close()


# -- changes and ends --------------------------------------------------------------------------------


async def test_who_leaves_takes_its_checks_along() -> None:
    world = await Checked.start(2)
    gone = world.endpoint(2)
    world.peer(2).on_check(SILENCE)
    await world.clock.advance(5.0)  # its check is under way
    world.change(EVERY_5S, *specs(1))
    await settle()
    seen = len(world.peer(2).checks)
    await world.rounds(3)
    assert len(world.peer(2).checks) == seen
    assert repr(world.manager.health_checker) == "<HealthChecker endpoints=1 running=0>"
    assert gone.drained
    await world.close()


async def test_switching_checks_off_puts_everybody_back_in_use() -> None:
    world = await Checked.start(1)
    world.peer().on_check(UNAVAILABLE)
    await world.rounds(3)
    assert world.usable == []
    world.change(None)
    assert world.usable == ["10.0.0.1:80"]
    assert "health" not in world.cluster.describe()["endpoints"][0]
    assert world.clock.pending == 0
    await world.close()


async def test_switching_checks_on_refuses_nothing_before_they_say_so() -> None:
    world = Checked(1)
    assert await world.get() == [200]
    world.peer().on_check(UNAVAILABLE)
    world.change(EVERY_5S)
    assert world.usable == ["10.0.0.1:80"]
    await settle()
    assert world.usable == []
    await world.close()


async def test_new_settings_count_at_once_and_keep_what_is_known() -> None:
    world = await Checked.start(2)
    world.peer(1).on_check(UNAVAILABLE)
    world.change(HealthCheck(unhealthy=1, jitter=0.0))
    assert world.health(1) is HealthState.HEALTHY
    await settle()
    assert world.health(1) is HealthState.UNHEALTHY, "asked anew, without waiting for the interval"
    assert world.clock.pending == 2
    await world.close()


async def test_a_removed_cluster_is_checked_no_more() -> None:
    world = await Checked.start(3)
    world.apply()
    await settle()
    assert repr(world.manager.health_checker) == "<HealthChecker endpoints=0 running=0>"
    assert world.clock.pending == 0
    await world.close()


async def test_closing_in_the_middle_of_a_round_leaves_nothing() -> None:
    world = Checked(MOST_AT_ONCE * 2, health_check=EVERY_5S)
    await asyncio.sleep(0)
    await world.close()
    await settle()
    assert world.clock.pending == 0


async def test_a_probe_that_raises_does_not_end_the_checks(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = Checked(1)
    verdicts: list[Any] = [RuntimeError("a bug"), Verdict(passed=True)]

    async def probe(*what: object) -> Verdict:
        verdict = verdicts.pop(0)
        if isinstance(verdict, Exception):
            raise verdict
        assert isinstance(verdict, Verdict)
        return verdict

    tasks = TaskSet("test")
    checker = world.manager.health_checker = HealthChecker(
        world.clock, random.Random(1), tasks, probe
    )
    world.change(EVERY_5S)
    await settle()
    assert world.health() is HealthState.UNCHECKED
    assert "a bug" in caplog.text
    await world.rounds(1)
    assert world.health() is HealthState.HEALTHY
    checker.forget(world.cluster)
    await tasks.close()
    await world.close()


# -- beside the breaker ------------------------------------------------------------------------------


@pytest.mark.parametrize(("unejects", "state"), [(True, "half-open"), (False, "open")])
async def test_a_passed_check_lets_one_request_try_an_ejected_endpoint(
    *, unejects: bool, state: str
) -> None:
    world = await Checked.start(
        1,
        outlier_detection=OutlierDetection(
            consecutive_gateway_failure=1, health_check_unejects=unejects
        ),
    )
    world.peer().say(UNAVAILABLE, OK)
    assert await world.get() == [503]
    assert world.endpoint().state.value == "open"
    await world.rounds(1)
    assert world.endpoint().state.value == state
    if unejects:
        assert await world.get() == [200]
        assert world.endpoint().state.value == "closed"
    await world.close()


async def test_both_causes_are_told() -> None:
    world = await Checked.start(
        1, outlier_detection=OutlierDetection(consecutive_gateway_failure=1)
    )
    world.peer().say(UNAVAILABLE)
    world.peer().on_check(UNAVAILABLE)
    assert await world.get() == [503]
    await world.rounds(3)
    assert world.endpoint().trouble == (
        "open (1 gateway failures in a row, the last: status 503) and unhealthy (3 health checks in "
        "a row failed, the last: /health answered 503, not 200-299)"
    )
    await world.close()


async def test_a_half_open_endpoint_that_is_unhealthy_gets_no_probe() -> None:
    world = await Checked.start(
        1, outlier_detection=OutlierDetection(consecutive_gateway_failure=1, base_ejection_time=20)
    )
    world.peer().say(UNAVAILABLE, OK)
    world.peer().on_check(UNAVAILABLE)
    assert await world.get() == [503]
    await world.rounds(5)
    assert world.endpoint().state.value == "half-open"
    assert world.usable == []
    world.peer().on_check(OK)
    await world.rounds(2)
    assert await world.get() == [200]
    await world.close()


async def test_a_cluster_without_checks_has_no_timer_and_no_task() -> None:
    world = World(3)
    assert world.clock.pending == 0
    assert repr(world.manager) == "<ClusterManager clusters=1 connections=0 tasks=0>"
    assert repr(world.manager.health_checker) == "<HealthChecker endpoints=0 running=0>"
    await world.close()
