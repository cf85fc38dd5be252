"""Token buckets, one a caller, in a table that cannot grow without bound."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Hashable

    from hms_addons.clock import Clock

MAX_CALLERS: Final = 10_000
"""Callers remembered. Whoever is forgotten begins with a full bucket again, which is what a caller
that was not heard of for so long has anyway."""


class Rate(NamedTuple):
    """How often one caller may call."""

    per_second: float
    burst: float
    """Calls at once, after a pause."""


class _Bucket:
    __slots__ = ("filled", "tokens")

    def __init__(self, tokens: float, filled: float) -> None:
        self.tokens = tokens
        self.filled = filled


class RateLimiter:
    """Takes one token a call from the caller's bucket.

    Args:
        clock: time, injected.
        max_callers: buckets kept; past it the caller that was heard of longest ago is forgotten.
    """

    __slots__ = ("_buckets", "_clock", "_max_callers")

    def __init__(self, clock: Clock, max_callers: int = MAX_CALLERS) -> None:
        self._clock = clock
        self._max_callers = max_callers
        self._buckets: OrderedDict[Hashable, _Bucket] = OrderedDict()

    def __repr__(self) -> str:
        return f"<RateLimiter callers={len(self._buckets)}>"

    def take(self, caller: Hashable, rate: Rate) -> float:
        """Take a token.

        Returns:
            0 if there was one; else the seconds after which there will be.
        """
        now = self._clock.monotonic()
        bucket = self._buckets.get(caller)
        if bucket is None:
            bucket = self._buckets[caller] = _Bucket(rate.burst, now)
            if len(self._buckets) > self._max_callers:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(caller)
            gained = (now - bucket.filled) * rate.per_second
            bucket.tokens = min(rate.burst, bucket.tokens + gained)
            bucket.filled = now
        if bucket.tokens >= 1:
            bucket.tokens -= 1
            return 0.0
        return (1 - bucket.tokens) / rate.per_second
