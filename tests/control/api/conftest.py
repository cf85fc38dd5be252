from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.fakes.api import FramedRoutes
from tests.fakes.plane import RunningPlane, running_plane

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def routes(tmp_path: Path) -> AsyncIterator[FramedRoutes]:
    """A test's own routes, within a frame and guarded."""
    made = await FramedRoutes.make(tmp_path)
    yield made
    await made.store.close()


@pytest.fixture
async def control(tmp_path: Path) -> AsyncIterator[RunningPlane]:
    """A whole control plane, without a port."""
    async with running_plane(tmp_path / "data") as made:
        yield made
