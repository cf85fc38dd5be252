"""A deadline that can be moved for next to nothing.

A connection sets and clears a deadline for every request. With one `call_later` each, every request
would push a handle onto the event loop's heap and leave it there, cancelled. A `LazyTimer` keeps at
most one handle: moving the deadline later, or clearing it, only writes an attribute, and the handle
finds out when it runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from hms_addons.clock import Clock, Timer

_RESOLUTION: Final = 0.001
"""Event loops run timers up to a clock tick early (asyncio) or a millisecond (uvloop)."""


class LazyTimer:
    """Calls `callback()` once when the deadline that was last set has passed.

    After it has fired it may be set again, also from the callback itself.

    Args:
        clock: time and timers.
        callback: what to call; must not raise.
    """

    __slots__ = ("_callback", "_clock", "_deadline", "_due", "_timer")

    def __init__(self, clock: Clock, callback: Callable[[], object]) -> None:
        self._clock = clock
        self._callback = callback
        self._deadline: float | None = None
        self._timer: Timer | None = None
        self._due = 0.0  # when `_timer` runs; meaningless without one

    def __repr__(self) -> str:
        if self._deadline is None:
            return f"<LazyTimer {'clear' if self._timer is None else 'clear, still armed'}>"
        return f"<LazyTimer in {self._deadline - self._clock.monotonic():.3f}s>"

    @property
    def deadline(self) -> float | None:
        """Monotonic seconds; None when there is none."""
        return self._deadline

    def set(self, deadline: float) -> None:
        """Fire at `deadline` (monotonic seconds), instead of at any deadline set before."""
        self._deadline = deadline
        timer = self._timer
        if timer is not None:
            if self._due <= deadline:
                return
            timer.cancel()
        self._arm(deadline)

    def clear(self) -> None:
        """There is no deadline any more."""
        self._deadline = None

    def close(self) -> None:
        """Clear it and let go of the event loop; it may be set again."""
        self._deadline = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, deadline: float) -> None:
        self._due = deadline
        delay = deadline - self._clock.monotonic()
        self._timer = self._clock.call_later(max(delay, 0.0), self._run)

    def _run(self) -> None:
        self._timer = None
        deadline = self._deadline
        if deadline is None:
            return
        if deadline - self._clock.monotonic() > _RESOLUTION:
            self._arm(deadline)
            return
        self._deadline = None
        self._callback()
