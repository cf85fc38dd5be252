from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.fakes.api import FramedRoutes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def routes(tmp_path: Path) -> AsyncIterator[FramedRoutes]:
    """A test's own routes, within a frame and guarded."""
    made = await FramedRoutes.make(tmp_path)
    yield made
    await made.store.close()
