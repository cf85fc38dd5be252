from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from hms_addons.errors import MeshError
from hms_addons.up.run_state import RunState

if TYPE_CHECKING:
    from pathlib import Path


def test_one_at_a_time(tmp_path: Path) -> None:
    first, second = (RunState(tmp_path / "mesh.yaml") for _ in range(2))
    assert second.pid() is None
    first.take()
    assert second.pid() == os.getpid()
    with pytest.raises(MeshError, match=rf"is up already \(process {os.getpid()}\): `hms down`"):
        second.take()
    first.release()
    assert second.pid() is None
    second.take()
    second.release()


def test_only_a_running_mesh_tells_where_it_is(tmp_path: Path) -> None:
    state, other = (RunState(tmp_path / "mesh.yaml") for _ in range(2))
    with pytest.raises(MeshError, match="is not up: `hms up"):
        other.told()
    state.take()
    state.tell({"instances": []})
    assert other.told() == {"instances": []}
    state.release()
    with pytest.raises(MeshError, match="is not up"):
        other.told()


def test_what_is_kept_is_private_and_not_for_git(tmp_path: Path) -> None:
    state = RunState(tmp_path / "mesh.yaml")
    state.take()
    state.admin_token = "secret"
    assert RunState(tmp_path / "mesh.yaml").admin_token == "secret"
    assert (state.folder / "admin-token").stat().st_mode & 0o077 == 0
    assert state.folder.stat().st_mode & 0o077 == 0
    assert (tmp_path / ".hms" / ".gitignore").read_text() == "*\n"
    state.admin_token = None
    assert state.admin_token is None
    state.release()


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / ".hms").write_text("")
    with pytest.raises(MeshError, match="cannot keep state in"):
        RunState(tmp_path / "mesh.yaml").take()
