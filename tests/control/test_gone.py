from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from hms_addons.control.gone import (
    MAX_ALL,
    MAX_GONE,
    PAUSE,
    PREFIX,
    REMEMBERED,
    GoneSidecars,
    Sidecar,
)
from hms_addons.control.store.protocol import StoreError
from hms_addons.control.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from hms_addons.control.store.protocol import Write
    from tests.fakes.clock import FakeClock


class FailingStore(SqliteStore):
    """One that writes only when it is told to."""

    fails = False

    async def write(self, writes: Sequence[Write]) -> int:
        if self.fails:
            raise StoreError("the disk is full")
        return await super().write(writes)


@pytest.fixture
async def store(tmp_path: Path, clock: FakeClock) -> AsyncIterator[FailingStore]:
    opened = await FailingStore.open(tmp_path / "data" / "control.db", clock)
    assert isinstance(opened, FailingStore)
    yield opened
    await opened.close()


def last(clock: FakeClock, **more: Any) -> Sidecar:
    return Sidecar({"service": "claims-svc", "version": 2, **more}, clock.wall())


async def kept(store: SqliteStore, expected: set[str]) -> None:
    """Wait until the store holds exactly these."""
    async with asyncio.timeout(10):
        while {entry.key for entry in await store.list(PREFIX)} != {  # noqa: ASYNC110 - nobody tells
            f"{PREFIX}claims-svc/{id_}" for id_ in expected
        }:
            await asyncio.sleep(0)


async def started(store: SqliteStore, clock: FakeClock, *present: str) -> GoneSidecars:
    sidecars = GoneSidecars(store, clock)
    await sidecars.start(present)
    return sidecars


async def test_it_is_written_at_once_and_read_by_the_next(
    store: FailingStore, clock: FakeClock
) -> None:
    first = await started(store, clock)
    one, two = last(clock), last(clock, version=3)
    first.add("claims-svc/s1", one)
    first.add("claims-svc/s2", two)
    await kept(store, {"s1", "s2"})
    # As if the process had been killed: it is not closed.
    second = await started(store, clock)
    assert dict(second.items()) == {"claims-svc/s1": one, "claims-svc/s2": two}
    first.discard("claims-svc/s1")
    await kept(store, {"s2"})
    assert repr(first) == "<GoneSidecars 1, 0 unwritten>"
    for sidecars in (first, second):
        await sidecars.close()
        await sidecars.close()


async def test_what_was_not_written_yet_is_at_the_end(
    store: FailingStore, clock: FakeClock
) -> None:
    sidecars = await started(store, clock)
    sidecars.add("claims-svc/s1", last(clock))
    await sidecars.close()
    await kept(store, {"s1"})


async def test_a_write_that_fails_is_tried_again(
    store: FailingStore, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    sidecars = await started(store, clock)
    store.fails = True
    sidecars.add("claims-svc/s1", last(clock))
    async with asyncio.timeout(10):
        while "the disk is full" not in caplog.text:  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0)
    assert sidecars.get("claims-svc/s1") is not None
    store.fails = False
    await clock.advance(PAUSE)
    await kept(store, {"s1"})
    store.fails = True
    sidecars.discard("claims-svc/s1")
    await sidecars.close()
    assert "who is gone could not be written: the disk is full" in caplog.text


async def test_the_longest_gone_are_forgotten_in_the_store_too(
    store: FailingStore, clock: FakeClock
) -> None:
    sidecars = await started(store, clock)
    sidecars.add("claims-svc/early", last(clock))
    await kept(store, {"early"})
    await clock.advance(REMEMBERED / 2)
    for n in range(MAX_GONE):
        sidecars.add(f"claims-svc/s{n}", last(clock))
    assert len(sidecars) == MAX_GONE
    assert sidecars.get("claims-svc/early") is None
    await kept(store, {f"s{n}" for n in range(MAX_GONE)})
    await clock.advance(REMEMBERED)
    assert not list(sidecars.items())
    await kept(store, set())
    await sidecars.close()


async def test_what_is_too_old_back_or_damaged_is_cleared_at_the_start(
    store: FailingStore, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    now = clock.wall()
    for id_, report, seen in (
        ("old", {"service": "a", "version": 1}, now - REMEMBERED),
        ("back", {"service": "a", "version": 1}, now - 5),
        ("later", {"service": "a", "version": 1}, now - 4),
        ("earlier", {"service": "a", "version": 1}, now - 9),
        ("odd", {"service": "a"}, now),
        ("text", {"service": "a", "version": 1}, "x"),
    ):
        value = json.dumps({"report": report, "seen": seen}).encode()
        await store.put(f"{PREFIX}claims-svc/{id_}", value)
    for id_, value in (("d1", b"\xff"), ("d2", b"[]"), ("d3", b'{"report": 1, "seen": 1}')):
        await store.put(f"{PREFIX}claims-svc/{id_}", value)
    sidecars = await started(store, clock, "claims-svc/back")
    assert [key for key, _ in sidecars.items()] == ["claims-svc/earlier", "claims-svc/later"]
    await kept(store, {"earlier", "later"})
    await sidecars.close()
    assert not caplog.records


async def test_what_an_older_version_wrote_without_the_service_is_dropped(
    store: FailingStore, clock: FakeClock
) -> None:
    value = json.dumps({"report": {"service": "claims-svc", "version": 1}, "seen": clock.wall()})
    await store.put(f"{PREFIX}old", value.encode())
    sidecars = await started(store, clock)
    assert not list(sidecars.items())
    await kept(store, set())
    await sidecars.close()


async def test_a_service_makes_only_its_own_forgotten(
    store: FailingStore, clock: FakeClock
) -> None:
    sidecars = await started(store, clock)
    sidecars.add("auth-svc/early", last(clock))
    for n in range(MAX_GONE + 100):
        sidecars.add(f"claims-svc/s{n}", last(clock))
    found = dict(sidecars.items())
    assert len(found) == len(sidecars) == MAX_GONE + 1
    assert "auth-svc/early" in found
    assert "claims-svc/s99" not in found
    assert "claims-svc/s100" in found
    await sidecars.close()


async def test_those_of_the_service_that_has_most_are_forgotten_first(
    store: FailingStore, clock: FakeClock
) -> None:
    sidecars = await started(store, clock)
    sidecars.add("auth-svc/early", last(clock))
    for service in range(MAX_ALL // MAX_GONE + 1):
        for n in range(MAX_GONE):
            sidecars.add(f"svc-{service}/s{n}", last(clock))
    assert len(sidecars) == MAX_ALL
    assert sidecars.get("auth-svc/early") is not None
    assert sidecars.get(f"svc-0/s{MAX_GONE - 1}") is not None
    await sidecars.close()
