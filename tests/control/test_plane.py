from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import TYPE_CHECKING

import pytest

from tests.fakes.plane import running_plane

if TYPE_CHECKING:
    from pathlib import Path


async def test_its_parts_are_put_together_once(tmp_path: Path) -> None:
    async with running_plane(tmp_path) as made:
        with pytest.raises(FrozenInstanceError):
            made.plane.store = None  # type: ignore[misc, assignment]
        assert made.token not in repr(made.plane)
