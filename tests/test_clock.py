from __future__ import annotations

import asyncio
import time

import pytest

from hms_addons.clock import SYSTEM_CLOCK, Clock, SystemClock, within
from tests.fakes.clock import FakeClock


def test_system_clock_reads_both_of_the_machines_clocks() -> None:
    assert SYSTEM_CLOCK.monotonic() == pytest.approx(time.monotonic(), abs=60)
    assert SYSTEM_CLOCK.wall() == pytest.approx(time.time(), abs=60)
    assert SYSTEM_CLOCK.monotonic() <= SYSTEM_CLOCK.monotonic()


async def test_system_timer_calls_back_on_the_loop_with_its_arguments() -> None:
    called: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()
    SystemClock().call_later(0.0, lambda *args: called.set_result(args), 7, "seven")
    assert await called == (7, "seven")


async def test_system_timer_can_be_called_off_and_called_off_again() -> None:
    calls: list[str] = []
    later: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    timer = SystemClock().call_later(0.0, calls.append, "cancelled")
    SystemClock().call_later(0.0, later.set_result, None)
    timer.cancel()
    await later
    timer.cancel()
    assert calls == []


async def test_system_sleep_waits_at_least_as_long_as_asked() -> None:
    clock = SystemClock()
    started = clock.monotonic()
    await clock.sleep(0.01)
    # The loop may fire a timer early by its clock's resolution, and by no more.
    assert clock.monotonic() - started >= 0.01 - time.get_clock_info("monotonic").resolution - 1e-6


def test_system_timer_outside_a_loop_says_so() -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        SystemClock().call_later(0.0, print)


# The fake must keep the promises of the real one, or tests that use it prove nothing.


async def test_fake_time_stands_still_until_moved_and_moves_both_clocks() -> None:
    clock: Clock = (fake := FakeClock(monotonic=5.0, wall=100.0))
    assert (clock.monotonic(), clock.wall()) == (5.0, 100.0)
    fake.tick(2.5)
    assert (clock.monotonic(), clock.wall()) == (7.5, 102.5)


def test_fake_timers_run_in_order_of_time_then_of_setting_and_see_their_own_time() -> None:
    clock = FakeClock(monotonic=0.0)
    seen: list[tuple[str, float]] = []
    for delay, name in [(2.0, "late"), (1.0, "first"), (1.0, "second"), (9.0, "never")]:
        clock.call_later(delay, lambda name: seen.append((name, clock.monotonic())), name)
    clock.tick(3.0)
    assert seen == [("first", 1.0), ("second", 1.0), ("late", 2.0)]
    assert (clock.monotonic(), clock.pending) == (3.0, 1)


def test_fake_timer_set_by_a_timer_runs_within_the_same_move() -> None:
    clock = FakeClock(monotonic=0.0)
    seen: list[float] = []

    def again() -> None:
        seen.append(clock.monotonic())
        clock.call_later(1.0, again)

    clock.call_later(1.0, again)
    clock.tick(3.5)
    assert seen == [1.0, 2.0, 3.0]


def test_fake_timer_that_was_called_off_does_not_run_and_is_not_pending() -> None:
    clock = FakeClock()
    timer = clock.call_later(1.0, pytest.fail, "it was called off")
    assert clock.pending == 1
    timer.cancel()
    assert clock.pending == 0
    clock.tick(2.0)


async def test_fake_sleepers_wake_when_their_time_has_come() -> None:
    clock = FakeClock()
    sleeper = asyncio.ensure_future(clock.sleep(10.0))
    await asyncio.sleep(0)
    await clock.advance(9.0)
    assert not sleeper.done()
    await clock.advance(1.0)
    assert sleeper.done()


async def test_fake_sleeper_that_is_cancelled_leaves_no_timer() -> None:
    clock = FakeClock()
    sleeper = asyncio.ensure_future(clock.sleep(10.0))
    await asyncio.sleep(0)
    assert clock.pending == 1
    sleeper.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sleeper
    assert clock.pending == 0


async def test_a_block_has_so_much_time_and_no_more() -> None:
    clock = FakeClock()

    async def wait() -> None:
        async with within(clock, 5):
            await asyncio.Event().wait()

    waiting = asyncio.ensure_future(wait())
    await clock.advance(4.9)
    assert not waiting.done()
    await clock.advance(0.2)
    with pytest.raises(TimeoutError):
        await waiting
    async with within(clock, 5):
        await asyncio.sleep(0)
    assert clock.pending == 0


async def test_a_cancelled_block_is_no_timeout() -> None:
    clock = FakeClock()

    async def wait() -> None:
        async with within(clock, 5):
            await asyncio.Event().wait()

    waiting = asyncio.ensure_future(wait())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert clock.pending == 0
