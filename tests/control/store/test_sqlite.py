from __future__ import annotations

import asyncio
import stat
from typing import TYPE_CHECKING

import pytest

from hms_addons.control.store.protocol import StoreError, Write
from hms_addons.control.store.sqlite import SqliteStore
from tests.control.store.conformance import StoreConformance, take
from tests.fakes.clock import FakeClock

if TYPE_CHECKING:
    from pathlib import Path


class SqliteWorld:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = FakeClock()

    async def open(self, *, max_events: int = 10_000) -> SqliteStore:
        return await SqliteStore.open(self.path, self.clock, max_events=max_events)


@pytest.fixture
def world(tmp_path: Path) -> SqliteWorld:
    return SqliteWorld(tmp_path / "data" / "control.db")


class TestSqliteStore(StoreConformance):
    """All that any store must do."""


async def test_only_this_user_can_look(world: SqliteWorld) -> None:
    store = await world.open()
    await store.put("ca/key", b"secret")
    assert stat.S_IMODE(world.path.parent.stat().st_mode) == 0o700
    for file in world.path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    await store.close()
    assert [file.name for file in world.path.parent.iterdir()] == ["control.db"]


async def test_it_shows_its_state(world: SqliteWorld) -> None:
    store = await world.open()
    await store.put("a", b"")
    await store.grant(5)
    assert repr(store) == f"<SqliteStore {world.path} revision=1 <Leases 1>>"
    await store.close()


class StallingClock(FakeClock):
    """While it stalls, time passes and no timer runs."""

    stalled = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.stalled


async def test_a_process_that_stood_still_ends_no_lease_for_it(world: SqliteWorld) -> None:
    """SIGSTOP, a paused machine: nobody could renew, so nobody is gone."""
    clock = world.clock = StallingClock()
    store = await world.open()
    lease = await store.grant(10)
    await store.put("a", b"", lease=lease)
    clock.stalled = 3600
    await clock.advance(10)
    assert await store.get("a") is not None
    assert await store.keep_alive(lease)
    watch = store.watch("", 1)
    await clock.advance(10.1)
    assert (await take(watch, 1))[0].value is None
    await store.close()


async def test_a_lease_that_cannot_be_ended_is_tried_again(
    world: SqliteWorld, caplog: pytest.LogCaptureFixture
) -> None:
    store = await world.open()
    lease = await store.grant(10)
    await store.put("a", b"", lease=lease)
    watch = store.watch("", 1)
    await execute(
        store,
        "CREATE TEMP TRIGGER fault BEFORE DELETE ON leases "
        "BEGIN SELECT RAISE(ABORT, 'the disk is on fire'); END",
    )
    await world.clock.advance(10.1)
    assert await store.get("a") is not None
    assert "could not be ended" in caplog.text
    assert "the disk is on fire" in caplog.text
    await execute(store, "DROP TRIGGER fault")

    await world.clock.advance(10.1)

    assert (await take(watch, 1))[0].value is None
    await store.close()


async def test_one_write_that_the_disk_refuses_fails_alone(world: SqliteWorld) -> None:
    store = await world.open()
    await execute(
        store,
        "CREATE TEMP TRIGGER fault BEFORE INSERT ON entries WHEN new.key = 'bad' "
        "BEGIN SELECT RAISE(ROLLBACK, 'the disk is on fire'); END",
    )
    keys = ["a", "b", "bad", "c"]
    results = await asyncio.gather(
        *(store.write([Write(key, b""), Write(f"{key}2", b"")]) for key in keys),
        return_exceptions=True,
    )
    assert results[:2] == [1, 2]
    assert isinstance(results[2], StoreError)
    assert "the disk is on fire" in str(results[2])
    assert results[3] == 3
    assert [entry.key for entry in await store.list("")] == ["a", "a2", "b", "b2", "c", "c2"]
    await store.close()


async def execute(store: SqliteStore, statement: str) -> None:
    await store._worker.submit(lambda connection: connection.execute(statement).close())
