from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hms_addons.errors import MeshError
from hms_addons.up.admin_port import AdminPorts
from hms_addons.up.run_state import RunState
from hms_addons.up.stats import Sample
from hms_addons.up.watched import Watched
from tests.fakes.clock import FakeClock

if TYPE_CHECKING:
    from pathlib import Path


async def test_rows_are_what_happened_since_the_last_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = RunState(tmp_path / "mesh.yaml")
    state.take()
    one = {"name": "a-1", "state": "ready", "app": "http://x", "admin": 7}
    alone = {**one, "name": "c-1", "admin": 0}
    state.tell({"instances": [one, {**one, "name": "b-1", "admin": 8}, alone]})
    samples = iter((Sample(1.0, 10), Sample(3.0, 20)))

    async def asked(_: AdminPorts, port: int) -> Sample | None:
        assert port, "what has no sidecar is not asked"
        return next(samples) if port == 7 else None

    monkeypatch.setattr(AdminPorts, "sample", asked)
    async with Watched(RunState(tmp_path / "mesh.yaml"), FakeClock()) as watched:
        assert [row.rate for row in await watched.rows()] == [None] * 3
        found = await watched.rows()
        assert [(row.name, row.rate, row.address) for row in found] == [
            ("a-1", 5.0, "http://x"),
            ("b-1", None, "http://x"),
            ("c-1", None, "http://x"),
        ]
        state.release()
        with pytest.raises(MeshError, match="is not up"):
            await watched.rows()
