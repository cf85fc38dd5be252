"""Injected time: the only place where the mesh reads a clock or sets a timer.

Everything that waits takes a `Clock`, so a test can hold time still and move it by hand
(`tests/fakes/clock.py`). Durations are seconds, as floats, everywhere in the code.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


class Timer(Protocol):
    """A scheduled call that can still be called off."""

    def cancel(self) -> None:
        """Call it off; a no-op when it already ran."""


class Clock(Protocol):
    """What the mesh asks of time."""

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back; for intervals."""

    def wall(self) -> float:
        """Seconds since the Unix epoch; for certificates, tokens and log lines."""

    def call_later(self, delay: float, callback: Callable[..., object], *args: object) -> Timer:
        """Call `callback(*args)` on the event loop in `delay` seconds."""

    async def sleep(self, delay: float) -> None:
        """Wait `delay` seconds; cancellable."""


class SystemClock:
    """The real clock, with timers on the running event loop."""

    # Bound as static methods of the C functions: one attribute look-up on the hot path, no frame.
    monotonic = staticmethod(time.monotonic)
    wall = staticmethod(time.time)

    def call_later(self, delay: float, callback: Callable[..., object], *args: object) -> Timer:
        """See `Clock.call_later`; must run inside the event loop."""
        return asyncio.get_running_loop().call_later(delay, callback, *args)

    async def sleep(self, delay: float) -> None:
        """See `Clock.sleep`."""
        await asyncio.sleep(delay)


SYSTEM_CLOCK: Clock = SystemClock()


@asynccontextmanager
async def within(clock: Clock, seconds: float) -> AsyncIterator[None]:
    """Cancel what is awaited in the block once `seconds` have passed on `clock`.

    `asyncio.timeout` on injected time. Not for the hot path, where one `call_later` is enough.

    Raises:
        TimeoutError: time was up.
    """
    async with asyncio.timeout(None) as timeout:
        timer = clock.call_later(seconds, timeout.reschedule, 0.0)
        try:
            yield
        finally:
            timer.cancel()
