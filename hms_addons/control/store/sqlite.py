"""The store in one SQLite file: `control.db` in the control plane's data folder.

```
 event loop                                     worker thread
 SqliteStore ──work──▶ SqliteWorker ──────────▶ sqlite_work, in a transaction of sqlite_file's
     ▲ │                    │                         │
     │ └─ Leases            └◀── results, on disk ◀───┘
     └── History ◀── events
```
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
from functools import partial
from typing import TYPE_CHECKING, Self

from hms_addons.control.store import sqlite_work
from hms_addons.control.store.history import MAX_BYTES, MAX_EVENTS, History
from hms_addons.control.store.leases import Leases
from hms_addons.control.store.protocol import (
    Entry,
    Write,
    check_key,
)
from hms_addons.control.store.sqlite_worker import SqliteWorker

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from pathlib import Path

    from hms_addons.clock import Clock
    from hms_addons.control.store.protocol import Event
    from hms_addons.control.store.sqlite_work import Change

logger = logging.getLogger(__name__)


class SqliteStore:
    """Implements `Store`; made by `open`."""

    def __init__(self, path: Path, worker: SqliteWorker, history: History, leases: Leases) -> None:
        self._path = path
        self._worker = worker
        self._history = history
        self._leases = leases
        leases.on_end = self._end

    def __repr__(self) -> str:
        return f"<SqliteStore {self._path} revision={self.revision} {self._leases!r}>"

    @classmethod
    async def open(
        cls,
        path: Path,
        clock: Clock,
        *,
        max_events: int = MAX_EVENTS,
        max_bytes: int = MAX_BYTES,
    ) -> Self:
        """Open the store at `path`, and make it if there is none.

        Args:
            path: the file; its folder is made too.
            clock: time for leases.
            max_events: most events kept for watches.
            max_bytes: most bytes kept for watches, about.

        Raises:
            StoreFileError: it is locked, damaged, read-only, of another program or of a newer one;
                it is as it was.
        """
        worker = SqliteWorker(path)
        await worker.open()
        try:
            revision, ttls = await worker.submit(_read_state)
        except BaseException:
            await worker.close()
            raise
        history = History(revision, max_events=max_events, max_bytes=max_bytes)
        return cls(path, worker, history, Leases(clock, ttls))

    @property
    def revision(self) -> int:
        """See `Store.revision`."""
        return self._history.revision

    async def get(self, key: str) -> Entry | None:
        """See `Store.get`."""
        check_key(key)
        return await self._worker.submit(partial(sqlite_work.read_entry, key=key))

    async def put(
        self, key: str, value: bytes, *, expected: int | None = None, lease: str | None = None
    ) -> int:
        """See `Store.put`."""
        return await self.write([Write(key, value, expected, lease)])

    async def delete(self, key: str, *, expected: int | None = None) -> int | None:
        """See `Store.delete`."""
        check_key(key)
        change = await self._change(partial(sqlite_work.write, writes=[Write(key, None, expected)]))
        return change.revision if change.events else None

    async def write(self, writes: Sequence[Write]) -> int:
        """See `Store.write`."""
        writes = tuple(writes)
        for item in writes:
            check_key(item.key)
        if len({item.key for item in writes}) < len(writes):
            raise ValueError("a batch may change each key only once")
        return (await self._change(partial(sqlite_work.write, writes=writes))).revision

    async def list(self, prefix: str) -> list[Entry]:
        """See `Store.list`."""
        return await self._worker.submit(partial(sqlite_work.read_entries, prefix=prefix))

    async def grant(self, ttl: float) -> str:
        """See `Store.grant`."""
        if not 0 < ttl < math.inf:
            message = f"a lease's TTL is more than 0 seconds, and an end it has: not {ttl}"
            raise ValueError(message)
        lease = secrets.token_hex(8)
        # Known as soon as it is on disk, whoever still waits for it, so that it ends.
        await self._worker.submit(
            partial(sqlite_work.grant, lease=lease, ttl=ttl),
            lambda _: self._leases.add(lease, ttl),
        )
        return lease

    async def keep_alive(self, lease: str) -> bool:
        """See `Store.keep_alive`."""
        self._worker.check_open()
        return self._leases.renew(lease)

    async def revoke(self, lease: str) -> None:
        """See `Store.revoke`."""
        self._worker.check_open()
        ttl = self._leases.remove(lease)
        if ttl is not None:
            # Shielded: it has begun, and whether it succeeds matters also when nobody waits.
            await asyncio.shield(self._end({lease: ttl}))

    def watch(self, prefix: str, after: int) -> AsyncIterator[tuple[Event, ...]]:
        """See `Store.watch`."""
        return self._history.follow(prefix, after)

    async def close(self) -> None:
        """See `Store.close`."""
        self._leases.close()
        self._worker.stop()
        self._history.close()
        await self._worker.close()

    def _change(self, work: Callable[[sqlite3.Connection], Change]) -> asyncio.Future[Change]:
        return self._worker.submit(work, self._publish)

    def _publish(self, change: Change) -> None:
        if change.events:
            self._history.add(change.events)
        else:
            self._history.revision = max(self._history.revision, change.revision)

    def _end(self, leases: Mapping[str, float]) -> asyncio.Future[Change]:
        """End what some leases, which are forgotten already, have left."""
        future = self._change(partial(sqlite_work.end_leases, leases=tuple(leases)))
        future.add_done_callback(partial(self._ended, leases))
        return future

    def _ended(self, leases: Mapping[str, float], future: asyncio.Future[Change]) -> None:
        if (error := future.exception()) is not None:
            logger.error("leases could not be ended, and go on: %s", error)
            for lease, ttl in leases.items():
                self._leases.add(lease, ttl)


def _read_state(connection: sqlite3.Connection) -> tuple[int, dict[str, float]]:
    return sqlite_work.read_revision(connection), sqlite_work.read_leases(connection)
