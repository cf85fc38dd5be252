"""The sidecars that fell silent without a goodbye: remembered for a while, over a restart too.

Whoever reads `hms status` after a restart of the control plane must not be told that all is well. So
what is remembered is written to the store, as `gone/<service>/<id>`, by a task of its own: the end of a
lease is learned of where nothing may wait. What is in memory counts; the store follows it.
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
"""Of one service; one more makes that service's longest gone forgotten, never another's."""
MAX_ALL: Final = 10_000
"""Of all; one more makes the longest gone of the service that has the most forgotten."""
PAUSE: Final = 10.0
"""Seconds before a write that failed is tried again."""


@dataclass(frozen=True, slots=True)
class Sidecar:
    """One sidecar's last report."""

    report: dict[str, Any]
    seen: float
    """Seconds since the epoch."""


class GoneSidecars:
    """Who is gone, by `<service>/<id>`; of each service the longest gone first.

    Args:
        store: where they are kept; nobody else writes below `gone/`.
        clock: time.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._known: dict[str, OrderedDict[str, Sidecar]] = {}
        """By service, then by the whole key; none is empty."""
        self._unwritten: set[str] = set()
        self._news = asyncio.Event()
        self._tasks = TaskSet("gone sidecars")

    def __repr__(self) -> str:
        return f"<GoneSidecars {len(self)}, {len(self._unwritten)} unwritten>"

    def __len__(self) -> int:
        return sum(map(len, self._known.values()))

    def get(self, key: str) -> Sidecar | None:
        """The last report of one that is gone."""
        known = self._known.get(_service(key))
        return None if known is None else known.get(key)

    def items(self) -> Iterator[tuple[str, Sidecar]]:
        """All that are remembered still."""
        self._forget()
        for known in self._known.values():
            yield from known.items()

    def add(self, key: str, sidecar: Sidecar) -> None:
        """It is gone."""
        self._remember(key, sidecar)
        self._to_write(key)

    def discard(self, key: str) -> None:
        """It is back, or has said goodbye after all."""
        service = _service(key)
        known = self._known.get(service)
        if known is not None and known.pop(key, None) is not None:
            self._to_write(key)
            if not known:
                del self._known[service]

    async def start(self, present: Container[str]) -> None:
        """Read who was gone before, and write what changes from now on.

        Args:
            present: the keys of those that report; a process that was killed in between may have
                left such a one behind.

        Raises:
            StoreError: it cannot be read.
        """
        found = []
        for entry in await self._store.list(PREFIX):
            key = entry.key.removeprefix(PREFIX)
            sidecar = _read(entry.value)
            # Without a service in its key, it was written by an older version: nobody looks for it.
            if sidecar is None or key in present or not _service(key):
                self._to_write(key)
            elif self.get(key) is None:
                found.append((key, sidecar))
        found.sort(key=lambda pair: pair[1].seen)
        later = list(self.items())
        self._known = {}
        for key, sidecar in (*found, *later):
            self._remember(key, sidecar)
        self._forget()
        self._tasks.start(self._run(), "write")

    async def close(self) -> None:
        """Write what is left, and follow no longer. Idempotent."""
        await self._tasks.close()
        try:
            await self._write()
        except StoreError as error:
            logger.warning("who is gone could not be written: %s", error)

    def _remember(self, key: str, sidecar: Sidecar) -> None:
        known = self._known.setdefault(_service(key), OrderedDict())
        known[key] = sidecar
        known.move_to_end(key)
        if len(known) > MAX_GONE:
            self.discard(next(iter(known)))
        elif len(self) > MAX_ALL:
            most = max(self._known, key=lambda service: len(self._known[service]))
            self.discard(next(iter(self._known[most])))

    def _to_write(self, key: str) -> None:
        self._unwritten.add(key)
        self._news.set()

    def _forget(self) -> None:
        now = self._clock.wall()
        for known in list(self._known.values()):
            for key, sidecar in list(known.items()):
                if now - sidecar.seen < REMEMBERED:
                    break
                self.discard(key)

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
        keys, self._unwritten = self._unwritten, set()
        try:
            await self._store.write(
                [Write(f"{PREFIX}{key}", _written(self.get(key))) for key in sorted(keys)]
            )
        except BaseException:
            self._unwritten |= keys  # nobody knows whether it was written: once more does no harm
            raise


def _service(key: str) -> str:
    return key.rpartition("/")[0]


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
