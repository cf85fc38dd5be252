from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hms_addons.control import lineage as module
from hms_addons.control.lineage import KEY, Lineage, LineageError
from hms_addons.control.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.fakes.clock import FakeClock


@pytest.fixture
async def store(tmp_path: Path, clock: FakeClock) -> AsyncIterator[SqliteStore]:
    store = await SqliteStore.open(tmp_path / "data" / "control.db", clock)
    yield store
    await store.close()


async def begun(store: SqliteStore) -> Lineage:
    lineage = Lineage(store)
    await lineage.open()
    return lineage


async def test_what_this_run_has_written_is_ours(store: SqliteStore) -> None:
    lineage = await begun(store)
    revision = await store.put("a", b"")
    assert lineage.is_ours(lineage.run, revision)
    assert not lineage.is_ours(lineage.run, revision + 1), "nobody has handed that out"
    assert lineage.is_ours("", revision)
    assert not lineage.is_ours("", revision + 1)
    assert repr(lineage) == f"<Lineage run {lineage.run} after 0 others>"


async def test_an_earlier_run_ends_where_the_next_begins(store: SqliteStore) -> None:
    first = await begun(store)
    end = await store.put("a", b"")
    second = await begun(store)
    await store.put("b", b"")
    third = await begun(store)
    for lineage in (second, third):
        assert lineage.is_ours(first.run, end)
        assert not lineage.is_ours(first.run, end + 1)
    assert third.is_ours(second.run, end + 2)
    assert not third.is_ours(second.run, end + 3)
    assert len({first.run, second.run, third.run}) == 3


async def test_a_run_that_nobody_knows_is_not_ours(store: SqliteStore) -> None:
    lineage = await begun(store)
    assert not lineage.is_ours("abcdef01", 0)


async def test_runs_are_remembered_within_bounds(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEPT", 3)
    runs = [await begun(store) for _ in range(5)]
    known = [runs[-1].is_ours(lineage.run, 0) for lineage in runs]
    assert known == [False, False, True, True, True]


@pytest.mark.parametrize("value", [b"no JSON", b"[1]", b'[["a"]]', b'[["a", "b"]]', b"5", b"\xff"])
async def test_a_damaged_record_is_told(store: SqliteStore, value: bytes) -> None:
    await store.put(KEY, value)
    with pytest.raises(LineageError, match="restore the data folder"):
        await begun(store)
    entry = await store.get(KEY)
    assert entry is not None
    assert entry.value == value, "nothing has changed"
