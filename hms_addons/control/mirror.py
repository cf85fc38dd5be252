"""The store's content in memory, followed as it changes, for those who answer from it.

One watch serves all: changes are applied batch by batch, in the order of their revisions, and what
reads the mirror sees the store as it was at exactly one revision. Whoever has written can wait until
the mirror has got there, and so reads its own writes.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, NamedTuple

from hms_addons.control.store.protocol import CompactedError, Event, StoreClosedError, StoreError
from hms_addons.tasks import TaskSet

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hms_addons.control.store.protocol import Entry, Store

logger = logging.getLogger(__name__)

_ATTEMPTS = 10
"""To read everything between two writes."""

type Apply = Callable[[Sequence[Event]], object]


class _Reader(NamedTuple):
    prefix: str
    apply: Apply


class Mirror:
    """What `store` holds.

    Args:
        store: followed from `start` to `close`.

    Attributes:
        revision: up to which everything has been applied.
        failure: why it follows no longer; None: it does.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.revision = 0
        self._known: dict[str, bytes] = {}
        """What the readers have been told of."""
        self._readers: list[_Reader] = []
        self._news = asyncio.Event()
        self._tasks = TaskSet("mirror")
        self.failure: StoreError | None = None

    def __repr__(self) -> str:
        return f"<Mirror {len(self._known)} keys at revision {self.revision}>"

    def read(self, prefix: str, apply: Apply) -> None:
        """Call `apply` with the changes of keys that begin with `prefix`.

        Called once a batch, with at least one event, in the order of registration, and never with
        half a batch. At the start it gets what there is, as events of each key's revision. It must
        not raise. Register before `start`.
        """
        self._readers.append(_Reader(prefix, apply))

    async def start(self) -> None:
        """Read everything and follow it from there.

        Raises:
            StoreError: the store cannot be read.
        """
        await self._read_all()
        self._tasks.start(self._follow(), "follow")

    async def close(self) -> None:
        """Follow no longer. Idempotent."""
        self._fail(StoreClosedError("the store is followed no longer"))
        await self._tasks.close()

    async def reach(self, revision: int) -> None:
        """Wait until everything up to `revision` has been applied.

        Raises:
            StoreError: that will not be.
        """
        while self.revision < revision:
            if self.failure is not None:
                raise self.failure
            await self._news.wait()

    async def _follow(self) -> None:
        try:
            while True:
                try:
                    async for batch in self._store.watch("", self.revision):
                        self._apply(batch, batch[0].revision)
                except CompactedError:
                    logger.warning("fell behind the store's history; reading everything again")
                    await self._read_all()
        except StoreClosedError as error:
            self._fail(error)
        except Exception as error:
            # A fault in a reader must not leave those who wait for it waiting for ever.
            logger.exception("the store cannot be followed any more; restart the control plane")
            message = f"the store cannot be followed any more ({error}); restart the control plane"
            self._fail(StoreError(message))

    async def _read_all(self) -> None:
        """Apply the difference between what is known and what there is."""
        for _ in range(_ATTEMPTS):
            revision = self._store.revision
            entries = await self._entries()
            if self._store.revision == revision:
                break
            # Written to meanwhile. It may stay so: the watch sets right what is mixed here.
        changed = [
            Event(entry.key, entry.value, entry.revision)
            for entry in entries.values()
            if self._known.get(entry.key) != entry.value
        ]
        gone = [Event(key, None, revision) for key in self._known.keys() - entries.keys()]
        self._apply(sorted(changed + gone), revision)

    async def _entries(self) -> dict[str, Entry]:
        found = {}
        for prefix in sorted({reader.prefix for reader in self._readers}):
            found.update({entry.key: entry for entry in await self._store.list(prefix)})
        return found

    def _apply(self, batch: Sequence[Event], revision: int) -> None:
        for prefix, apply in self._readers:
            wanted = [event for event in batch if event.key.startswith(prefix)]
            if not wanted:
                continue
            for event in wanted:
                if event.value is None:
                    self._known.pop(event.key, None)
                else:
                    self._known[event.key] = event.value
            apply(wanted)
        self.revision = max(self.revision, revision)
        self._news.set()
        self._news = asyncio.Event()

    def _fail(self, error: StoreError) -> None:
        self.failure = error
        self._news.set()
        self._news = asyncio.Event()
