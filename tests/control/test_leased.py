from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from hms_addons.control.leased import LeasedKeys
from hms_addons.control.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.fakes.clock import FakeClock


@pytest.fixture
async def store(tmp_path: Path, clock: FakeClock) -> AsyncIterator[SqliteStore]:
    store = await SqliteStore.open(tmp_path / "control.db", clock)
    yield store
    await store.close()


async def test_a_repetition_only_renews(store: SqliteStore, clock: FakeClock) -> None:
    keys = LeasedKeys(store)
    assert await keys.put("k", b"1", 10) == 1
    for _ in range(5):
        await clock.advance(9)
        assert await keys.put("k", b"1", 10) is None
    assert store.revision == 1
    await clock.advance(10.1)
    assert await store.get("k") is None
    assert await keys.put("k", b"1", 10) == 3
    assert repr(keys) == "<LeasedKeys 1>"


async def test_a_change_is_written_and_renews_too(store: SqliteStore, clock: FakeClock) -> None:
    keys = LeasedKeys(store)
    await keys.put("k", b"1", 10)
    await clock.advance(9)
    assert await keys.put("k", b"2", 10) == 2
    await clock.advance(9)
    assert (await store.get("k") or [None, None])[1] == b"2"


async def test_another_ttl_counts_from_now_on(store: SqliteStore, clock: FakeClock) -> None:
    keys = LeasedKeys(store)
    await keys.put("k", b"1", 10)
    assert await keys.put("k", b"1", 60) == 2
    await clock.advance(59)
    assert await store.get("k") is not None
    await clock.advance(1.1)
    assert await store.get("k") is None


async def test_after_a_restart_the_lease_is_found_again(
    store: SqliteStore, clock: FakeClock
) -> None:
    await LeasedKeys(store).put("k", b"1", 10)
    again = LeasedKeys(store)
    await clock.advance(9)
    assert await again.put("k", b"1", 10) is None
    await clock.advance(9)
    assert await store.get("k") is not None
    assert store.revision == 1


async def test_many_at_once_leave_one_lease_that_counts(
    store: SqliteStore, clock: FakeClock
) -> None:
    keys = LeasedKeys(store)
    await asyncio.gather(*(keys.put("k", b"%d" % (n % 3), 10) for n in range(12)))
    entry = await store.get("k")
    assert entry is not None
    for _ in range(3):
        await clock.advance(9)
        assert await keys.put("k", entry.value, 10) is None
    await clock.advance(10.1)
    assert await store.list("") == []


async def test_deleted_is_deleted(store: SqliteStore, clock: FakeClock) -> None:
    keys = LeasedKeys(store)
    await keys.put("k", b"1", 10)
    assert await keys.delete("k") == 2
    assert await keys.delete("k") is None
    assert await keys.put("k", b"1", 10) == 3


async def test_a_key_that_vanished_is_written_again(store: SqliteStore) -> None:
    keys = LeasedKeys(store)
    await keys.put("k", b"1", 10)
    await store.delete("k")
    keys.forget("k")
    assert await keys.put("k", b"1", 10) == 3


async def test_cancelled_at_any_turn_it_can_be_repeated(
    store: SqliteStore, clock: FakeClock
) -> None:
    keys = LeasedKeys(store)
    for turns in (0, 1, 2, 3, 5, 10, 50, 200, 1000):
        putting = asyncio.ensure_future(keys.put(f"k{turns}", b"1", 10))
        for _ in range(turns):
            await asyncio.sleep(0)
        putting.cancel()
        await asyncio.wait([putting])
        await keys.put(f"k{turns}", b"1", 10)
        entry = await store.get(f"k{turns}")
        assert entry is not None
        assert entry.lease is not None
        assert await store.keep_alive(entry.lease)
    await clock.advance(10.1)
    assert await store.list("") == []
