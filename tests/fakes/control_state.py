"""A control plane's state, all real, on a clock that stands still: store, mirror, and what reads them."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hms_addons.control.configs import ConfigService
from hms_addons.control.fleet import Fleet
from hms_addons.control.lineage import Lineage
from hms_addons.control.mirror import Mirror
from hms_addons.control.registry import Registry
from hms_addons.control.snapshots import PAUSE, Snapshots
from hms_addons.control.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from hms_addons.control.configs import PutResult
    from tests.fakes.clock import FakeClock

TRUST_DOMAIN = "mpsa.mil"


@dataclass
class Plane:
    clock: FakeClock
    store: SqliteStore
    mirror: Mirror
    registry: Registry
    configs: ConfigService
    snapshots: Snapshots
    fleet: Fleet

    async def push(self, text: str, **more: Any) -> PutResult:
        return await self.configs.put([("mesh.yaml", text.encode())], author="a test", **more)

    async def close(self) -> None:
        await self.fleet.close()
        await self.snapshots.close()
        await self.mirror.close()
        await self.store.close()


async def open_plane(path: Path, clock: FakeClock, pauses: FakeClock | None = None) -> Plane:
    """Everything over the store at `path`; `pauses` is the snapshots' own clock, if they have one.

    The lineage takes one revision, so the first write of a test has revision 2.
    """
    store = await SqliteStore.open(path, clock)
    lineage, mirror = Lineage(store), Mirror(store)
    await lineage.open()
    registry = Registry(store, mirror)
    configs = ConfigService(store, mirror, clock, TRUST_DOMAIN)
    snapshots = Snapshots(mirror, configs, registry, lineage, pauses or clock, TRUST_DOMAIN)
    fleet = Fleet(store, mirror, snapshots, configs, lineage, clock)
    await mirror.start()
    await fleet.start()
    await snapshots.start()
    return Plane(clock, store, mirror, registry, configs, snapshots, fleet)


async def published(plane: Plane, pauses: FakeClock | None = None) -> None:
    """Wait until all that is known has been worked out and handed to those who wait."""
    snapshots = plane.snapshots
    async with asyncio.timeout(10):
        while snapshots._dirty.is_set() or snapshots._published.config_version != (
            plane.configs.current.version if plane.configs.current else 0
        ):
            await (pauses or plane.clock).advance(PAUSE)
    for _ in range(5):
        await asyncio.sleep(0)


@asynccontextmanager
async def control_plane(path: Path, clock: FakeClock) -> AsyncIterator[Plane]:
    plane = await open_plane(path, clock)
    try:
        yield plane
    finally:
        await plane.close()
