"""What a plugin waits for is bounded, and costs nothing unless it waits."""

from __future__ import annotations

import asyncio
import types
from typing import TYPE_CHECKING, Any

import pytest

from hms_addons.engine.hook_limit import CLEAN_UP, HookLimit, HookTimeoutError, pass_cancellation
from tests.fakes.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


async def forever() -> None:
    await asyncio.Event().wait()


def run(clock: FakeClock, awaitable: Any, seconds: float = 15.0) -> asyncio.Task[Any]:
    async def main() -> Any:
        return await HookLimit(clock).wait(awaitable, seconds)

    return asyncio.create_task(main())


class Timers(FakeClock):
    """A clock that counts the timers set."""

    set = 0

    def call_later(self, *arguments: Any) -> Any:
        self.set += 1
        return super().call_later(*arguments)


async def test_what_does_not_suspend_costs_no_timer() -> None:
    clock = Timers()

    async def ready() -> str:
        return "at once"

    limit = HookLimit(clock)
    assert await limit.wait(ready(), 1.0) == "at once"
    assert clock.set == 0
    assert repr(limit) == "<HookLimit unused>"


async def test_what_suspends_goes_on_in_the_same_task(clock: FakeClock) -> None:
    async def hook() -> Any:
        before = asyncio.current_task()
        async with asyncio.timeout(60):
            await asyncio.sleep(0)
            future = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_soon(future.set_result, "value")
            value = await future
        assert asyncio.current_task() is before
        return value

    assert await run(clock, hook()) == "value"
    assert clock.pending == 0


async def test_every_kind_of_awaitable(clock: FakeClock) -> None:
    class Own:
        def __await__(self) -> Iterator[None]:
            return iter([None, None])

    @types.coroutine
    def generator() -> Generator[None, None, str]:
        yield
        return "generated"

    future = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(future.set_result, 1)
    assert await run(clock, future) == 1
    assert await run(clock, asyncio.sleep(0, 2)) == 2
    assert await run(clock, generator()) == "generated"
    assert await run(clock, Own()) is None
    hanging = run(clock, Own())
    await asyncio.sleep(0)
    hanging.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hanging


async def test_past_the_limit_it_is_cancelled(clock: FakeClock) -> None:
    cleaned = []

    async def hook() -> None:
        try:
            await forever()
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    task = run(clock, hook(), 2.0)
    await clock.advance(1.9)
    assert not task.done()
    await clock.advance(0.2)
    with pytest.raises(HookTimeoutError, match="not done within 2s"):
        await task
    assert cleaned
    assert task.cancelling() == 0
    assert clock.pending == 0


async def test_several_share_one_limit(clock: FakeClock) -> None:
    async def main() -> None:
        limit = HookLimit(clock)
        for _ in range(3):
            await limit.wait(clock.sleep(4), 10.0)

    task = asyncio.create_task(main())
    for _ in range(3):
        await clock.advance(4)
    with pytest.raises(HookTimeoutError):
        await task


async def test_one_that_catches_everything_is_left_behind(clock: FakeClock) -> None:
    caught = []

    async def stubborn() -> None:
        for _ in range(3):  # the third time, it is the collector that wants to be rid of it
            try:
                await forever()
            except BaseException as error:  # noqa: BLE001 - the point of it
                caught.append(type(error))

    task = run(clock, stubborn(), 2.0)
    await clock.advance(2.1)
    assert not task.done()
    await clock.advance(CLEAN_UP)
    with pytest.raises(HookTimeoutError):
        await task
    assert caught[:2] == [asyncio.CancelledError, GeneratorExit]
    assert task.cancelling() == 0


async def test_one_that_swallows_its_limit_and_returns_is_late_all_the_same(
    clock: FakeClock,
) -> None:
    async def hook() -> str:
        try:
            await forever()
        except asyncio.CancelledError:
            return "allowed"
        return "never"

    task = run(clock, hook(), 2.0)
    await clock.advance(2.1)
    with pytest.raises(HookTimeoutError):
        await task


@pytest.mark.parametrize("swallows", [False, True])
async def test_a_real_cancellation_goes_through(clock: FakeClock, swallows: bool) -> None:
    async def hook() -> None:
        try:
            await forever()
        except asyncio.CancelledError:
            if not swallows:
                raise

    task = run(clock, hook())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert clock.pending == 0


async def test_a_real_cancellation_after_the_limit_goes_through(clock: FakeClock) -> None:
    async def slow_to_leave() -> None:
        try:
            await forever()
        finally:
            await forever()

    task = run(clock, slow_to_leave(), 2.0)
    await clock.advance(2.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert clock.pending == 0


async def test_what_a_hook_raises_comes_through(clock: FakeClock) -> None:
    async def hook() -> None:
        await asyncio.sleep(0)
        raise KeyError("x")

    with pytest.raises(KeyError):
        await run(clock, hook())


async def test_whose_cancellation_it_is() -> None:
    pass_cancellation(ValueError())
    pass_cancellation(asyncio.CancelledError())  # nobody has cancelled this task

    async def cancelled() -> None:
        try:
            await forever()
        except asyncio.CancelledError as error:
            pass_cancellation(error)

    task = asyncio.create_task(cancelled())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
