"""The sidecars that fell silent without a goodbye: remembered for a while, over a restart too.

Whoever reads `hms status` after a restart of the control plane must not be told that all is well. So
what is remembered is written to the store, under `gone/`, by a task of its own: the end of a lease is
learned of where nothing may wait. What is in memory counts; the store follows it.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from hms_addons.control.store.protocol import StoreClosedError, StoreError, Write
from hms_addons.tasks import TaskSet

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

    from hms_addons.clock import Clock
    from hms_addons.control.store.protocol import Store

logger = logging.getLogger(__name__)

PREFIX: Final = "gone/"
REMEMBERED: Final = 3600.0
"""Seconds for which a sidecar that is gone is shown."""
MAX_GONE: Final = 1000
PAUSE: Final = 10.0
"""Seconds before a write that failed is tried again."""


@dataclass(frozen=True, slots=True)
class Sidecar:
    """One sidecar's last report."""

    report: dict[str, Any]
    seen: float
    """Seconds since the epoch."""


class GoneSidecars:
    """Who is gone, by id, the longest gone first.

    Args:
        store: where they are kept; nobody else writes below `gone/`.
        clock: time.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._known: OrderedDict[str, Sidecar] = OrderedDict()
        self._unwritten: set[str] = set()
        self._news = asyncio.Event()
        self._tasks = TaskSet("gone sidecars")

    def __repr__(self) -> str:
        return f"<GoneSidecars {len(self)}, {len(self._unwritten)} unwritten>"

    def __len__(self) -> int:
        return len(self._known)

    def get(self, id_: str) -> Sidecar | None:
        """The last report of one that is gone."""
        return self._known.get(id_)

    def items(self) -> Iterator[tuple[str, Sidecar]]:
        """All that are remembered still."""
        self._forget()
        yield from self._known.items()

    def add(self, id_: str, sidecar: Sidecar) -> None:
        """It is gone."""
        self._known[id_] = sidecar
        self._known.move_to_end(id_)
        self._to_write(id_)
        while len(self._known) > MAX_GONE:
            self._to_write(self._known.popitem(last=False)[0])

    def discard(self, id_: str) -> None:
        """It is back, or has said goodbye after all."""
        if self._known.pop(id_, None) is not None:
            self._to_write(id_)

    async def start(self, present: Container[str]) -> None:
        """Read who was gone before, and write what changes from now on.

        Args:
            present: the ids of those that report; a process that was killed in between may have
                left such a one behind.

        Raises:
            StoreError: it cannot be read.
        """
        found = []
        for entry in await self._store.list(PREFIX):
            id_ = entry.key.removeprefix(PREFIX)
            sidecar = _read(entry.value)
            if sidecar is None or id_ in present:
                self._to_write(id_)
            elif id_ not in self._known:
                found.append((id_, sidecar))
        found.sort(key=lambda pair: pair[1].seen)
        self._known = OrderedDict([*found, *self._known.items()])
        self._forget()
        self._tasks.start(self._run(), "write")

    async def close(self) -> None:
        """Write what is left, and follow no longer. Idempotent."""
        await self._tasks.close()
        try:
            await self._write()
        except StoreError as error:
            logger.warning("who is gone could not be written: %s", error)

    def _to_write(self, id_: str) -> None:
        self._unwritten.add(id_)
        self._news.set()

    def _forget(self) -> None:
        now = self._clock.wall()
        while self._known:
            id_, sidecar = next(iter(self._known.items()))
            if now - sidecar.seen < REMEMBERED:
                return
            del self._known[id_]
            self._to_write(id_)

    async def _run(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            try:
                await self._write()
            except StoreClosedError:
                return
            except Exception:
                logger.exception("who is gone could not be written; trying again")
                await self._clock.sleep(PAUSE)
                self._news.set()

    async def _write(self) -> None:
        """Let the store say what is in memory."""
        if not self._unwritten:
            return
        self._forget()
        ids, self._unwritten = self._unwritten, set()
        try:
            await self._store.write(
                [Write(f"{PREFIX}{id_}", _written(self._known.get(id_))) for id_ in sorted(ids)]
            )
        except BaseException:
            self._unwritten |= ids  # nobody knows whether it was written: once more does no harm
            raise


def _written(sidecar: Sidecar | None) -> bytes | None:
    if sidecar is None:
        return None
    return json.dumps({"report": sidecar.report, "seen": sidecar.seen}, sort_keys=True).encode()


def _read(value: bytes) -> Sidecar | None:
    """What was written; None if it is not that: it is only a memory, and must not stop a start."""
    try:
        told = json.loads(value)
        report, seen = told["report"], told["seen"]
    except (ValueError, TypeError, KeyError):
        return None
    if isinstance(report, dict) and {"service", "version"} <= report.keys():
        return Sidecar(report, float(seen)) if isinstance(seen, int | float) else None
    return None
