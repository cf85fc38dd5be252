"""Limits at the forward phase, to the exact number: N + k requests against N give k refusals."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from hms_addons.config.snapshot import RetryPolicy, Thresholds
from hms_addons.config.snapshot_health import AdaptiveConcurrency
from hms_addons.errors import ExchangeFailed, Flag
from tests.fakes.upstream import OK, SILENCE, UNAVAILABLE, World, settle

if TYPE_CHECKING:
    from hms_addons.errors import Failure
    from hms_addons.http_message import Answer
    from hms_addons.upstream.circuit_breaker import CircuitBreaker


class Burst:
    """Requests that all begin in one moment at an upstream that answers when it is told to."""

    def __init__(self, world: World, count: int) -> None:
        self.world = world
        for number in range(1, len(world.cluster.endpoints) + 1):
            world.peer(number).say(SILENCE)
        self.tasks = [asyncio.create_task(self._one()) for _ in range(count)]
        self.failures: list[Failure] = []
        self.statuses: list[int] = []

    async def _one(self) -> None:
        try:
            answer: Answer = await self.world.forward()
        except ExchangeFailed as error:
            self.failures.append(error.failure)
        else:
            self.statuses.append(answer.status)

    async def answered(self) -> None:
        """Answer all that has arrived, and what comes after it, until everything has ended."""
        world = self.world
        while not all(task.done() for task in self.tasks):
            await settle()
            for number in range(1, len(world.cluster.endpoints) + 1):
                for transport in world.peer(number).transports:
                    if not transport.closing:
                        transport.protocol.data_received(OK)
        await settle()


@pytest.mark.parametrize("where", ["cluster", "route"])
@pytest.mark.parametrize(("limit", "more"), [(1, 1), (7, 5), (50, 30)])
async def test_max_requests_refuses_exactly_what_is_more(where: str, limit: int, more: int) -> None:
    limits = Thresholds(max_requests=limit)
    world = (
        World(2, thresholds=limits)
        if where == "cluster"
        else World(2, route={"thresholds": limits})
    )
    burst = Burst(world, limit + more)
    await settle()
    assert len(burst.failures) == more, "at once, while the others still wait for their answers"
    name = "cluster auth-svc" if where == "cluster" else "route verify-id"
    for failure in burst.failures:
        assert (failure.status, failure.flag) == (503, Flag.UO)
        assert f": {name}: max_requests {limit} is reached; send less" in failure.detail
    await burst.answered()
    assert burst.statuses == [200] * limit
    (breaker,) = refusing(world)
    assert breaker.describe()["overflows"]["max_requests"] == more
    world.check_quiet()
    await world.close()


@pytest.mark.parametrize("where", ["cluster", "route"])
@pytest.mark.parametrize(("connections", "pending", "more"), [(1, 0, 4), (3, 2, 5), (10, 10, 1)])
async def test_max_connections_carry_max_pending_wait_and_the_rest_is_refused(
    where: str, connections: int, pending: int, more: int
) -> None:
    limits = Thresholds(max_connections=connections, max_pending_requests=pending)
    world = (
        World(2, thresholds=limits)
        if where == "cluster"
        else World(2, route={"thresholds": limits})
    )
    burst = Burst(world, connections + pending + more)
    await settle()
    (breaker,) = refusing(world)
    assert (breaker.connections, breaker.pending, len(burst.failures)) == (
        connections,
        pending,
        more,
    )
    assert world.connector.open == connections
    assert {failure.flag for failure in burst.failures} == {Flag.UO}
    assert f"max_pending_requests {pending} is reached" in burst.failures[0].detail
    await burst.answered()
    assert burst.statuses == [200] * (connections + pending)
    assert breaker.describe()["overflows"]["max_pending_requests"] == more
    world.check_quiet()
    await world.close()


@pytest.mark.parametrize("where", ["cluster", "route"])
@pytest.mark.parametrize(("limit", "requests"), [(0, 4), (2, 6), (3, 3)])
async def test_max_retries_lets_exactly_so_many_retry_at_once(
    where: str, limit: int, requests: int
) -> None:
    """Who finds the budget spent is given the answer it has, without `URX`; `UO` is counted."""
    limits = Thresholds(max_retries=limit)
    policy = RetryPolicy(attempts=1)
    world = (
        World(2, retry=policy, thresholds=limits, outlier_detection=None)
        if where == "cluster"
        else World(2, retry=policy, route={"thresholds": limits}, outlier_detection=None)
    )
    for number in (1, 2):
        world.peer(number).say(UNAVAILABLE)
    exchanges = [world.exchange() for _ in range(requests)]
    tasks = [asyncio.create_task(world.forward(exchange)) for exchange in exchanges]
    await settle(40)
    await world.clock.advance(1)
    await settle(40)
    assert [(await task).status for task in tasks] == [503] * requests
    retried = min(limit, requests)
    assert sum(len(exchange.attempts) == 2 for exchange in exchanges) == retried
    assert sum(exchange.flag is Flag.URX for exchange in exchanges) == retried
    breakers = {breaker.name: breaker for breaker in all_breakers(world)}
    name = "cluster auth-svc" if where == "cluster" else "route verify-id"
    assert breakers[name].describe()["overflows"]["max_retries"] == requests - retried
    assert breakers[name].describe()["retries"]["in_use"] == 0
    world.check_quiet()
    await world.close()


def all_breakers(world: World) -> list[CircuitBreaker]:
    return [world.cluster.breaker, *world.manager._route_breakers.breakers]


def refusing(world: World) -> list[CircuitBreaker]:
    """The breakers that have limits of their own or have refused something."""
    routes = world.manager._route_breakers.breakers
    return routes or [world.cluster.breaker]


# -- adaptive concurrency ----------------------------------------------------------------------------


ADAPTIVE = Thresholds(adaptive=AdaptiveConcurrency(min_limit=3, min_rtt_requests=3))


@pytest.mark.parametrize("where", ["cluster", "route"])
async def test_what_is_more_than_the_adaptive_limit_is_refused_by_name(where: str) -> None:
    world = (
        World(2, thresholds=ADAPTIVE)
        if where == "cluster"
        else World(2, route={"thresholds": ADAPTIVE})
    )
    burst = Burst(world, 5)
    await settle()
    assert len(burst.failures) == 2
    name = "cluster auth-svc" if where == "cluster" else "route verify-id"
    (failure, _) = burst.failures
    assert (failure.status, failure.flag) == (503, Flag.UO)
    assert f"{name}: its adaptive limit, which is 3 now, is reached" in failure.detail
    await burst.answered()
    (breaker,) = refusing(world)
    described = breaker.describe()
    assert described["requests"] == {"in_use": 0, "max": 3}
    assert described["overflows"]["adaptive"] == 2
    assert described["adaptive"]["measuring"] is False
    world.check_quiet()
    await world.close()


async def slow_get(world: World, seconds: float) -> None:
    world.peer().say(SILENCE)
    task = asyncio.create_task(world.forward())
    await world.clock.advance(seconds)
    world.peer().transports[-1].protocol.data_received(OK)
    await task


async def test_the_limit_follows_the_latency_of_answers() -> None:
    world = World(thresholds=ADAPTIVE)
    for _ in range(3):
        await slow_get(world, 0.01)
    for _ in range(60):
        await slow_get(world, 0.01)
    limit = world.cluster.breaker.request_limit
    assert limit > 10
    for _ in range(4):
        await slow_get(world, 0.2)
    assert world.cluster.breaker.request_limit < limit / 2
    await world.close()


async def test_a_timeout_counts_as_slow_and_a_client_that_leaves_not_at_all() -> None:
    world = World(thresholds=ADAPTIVE, route={"timeout": 1.0})
    for _ in range(3):
        await slow_get(world, 0.01)
    controller = world.cluster.breaker.adaptive
    assert controller is not None
    world.peer().say(SILENCE)
    leaving = asyncio.create_task(world.forward())
    await world.clock.advance(0.5)
    leaving.cancel()
    await settle()
    assert controller.describe()["sample_rtt_seconds"] is None
    late = asyncio.create_task(world.forward())
    await settle()
    await world.clock.advance(1.0)
    with pytest.raises(ExchangeFailed) as caught:
        await late
    assert caught.value.failure.flag is Flag.UT
    assert controller.describe()["sample_rtt_seconds"] == pytest.approx(1.0)
    await world.close()


async def test_max_requests_is_above_the_adaptive_limit() -> None:
    adaptive = AdaptiveConcurrency(min_limit=1, min_rtt_requests=1)
    world = World(thresholds=Thresholds(max_requests=5, adaptive=adaptive))
    for _ in range(200):
        await slow_get(world, 0.01)
    controller = world.cluster.breaker.adaptive
    assert controller is not None
    assert controller.limit > 5
    burst = Burst(world, 6)
    await settle()
    assert len(burst.failures) == 1
    assert "max_requests 5 is reached" in burst.failures[0].detail
    await burst.answered()
    await world.close()


# -- recovery ----------------------------------------------------------------------------------------


async def test_recovery_takes_exactly_one_probe() -> None:
    """When its time is up one request tries; while it does, others are refused; then all is well."""
    world = World(1)
    world.peer().say(UNAVAILABLE)
    assert await world.get(5) == [503] * 5
    assert world.endpoint().state.value == "open"
    await world.clock.advance(30)
    seen = len(world.peer().requests)
    burst = Burst(world, 10)
    await settle()
    assert len(world.peer().requests) == seen + 1, "one request, whatever wants to go there"
    assert [failure.flag for failure in burst.failures] == [Flag.UH] * 9
    await burst.answered()
    assert burst.statuses == [200]
    assert world.endpoint().state.value == "closed"
    world.peer().say(OK)
    assert await world.get(10) == [200] * 10, "its success closes the breaker at once"
    assert world.endpoint().successes == 11
    await world.close()
