from __future__ import annotations

import errno
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


def test_meshes_of_two_files_in_one_folder_are_two(tmp_path: Path) -> None:
    usual, other = RunState(tmp_path / "mesh.yaml"), RunState(tmp_path / "other.yaml")
    usual.take()
    other.take()
    assert usual.folder == tmp_path / ".hms" / "up"
    other.release()
    assert other.pid() is None
    assert usual.pid() == os.getpid()
    usual.release()


def test_what_cannot_be_looked_into_is_not_said_to_be_down(tmp_path: Path) -> None:
    state = RunState(tmp_path / "mesh.yaml")
    (state.folder / "lock").mkdir(parents=True)  # root may read all else
    with pytest.raises(MeshError, match="cannot look into .*: is it another user's?"):
        state.told()


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    state = RunState(tmp_path / "mesh.yaml")
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(MeshError, match="cannot keep state in .*: No space left on device"):
        state.take()
    assert state.pid() is None, "the lock is free again"
