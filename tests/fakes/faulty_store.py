"""The real store, in a process that may be killed around any write."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from hms_addons.control.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from hms_addons.clock import Clock
    from hms_addons.control.store.protocol import Entry, Event, Store, Write


class CrashError(Exception):
    """The process would be gone now."""


class FaultyStore:
    """A `Store` that passes everything on to another one.

    Attributes:
        writes: how many batches were to be written.
        crash_before: the number of the batch that is not written, and raises.
        crash_after: the number of the one that is written, and raises.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.writes = 0
        self.crash_before: int | None = None
        self.crash_after: int | None = None

    def __repr__(self) -> str:
        return f"<FaultyStore {self.store!r}>"

    @property
    def revision(self) -> int:
        return self.store.revision

    async def get(self, key: str) -> Entry | None:
        return await self.store.get(key)

    async def value(self, key: str) -> bytes:
        """What a key that is there holds."""
        entry = await self.store.get(key)
        assert entry is not None
        return entry.value

    async def list(self, prefix: str) -> list[Entry]:
        return await self.store.list(prefix)

    async def put(
        self, key: str, value: bytes, *, expected: int | None = None, lease: str | None = None
    ) -> int:
        self._begin()
        revision = await self.store.put(key, value, expected=expected, lease=lease)
        self._end()
        return revision

    async def delete(self, key: str, *, expected: int | None = None) -> int | None:
        self._begin()
        revision = await self.store.delete(key, expected=expected)
        self._end()
        return revision

    async def write(self, writes: Sequence[Write]) -> int:
        self._begin()
        revision = await self.store.write(writes)
        self._end()
        return revision

    def _begin(self) -> None:
        self.writes += 1
        if self.crash_before == self.writes:
            raise CrashError

    def _end(self) -> None:
        if self.crash_after == self.writes:
            raise CrashError

    async def grant(self, ttl: float) -> str:
        return await self.store.grant(ttl)

    async def keep_alive(self, lease: str) -> bool:
        return await self.store.keep_alive(lease)

    async def revoke(self, lease: str) -> None:
        await self.store.revoke(lease)

    def watch(self, prefix: str, after: int) -> AsyncIterator[tuple[Event, ...]]:
        return self.store.watch(prefix, after)

    async def close(self) -> None:
        await self.store.close()


@asynccontextmanager
async def faulty_store(folder: Path, clock: Clock) -> AsyncIterator[FaultyStore]:
    """A new store in a folder."""
    store = FaultyStore(await SqliteStore.open(folder / "control.db", clock))
    try:
        yield store
    finally:
        await store.close()
