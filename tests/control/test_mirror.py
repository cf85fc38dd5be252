from __future__ import annotations

import asyncio
import threading
from functools import partial
from typing import TYPE_CHECKING

import pytest

from hms_addons.control.mirror import Mirror
from hms_addons.control.store.protocol import Event, StoreClosedError, StoreError, Write
from hms_addons.control.store.sqlite import SqliteStore
from tests.fakes.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = await SqliteStore.open(tmp_path / "control.db", FakeClock(), max_events=20)
    yield store
    await store.close()


async def test_it_tells_what_there_is_and_then_what_changes(store: SqliteStore) -> None:
    await store.write([Write("a/1", b"x"), Write("b/1", b"x")])
    mirror = Mirror(store)
    told: list[Sequence[Event]] = []
    mirror.read("a/", told.append)
    await mirror.start()
    assert told == [[Event("a/1", b"x", 1)]]
    assert repr(mirror) == "<Mirror 1 keys at revision 1>"

    await store.write([Write("a/1", None), Write("a/2", b"y"), Write("b/1", None)])
    await mirror.reach(await store.put("b/2", b"z"))

    assert told[1:] == [[Event("a/1", None, 2), Event("a/2", b"y", 2)]]
    assert mirror.revision == 3
    await mirror.close()


async def test_each_reader_is_told_of_its_own_keys_a_batch_at_a_time(store: SqliteStore) -> None:
    mirror, calls = Mirror(store), list[tuple[str, int]]()

    def count(prefix: str, events: Sequence[Event]) -> None:
        calls.append((prefix, len(events)))

    for prefix in ("a/", "b/", "a/"):
        mirror.read(prefix, partial(count, prefix))
    await mirror.start()
    await mirror.reach(await store.write([Write("a/1", b""), Write("a/2", b""), Write("b/1", b"")]))
    assert calls == [("a/", 2), ("b/", 1), ("a/", 2)]
    await mirror.close()


async def test_whoever_fell_behind_reads_everything_again(
    store: SqliteStore, caplog: pytest.LogCaptureFixture
) -> None:
    mirror, known = Mirror(store), dict[str, bytes | None]()
    mirror.read("a/", lambda events: known.update({e.key: e.value for e in events}))
    await store.write([Write("a/gone", b"1"), Write("a/same", b"1"), Write("a/new", b"1")])
    await mirror.start()

    # Written in one go, so that the mirror gets no turn before most of it is history.
    batches = [
        [Write("a/gone", None), Write("a/new", b"2")],
        *([Write(f"b/{n}", b"")] for n in range(100)),
    ]
    held, go = threading.Event(), threading.Event()
    first = store._worker.submit(lambda _: held.set() or (go.wait(10) and None))
    held.wait(10)
    writes = [asyncio.ensure_future(store.write(batch)) for batch in batches]
    await asyncio.sleep(0)
    go.set()
    await asyncio.gather(first, *writes)

    await mirror.reach(102)
    assert "fell behind" in caplog.text
    assert known == {"a/gone": None, "a/same": b"1", "a/new": b"2"}
    await mirror.reach(await store.put("a/new", b"3"))
    assert known["a/new"] == b"3"
    await mirror.close()


async def test_waiting_ends_with_the_store(store: SqliteStore) -> None:
    mirror = Mirror(store)
    await mirror.start()
    waiting = asyncio.ensure_future(mirror.reach(5))
    await asyncio.sleep(0)
    await store.close()
    with pytest.raises(StoreClosedError):
        await waiting
    await mirror.close()


async def test_waiting_ends_with_the_mirror(store: SqliteStore) -> None:
    mirror = Mirror(store)
    await mirror.start()
    waiting = asyncio.ensure_future(mirror.reach(5))
    await asyncio.sleep(0)
    await mirror.close()
    await mirror.close()
    with pytest.raises(StoreClosedError):
        await waiting


async def test_a_fault_in_a_reader_leaves_nobody_waiting(
    store: SqliteStore, caplog: pytest.LogCaptureFixture
) -> None:
    mirror = Mirror(store)

    def fail(events: Sequence[Event]) -> None:
        raise KeyError("a field of a newer version")

    mirror.read("a/", fail)
    await mirror.start()
    with pytest.raises(StoreError, match="restart the control plane"):
        await mirror.reach(await store.put("a/1", b""))
    assert "a field of a newer version" in caplog.text
    await mirror.close()
