"""What happened lately, kept once for all who watch, and bounded.

A watch is only a position in the history. So a slow reader costs nothing, and a thousand readers
cost no more memory than one; whoever falls behind what is kept is told to read everything again.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from typing import TYPE_CHECKING, Final

from hms_addons.control.store.protocol import CompactedError, StoreClosedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from hms_addons.control.store.protocol import Event

MAX_EVENTS: Final = 10_000
MAX_BYTES: Final = 32 * 1024 * 1024
"""Bounds on what is kept; the latest batch is, whatever its size."""
_KEPT: Final = 0.75
"""Share of a bound that is left after a cut, so that cuts are rare."""
_OVERHEAD: Final = 200
"""Bytes that an event takes besides its key and value, about."""


class History:
    """The events after `floor`, up to `revision`.

    Args:
        revision: the store's revision at the start; nothing before it is known.
        max_events: most events kept.
        max_bytes: most bytes kept, about.
    """

    def __init__(
        self, revision: int, *, max_events: int = MAX_EVENTS, max_bytes: int = MAX_BYTES
    ) -> None:
        self.revision = revision
        """The store's, as far as it is known to be on disk."""
        self._floor = revision
        self._events: list[Event] = []
        self._dropped = 0
        """Events that were cut off before the first that is kept: positions count from there."""
        self._bytes = 0
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._news = asyncio.Event()
        self._closed = False

    def __repr__(self) -> str:
        return f"<History {len(self._events)} events after {self._floor}, now {self.revision}>"

    def add(self, events: Sequence[Event]) -> None:
        """Take the events of one batch, and wake whoever waits."""
        self._events.extend(events)
        self._bytes += sum(map(_size, events))
        self.revision = max(self.revision, events[-1].revision)
        if len(self._events) > self._max_events or self._bytes > self._max_bytes:
            self._cut(events[-1].revision)
        self._wake()

    def close(self) -> None:
        """End every watch."""
        self._closed = True
        self._wake()

    async def follow(self, prefix: str, after: int) -> AsyncIterator[tuple[Event, ...]]:
        """See `Store.watch`."""
        if after > self.revision or after < self._floor:
            raise CompactedError(self.revision)
        position = self._dropped + bisect_right(self._events, after, key=_revision)
        while True:
            if self._closed:
                raise StoreClosedError("the store was closed, and the watch with it")
            if position < self._dropped:
                raise CompactedError(self.revision)
            if position - self._dropped == len(self._events):
                await self._news.wait()
                continue
            batch = self._batch(position - self._dropped)
            position += len(batch)
            wanted = tuple(event for event in batch if event.key.startswith(prefix))
            if wanted:
                yield wanted

    def _batch(self, index: int) -> list[Event]:
        """The events of one revision, the first of which is at `index`."""
        end = bisect_right(self._events, self._events[index].revision, lo=index, key=_revision)
        return self._events[index:end]

    def _wake(self) -> None:
        # Each waiter holds the event that it waits for; the next ones wait for a new one.
        self._news.set()
        self._news = asyncio.Event()

    def _cut(self, latest: int) -> None:
        """Drop the oldest batches, whole ones only; never the latest."""
        events, size, cut = self._events, self._bytes, 0
        while (
            len(events) - cut > self._max_events * _KEPT or size > self._max_bytes * _KEPT
        ) and events[cut].revision != latest:
            revision = events[cut].revision
            while events[cut].revision == revision:
                size -= _size(events[cut])
                cut += 1
            self._floor = revision
        del events[:cut]
        self._dropped += cut
        self._bytes = size


def _revision(event: Event) -> int:
    return event.revision


def _size(event: Event) -> int:
    return len(event.key) + len(event.value or b"") + _OVERHEAD
