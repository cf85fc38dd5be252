from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hms_addons.control.store.history import History
from hms_addons.control.store.protocol import CompactedError, Event, StoreClosedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


async def taken(watch: AsyncIterator[tuple[Event, ...]], count: int) -> list[Event]:
    return [event for _ in range(count) for event in await anext(watch)]


def fill(history: History, first: int, last: int, size: int = 0) -> None:
    for revision in range(first, last + 1):
        history.add([Event("k", b"x" * size, revision)])


async def revisions(watch: AsyncIterator[tuple[Event, ...]], count: int) -> list[int]:
    return [event.revision for event in await taken(watch, count)]


async def test_it_remembers_from_its_start_on() -> None:
    history = History(5)
    fill(history, 6, 8)
    assert repr(history) == "<History 3 events after 5, now 8>"
    assert await revisions(history.follow("", 5), 3) == [6, 7, 8]
    with pytest.raises(CompactedError):
        await anext(history.follow("", 4))


async def test_the_number_of_events_is_bounded() -> None:
    history = History(0, max_events=100)
    fill(history, 1, 1000)
    assert len(history._events) <= 100
    newest = await revisions(history.follow("", 950), 50)
    assert newest == list(range(951, 1001))


async def test_their_bytes_are_bounded() -> None:
    history = History(0, max_bytes=100_000)
    fill(history, 1, 1000, size=1000)
    assert sum(len(event.value or b"") for event in history._events) <= 100_000
    assert history._bytes == sum(len(e.value or b"") + 201 for e in history._events)
    assert await revisions(history.follow("", 990), 10) == list(range(991, 1001))


async def test_the_latest_batch_is_kept_whatever_its_size() -> None:
    history = History(0, max_events=10, max_bytes=1000)
    fill(history, 1, 5)
    history.add([Event(f"k{n}", b"x" * 100, 6) for n in range(50)])
    assert await revisions(history.follow("", 5), 1) == [6] * 50
    fill(history, 7, 7)
    assert await revisions(history.follow("", 6), 1) == [7]
    with pytest.raises(CompactedError):
        await anext(history.follow("", 5))


async def test_a_reader_gets_whole_batches_of_what_it_wants() -> None:
    history = History(0)
    history.add([Event("a", b"", 1), Event("b/1", b"", 1), Event("b/2", None, 1)])
    history.add([Event("a", b"", 2)])
    history.add([Event("b/3", b"", 3)])
    watch = history.follow("b/", 0)
    assert await anext(watch) == (Event("b/1", b"", 1), Event("b/2", None, 1))
    assert await anext(watch) == (Event("b/3", b"", 3),)


async def test_closed_it_ends_the_watches() -> None:
    history = History(0)
    watch = history.follow("", 0)
    waiting = asyncio.ensure_future(revisions(watch, 1))
    await asyncio.sleep(0)
    history.close()
    with pytest.raises(StoreClosedError):
        await waiting


@given(
    sizes=st.lists(st.integers(1, 8), max_size=40),
    bound=st.integers(1, 30),
    start=st.integers(0, 45),
    pace=st.integers(0, 5),
)
def test_a_reader_gets_everything_or_is_told(
    sizes: list[int], bound: int, start: int, pace: int
) -> None:
    async def run() -> None:
        history = History(0, max_events=bound)
        batches = [[Event(f"k{n}", b"", r) for n in range(size)] for r, size in enumerate(sizes, 1)]
        wanted = [event for batch in batches for event in batch if event.revision > start]
        for batch in batches[:start]:
            history.add(batch)
        watch = history.follow("", start)
        seen: list[Event] = []
        if start > len(batches):
            with pytest.raises(CompactedError):
                await anext(watch)
            return
        for batch in batches[start:]:
            history.add(batch)
            for _ in range(pace):
                if len(seen) == len(wanted) or (seen and seen[-1] == batch[-1]):
                    break
                try:
                    seen.extend(await anext(watch))
                except CompactedError:
                    assert seen == wanted[: len(seen)]
                    assert len(history._events) >= min(bound, len(batch)) * 0.5
                    return
        assert seen == wanted[: len(seen)]

    asyncio.run(run())
