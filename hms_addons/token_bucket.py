"""Token buckets, one per key, in whole numbers: never a request more than was promised, nor one less.

Pure: the time is passed in. A bucket is one number, the moment at which it would be full again (GCRA,
the virtual scheduling form of the token bucket: ITU-T I.371), counted in nanoseconds times `requests`,
so that a token is exactly `per` nanoseconds of it whatever the rate is. A full bucket is one whose
moment has passed, so it can be forgotten, and a new key needs no entry before its first request.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, NamedTuple

NANOSECONDS: Final = 1_000_000_000

MAX_KEYS: Final = 10_000
"""Buckets that one limit remembers."""


class Rate(NamedTuple):
    """`requests` in each `per` nanoseconds, at most `burst` at once."""

    requests: int
    per: int
    burst: int

    @classmethod
    def of(cls, requests: int, per: float, burst: int) -> Rate:
        """The same with `per` in seconds."""
        return cls(requests, max(1, round(per * NANOSECONDS)), burst)


class KeyedBuckets:
    """The buckets of one limit.

    Memory is bounded: past `max_keys` the bucket that was used least lately is dropped, and its key
    begins with a full one when it comes again.

    Attributes:
        admitted, refused: requests, since it was made.
        dropped: buckets that were not full when they were dropped; above 0, somebody may have got
            more than the limit.
    """

    __slots__ = ("_full_at", "_max_keys", "_rate", "admitted", "dropped", "refused")

    def __init__(self, rate: Rate, max_keys: int = MAX_KEYS) -> None:
        self._rate = rate
        self._max_keys = max_keys
        self._full_at: OrderedDict[bytes, int] = OrderedDict()
        self.admitted = 0
        self.refused = 0
        self.dropped = 0

    def __len__(self) -> int:
        """Keys that are remembered."""
        return len(self._full_at)

    def __repr__(self) -> str:
        requests, per, burst = self._rate
        return (
            f"<KeyedBuckets {requests}/{per / NANOSECONDS:g}s burst={burst} keys={len(self)} "
            f"admitted={self.admitted} refused={self.refused} dropped={self.dropped}>"
        )

    def wait(self, key: bytes, now: int) -> int:
        """Nanoseconds until `key` can have a token, 0 if at once; takes none.

        A refusal counts as a use, so that whoever is being held back is not forgotten for it.

        Args:
            key: whose bucket.
            now: nanoseconds on a clock that never goes back.
        """
        full_at = self._full_at.get(key)
        if full_at is None:
            return 0
        requests, per, burst = self._rate
        lacking = full_at - now * requests - (burst - 1) * per
        if lacking <= 0:
            return 0
        self._full_at.move_to_end(key)
        return -(-lacking // requests)

    def take(self, key: bytes, now: int) -> None:
        """Take a token, which `wait` has just said there is."""
        requests, per, _ = self._rate
        scaled = now * requests
        full_at = self._full_at.get(key)
        if full_at is None:
            self._make_room(scaled)
            full_at = scaled
        self._full_at[key] = max(full_at, scaled) + per
        self._full_at.move_to_end(key)
        self.admitted += 1

    def refuse(self) -> None:
        """Count a request that was refused."""
        self.refused += 1

    def tokens(self, key: bytes, now: int) -> int:
        """Whole tokens that `key` has."""
        requests, per, burst = self._rate
        lacking = self._full_at.get(key, 0) - now * requests
        return burst if lacking <= 0 else burst - -(-lacking // per)

    def _make_room(self, scaled: int) -> None:
        """Forget up to two full buckets, so that they never pile up; and one more where it must be."""
        buckets = self._full_at
        for _ in range(2):
            if not buckets or next(iter(buckets.values())) > scaled:
                break
            buckets.popitem(last=False)
        if len(buckets) >= self._max_keys:
            _, full_at = buckets.popitem(last=False)
            self.dropped += full_at > scaled
