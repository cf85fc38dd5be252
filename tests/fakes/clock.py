"""A clock that stands still until a test moves it."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class FakeTimer:
    """A scheduled call of a `FakeClock`."""

    def __init__(self, callback: Callable[..., object], args: tuple[object, ...]) -> None:
        self.callback = callback
        self.args = args
        self.cancelled = False

    def cancel(self) -> None:
        """Call it off."""
        self.cancelled = True


class FakeClock:
    """Implements `hms_addons.clock.Clock`; `advance()` is the only thing that moves it."""

    def __init__(self, monotonic: float = 1000.0, wall: float = 1_800_000_000.0) -> None:
        self._monotonic = monotonic
        self._wall = wall
        self._order = itertools.count()
        self._timers: list[tuple[float, int, FakeTimer]] = []

    def monotonic(self) -> float:
        """See `Clock`."""
        return self._monotonic

    def wall(self) -> float:
        """See `Clock`."""
        return self._wall

    def call_later(self, delay: float, callback: Callable[..., object], *args: object) -> FakeTimer:
        """See `Clock`."""
        timer = FakeTimer(callback, args)
        heapq.heappush(self._timers, (self._monotonic + delay, next(self._order), timer))
        return timer

    async def sleep(self, delay: float) -> None:
        """See `Clock`: ends when `advance()` has passed it."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = self.call_later(delay, lambda: future.done() or future.set_result(None))
        try:
            await future
        finally:
            timer.cancel()

    @property
    def pending(self) -> int:
        """Timers that are still set: 0 when nothing leaked."""
        return sum(not timer.cancelled for _, _, timer in self._timers)

    def step(self, seconds: float) -> None:
        """Set the wall clock forward or back; the monotonic one knows nothing of it."""
        self._wall += seconds

    def tick(self, seconds: float) -> None:
        """Move time and run what is due, without giving the loop a turn."""
        until = self._monotonic + seconds
        while self._timers and self._timers[0][0] <= until:
            when, _, timer = heapq.heappop(self._timers)
            self._wall += when - self._monotonic
            self._monotonic = when
            if not timer.cancelled:
                timer.callback(*timer.args)
        self._wall += until - self._monotonic
        self._monotonic = until

    async def advance(self, seconds: float) -> None:
        """Move time, run what is due, and let the tasks that were waiting for it run."""
        for _ in range(3):
            await asyncio.sleep(0)  # let tasks that have just begun reach their sleep
        self.tick(seconds)
        for _ in range(10):
            await asyncio.sleep(0)
