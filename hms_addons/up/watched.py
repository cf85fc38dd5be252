"""A running mesh seen from outside: the rows of its table, by what it tells of itself."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

from hms_addons.up.admin_port import AdminPorts
from hms_addons.up.stats import Row, Sample, row

if TYPE_CHECKING:
    from types import TracebackType

    from hms_addons.clock import Clock
    from hms_addons.up.run_state import RunState


class Watched:
    """Asks its sidecars, as an async context manager.

    Args:
        state: the mesh's folder.
        clock: time, injected.
    """

    def __init__(self, state: RunState, clock: Clock) -> None:
        self._state = state
        self._clock = clock
        self._ports = AdminPorts(clock)
        self._samples: dict[str, Sample | None] = {}

    async def __aenter__(self) -> Self:
        """Begin."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connections."""
        await self._ports.__aexit__(kind, error, trace)

    async def rows(self) -> list[Row]:
        """How it is now, since the last call.

        Raises:
            MeshError: the mesh is not up any more.
        """
        found = self._state.told()["instances"]
        samples = await asyncio.gather(*(self._sample(one["admin"]) for one in found))
        before = self._samples
        self._samples = {one["name"]: new for one, new in zip(found, samples, strict=True)}
        now = self._clock.wall()
        return [
            row(one["name"], one["state"], one["app"], before.get(one["name"]), new, now)
            for one, new in zip(found, samples, strict=True)
        ]

    async def _sample(self, port: int) -> Sample | None:
        return await self._ports.sample(port) if port else None
