"""Which leases there are and when each ends, by a clock that is never set.

Only the deadlines live here; to renew one is to write a number. What a lease ends is the store's.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from hms_addons.lazy_timer import LazyTimer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hms_addons.clock import Clock

logger = logging.getLogger(__name__)

_STALL: Final = 1.0
"""Seconds by which a timer may be late before we take it that this process stood still."""
_EARLY: Final = 0.001
"""Seconds that a timer may be early (`LazyTimer`)."""


class Leases:
    """The leases of one store.

    Args:
        clock: time and timers.
        ttls: those there are at the start, with their TTLs in seconds; each begins anew.

    Attributes:
        on_end: called with the leases that have run out and their TTLs, all at once; they are
            forgotten by then.
    """

    __slots__ = ("_clock", "_ends", "_planned", "_timer", "_ttls", "on_end")

    def __init__(self, clock: Clock, ttls: Mapping[str, float]) -> None:
        self._clock = clock
        self.on_end: Callable[[Mapping[str, float]], object] = lambda _: None
        self._ttls = dict(ttls)
        now = clock.monotonic()
        self._ends = {lease: now + ttl for lease, ttl in ttls.items()}
        self._timer = LazyTimer(clock, self._end)
        self._planned = 0.0  # when the timer is to run; meaningless without one
        self._schedule()

    def __repr__(self) -> str:
        return f"<Leases {len(self._ends)}>"

    def __len__(self) -> int:
        return len(self._ends)

    def add(self, lease: str, ttl: float) -> None:
        """There is a new one; it ends `ttl` seconds from now."""
        self._ttls[lease] = ttl
        self._ends[lease] = self._clock.monotonic() + ttl
        self._schedule(self._ends[lease])

    def renew(self, lease: str) -> bool:
        """Let it begin anew; False when there is none."""
        ttl = self._ttls.get(lease)
        if ttl is None:
            return False
        self._ends[lease] = self._clock.monotonic() + ttl
        return True

    def remove(self, lease: str) -> float | None:
        """Forget it; its TTL, or None when there was none."""
        self._ends.pop(lease, None)
        return self._ttls.pop(lease, None)

    def close(self) -> None:
        """Let go of the timer: nothing ends any more."""
        self._timer.close()

    def _schedule(self, end: float | None = None) -> None:
        if end is None:
            end = min(self._ends.values(), default=None)
        if end is None:
            return
        due = self._timer.deadline
        if due is None or end < due:
            self._planned = end
            self._timer.set(end)

    def _end(self) -> None:
        # Renewals leave the timer alone, so it may find nothing to do and only looks for the next.
        now = self._clock.monotonic()
        late = now - self._planned
        if late > _STALL:
            # Nobody could be heard meanwhile, as in an outage: all begin anew (a paused machine).
            logger.warning("this process stood still for %.1f s; all leases begin anew", late)
            self._ends = {lease: now + ttl for lease, ttl in self._ttls.items()}
        due = [lease for lease, end in self._ends.items() if end <= now + _EARLY]
        ended = {lease: self._ttls[lease] for lease in due}
        for lease in ended:
            self.remove(lease)
        self._schedule()
        if ended:
            self.on_end(ended)
