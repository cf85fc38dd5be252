"""Thresholds: what is refused, who waits and in what order, and that no slot is ever lost."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hms_addons.config.snapshot import Thresholds
from hms_addons.upstream.circuit_breaker import (
    BreakerFullError,
    CircuitBreaker,
    WaitTimeoutError,
)
from tests.fakes.clock import FakeClock
from tests.fakes.upstream import settle

if TYPE_CHECKING:
    from collections.abc import Coroutine


def breaker(**limits: Any) -> CircuitBreaker:
    return CircuitBreaker("cluster auth-svc", Thresholds(**limits), random.Random(7))


def test_requests_past_the_limit_are_refused_at_once() -> None:
    b = breaker(max_requests=2)
    b.begin_request()
    b.begin_request()
    with pytest.raises(BreakerFullError, match="cluster auth-svc: max_requests 2 is reached"):
        b.begin_request()
    assert b.overflows == 1
    b.end_request()
    b.begin_request()


@pytest.mark.parametrize(
    ("active", "threshold", "allowed"),
    [(0, 3, 3), (1, 3, 3), (15, 3, 3), (20, 3, 4), (100, 3, 20), (100, 50, 50), (100, 0, 0)],
)
def test_the_retry_budget(active: int, threshold: int, allowed: int) -> None:
    """max(3, 20% of the active requests); the threshold is the 3."""
    b = breaker(max_retries=threshold)
    for _ in range(active):
        b.begin_request()
    assert sum(b.try_retry() for _ in range(active + 60)) == allowed


async def take(b: CircuitBreaker, clock: FakeClock, deadline: float | None = None) -> None:
    if not b.try_connection():
        await b.wait_connection(clock, deadline)


class Queue:
    """Tasks that want a slot, and the order in which they got one."""

    def __init__(self, b: CircuitBreaker, clock: FakeClock) -> None:
        self.breaker = b
        self.clock = clock
        self.served: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def join(self, name: str, deadline: float | None = None) -> None:
        async def wait() -> None:
            await take(self.breaker, self.clock, deadline)
            self.served.append(name)

        self.tasks[name] = asyncio.create_task(wait())
        await settle(3)


async def test_first_come_first_served() -> None:
    b, clock = breaker(max_connections=1), FakeClock()
    queue = Queue(b, clock)
    for name in "abc":
        await queue.join(name)
    assert (queue.served, b.pending) == (["a"], 2)
    b.end_connection()
    await settle(3)
    assert queue.served == ["a", "b"]
    # Somebody new does not overtake.
    await queue.join("d")
    b.end_connection()
    await settle(3)
    assert queue.served == ["a", "b", "c"]
    b.end_connection()
    await settle(3)
    b.end_connection()
    assert queue.served == ["a", "b", "c", "d"]
    assert b.idle


async def test_a_full_queue_refuses_at_once() -> None:
    b, clock = breaker(max_connections=1, max_pending_requests=1), FakeClock()
    queue = Queue(b, clock)
    await queue.join("a")
    await queue.join("b")
    with pytest.raises(BreakerFullError, match="max_pending_requests 1"):
        await take(b, clock)
    b.end_connection()
    await queue.tasks["b"]
    b.end_connection()
    assert b.idle


async def test_the_wait_ends_at_the_deadline() -> None:
    b, clock = breaker(max_connections=1), FakeClock()
    assert b.try_connection()
    queue = Queue(b, clock)
    await queue.join("b", clock.monotonic() + 5)
    await clock.advance(4.9)
    assert not queue.tasks["b"].done()
    await clock.advance(0.1)
    with pytest.raises(WaitTimeoutError, match="no connection came free in time"):
        await queue.tasks["b"]
    assert (b.pending, b.connections, clock.pending) == (0, 1, 0)


async def test_a_cancelled_waiter_leaves_the_queue() -> None:
    b, clock = breaker(max_connections=1), FakeClock()
    queue = Queue(b, clock)
    for name in "abc":
        await queue.join(name)
    queue.tasks["b"].cancel()
    await settle(3)
    assert b.pending == 1
    b.end_connection()
    await settle(3)
    assert queue.served == ["a", "c"]
    b.end_connection()
    assert b.idle


async def test_a_slot_that_comes_with_the_cancellation_is_not_lost() -> None:
    b, clock = breaker(max_connections=1), FakeClock()
    queue = Queue(b, clock)
    for name in "abc":
        await queue.join(name)
    b.end_connection()  # b has it now, but has not run yet
    queue.tasks["b"].cancel()
    await settle(5)
    assert queue.served == ["a", "c"]
    b.end_connection()
    assert b.idle


async def test_more_room_lets_the_waiting_in() -> None:
    b, clock = breaker(max_connections=1), FakeClock()
    queue = Queue(b, clock)
    for name in "abcd":
        await queue.join(name)
    b.replace_thresholds(Thresholds(max_connections=3))
    await settle(3)
    assert (queue.served, b.connections, b.pending) == (["a", "b", "c"], 3, 1)
    queue.tasks["d"].cancel()
    await settle(3)


async def test_less_room_hands_nothing_on_until_it_fits() -> None:
    b, clock = breaker(max_connections=3), FakeClock()
    queue = Queue(b, clock)
    for name in "abcd":
        await queue.join(name)
    b.replace_thresholds(Thresholds(max_connections=1))
    for left in (2, 1):
        b.end_connection()
        await settle(3)
        assert (b.connections, queue.served) == (left, ["a", "b", "c"])
    b.end_connection()
    await settle(3)
    assert (b.connections, queue.served) == (1, ["a", "b", "c", "d"])


STEPS = st.lists(
    st.tuples(st.sampled_from(["join", "end", "cancel", "time", "limit"]), st.integers(0, 30)),
    max_size=60,
)


@given(STEPS)
def test_slots_are_conserved(steps: list[tuple[str, int]]) -> None:
    """Whatever happens in whatever order: as many in use as holders, and in the end none."""
    run(play(steps))


def run(coro: Coroutine[None, None, None]) -> None:
    asyncio.run(coro)


async def play(steps: list[tuple[str, int]]) -> None:
    b, clock = breaker(max_connections=3, max_pending_requests=4), FakeClock()
    tasks: list[asyncio.Task[None]] = []
    ended = 0

    def holders() -> int:
        return sum(t.done() and not t.cancelled() and t.exception() is None for t in tasks) - ended

    for step, n in steps:
        if step == "join":
            tasks.append(asyncio.create_task(take(b, clock, clock.monotonic() + 5)))
        elif step == "cancel" and tasks:
            tasks[n % len(tasks)].cancel()
        elif step == "time":
            clock.tick(n / 4)
        elif step == "limit":
            b.replace_thresholds(Thresholds(max_connections=n % 5, max_pending_requests=4))
        elif step == "end" and holders():
            ended += 1
            b.end_connection()
        if n % 2:
            await settle(4)
            assert b.connections == holders()
    await settle(4)
    assert b.connections == holders()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    while holders():
        ended += 1
        b.end_connection()
    assert b.idle
    assert clock.pending == 0


def test_repr_and_description() -> None:
    b = breaker(max_requests=9)
    b.begin_request()
    assert b.try_connection()
    assert repr(b) == (
        "<CircuitBreaker cluster auth-svc requests=1/9 connections=1/1024 pending=0/1024 "
        "retries=0/3>"
    )
    assert b.describe() == {
        "connections": {"in_use": 1, "max": 1024},
        "pending_requests": {"in_use": 0, "max": 1024},
        "requests": {"in_use": 1, "max": 9},
        "retries": {"in_use": 0, "max": 3},
        "overflows": {
            "max_pending_requests": 0,
            "max_requests": 0,
            "adaptive": 0,
            "max_retries": 0,
        },
        "overflows_total": 0,
    }
