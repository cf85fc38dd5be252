from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from hms_addons.control.readiness import Readiness
from hms_addons.control.store.protocol import Entry, StoreError
from hms_addons.control.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.fakes.clock import FakeClock


class FailingStore(SqliteStore):
    """One that does not answer while `fault` is set."""

    fault: Exception | None = None

    async def get(self, key: str) -> Entry | None:
        if self.fault is not None:
            raise self.fault
        return await super().get(key)


@pytest.fixture
async def store(tmp_path: Path, clock: FakeClock) -> AsyncIterator[FailingStore]:
    opened = await FailingStore.open(tmp_path / "data" / "control.db", clock)
    assert isinstance(opened, FailingStore)
    yield opened
    await opened.close()


async def test_each_change_is_said_once(
    store: FailingStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    readiness = Readiness(store)
    for fault in (None, StoreError("the disk is gone"), RuntimeError(), None):
        store.fault = fault
        for _ in range(3):
            assert await readiness.look() == (fault is None)
    assert [record.getMessage() for record in caplog.records] == [
        "not ready: the store does not answer: the disk is gone",
        "not ready: the store does not answer: RuntimeError",
        "ready again: the store answers",
    ]
    assert repr(readiness) == "<Readiness problem=None>"
