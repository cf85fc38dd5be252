"""A bound on how long plugins' hooks may keep somebody waiting; free for those that never wait.

A hook's awaitable is driven from here, so nothing is set up before it really suspends, and it can be
left behind: past the limit it is cancelled, has a moment to clean up, and is then closed, whatever it
catches. It runs in the caller's own task all the while, as what it awaits may depend on that
(`asyncio.timeout` does).
"""

from __future__ import annotations

import asyncio
import contextlib
from types import coroutine
from typing import TYPE_CHECKING, Any, Final

from hms_addons.errors import MeshError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from hms_addons.clock import Clock

CLEAN_UP: Final = 1.0
"""Seconds that a hook which is cancelled at its limit has left."""


class HookTimeoutError(MeshError):
    """A hook was not done in time; `seconds` is what it and those before it had together."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"not done within {seconds:g}s")
        self.seconds = seconds


class HookLimit:
    """What the hooks of one occasion may take together, from when the first of them suspends.

    Args:
        clock: time.
    """

    __slots__ = ("_clock", "_since")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since: float | None = None

    def __repr__(self) -> str:
        return f"<HookLimit {'unused' if self._since is None else f'since {self._since:.3f}'}>"

    @coroutine
    def wait(self, awaitable: Any, seconds: float) -> Generator[Any, Any, Any]:
        """What `awaitable` gives, if it is there before `seconds` are over.

        Raises:
            HookTimeoutError: it is not. That it has been cancelled may have changed nothing.
            asyncio.CancelledError: the caller was cancelled, also if the hook has swallowed that.
            BaseException: what the hook raises.
        """
        # A generator-based coroutine is awaitable, but has no `__await__`.
        begin = getattr(awaitable, "__await__", None)
        steps: Iterator[Any] = iter(awaitable) if begin is None else begin()
        try:
            pending = next(steps)
        except StopIteration as done:
            return done.value
        now = self._clock.monotonic()
        if self._since is None:
            self._since = now
        driver = _Driver(self._clock, seconds, self._since + seconds - now)
        return (yield from driver.run(steps, pending))


class _Driver:
    """Goes on with one awaitable that has suspended."""

    __slots__ = ("_before", "_clock", "_rings", "_seconds", "_task", "_timer")

    def __init__(self, clock: Clock, seconds: float, left: float) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - who suspends, does so in a task
        self._task = task
        self._before = task.cancelling()
        self._clock = clock
        self._seconds = seconds
        self._rings = 0
        self._timer = clock.call_later(max(0.0, left), self._ring)

    def _ring(self) -> None:
        """The time is up: cancel the hook; and once more, if it goes on regardless."""
        self._rings += 1
        if self._rings == 1:
            self._timer = self._clock.call_later(CLEAN_UP, self._ring)
        self._task.cancel()

    def run(self, steps: Iterator[Any], pending: Any) -> Generator[Any, Any, Any]:
        """Hand on what it waits for, and what comes of that, until it ends."""
        result = None
        try:
            while True:
                try:
                    yield pending
                except BaseException as error:  # noqa: BLE001 - handed on, whatever it is
                    pending = self._throw(steps, error)
                else:
                    pending = next(steps)
        except StopIteration as done:
            result = done.value
        except BaseException:
            self._stop()
            raise
        self._stop()
        return result

    def _throw(self, steps: Iterator[Any], error: BaseException) -> Any:
        if self._rings > 1 or isinstance(error, GeneratorExit) or not hasattr(steps, "throw"):
            if hasattr(steps, "close"):
                # RuntimeError: it ignored this as well.
                with contextlib.suppress(Exception):
                    steps.close()
            raise error
        return steps.throw(error)

    def _stop(self) -> None:
        """It has ended, however.

        Raises:
            HookTimeoutError, asyncio.CancelledError: that is why, or should have been.
        """
        self._timer.cancel()
        for _ in range(self._rings):
            self._task.uncancel()
        if self._task.cancelling() > self._before:
            raise asyncio.CancelledError
        if self._rings:
            raise HookTimeoutError(self._seconds)


def pass_cancellation(error: BaseException) -> None:
    """Raise `error` again if it is this task's own end, which is no plugin's fault.

    Plugins raise `CancelledError` too: a future or task that they await was cancelled. And
    `GeneratorExit`, which is ours only where a coroutine is closed that no task runs any more.
    """
    if not isinstance(error, asyncio.CancelledError | GeneratorExit):
        return
    try:
        task = asyncio.current_task()
    except RuntimeError:  # there is no loop any more
        task = None
    if isinstance(error, GeneratorExit):
        if task is None:
            raise error
    elif task is not None and task.cancelling():
        raise error
