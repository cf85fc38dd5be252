"""A `Store` in memory that can fail, as a crash does, around any write."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from hms_addons.control.store.protocol import ConflictError, Entry, Write

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from hms_addons.control.store.protocol import Event


class CrashError(Exception):
    """The process would be gone now."""


class MemoryStore:
    """Keys, values and revisions; no leases and no watching.

    Attributes:
        crash_before: counted down at each write; the one that reaches 0 is not written, and raises.
        crash_after: … is written, and raises.
    """

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.revision = 0
        self.writes = 0
        self.crash_before: int | None = None
        self.crash_after: int | None = None

    def __repr__(self) -> str:
        return f"<MemoryStore revision={self.revision}>"

    async def get(self, key: str) -> Entry | None:
        await asyncio.sleep(0)
        return self.entries.get(key)

    async def list(self, prefix: str) -> list[Entry]:
        await asyncio.sleep(0)
        return [self.entries[key] for key in sorted(self.entries) if key.startswith(prefix)]

    async def put(
        self, key: str, value: bytes, *, expected: int | None = None, lease: str | None = None
    ) -> int:
        return await self.write([Write(key, value, expected, lease)])

    async def delete(self, key: str, *, expected: int | None = None) -> int | None:
        if key not in self.entries:
            return None
        return await self.write([Write(key, None, expected, None)])

    async def write(self, writes: Sequence[Write]) -> int:
        await asyncio.sleep(0)
        self.writes += 1
        if self.crash_before == self.writes:
            raise CrashError
        for write in writes:
            entry = self.entries.get(write.key)
            current = 0 if entry is None else entry.revision
            if write.expected is not None and write.expected != current:
                raise ConflictError(write.key, current)
        self.revision += 1
        for write in writes:
            if write.value is None:
                self.entries.pop(write.key, None)
            else:
                self.entries[write.key] = Entry(write.key, write.value, self.revision, write.lease)
        if self.crash_after == self.writes:
            raise CrashError
        return self.revision

    async def grant(self, ttl: float) -> str:
        raise NotImplementedError

    async def keep_alive(self, lease: str) -> bool:
        raise NotImplementedError

    async def revoke(self, lease: str) -> None:
        raise NotImplementedError

    def watch(self, prefix: str, after: int) -> AsyncIterator[Event]:
        raise NotImplementedError

    async def advance(self, revision: int) -> None:
        self.revision = max(self.revision, revision)

    async def close(self) -> None:
        await asyncio.sleep(0)
