from __future__ import annotations

import ast
import socket
from typing import TYPE_CHECKING

import pytest

from hms_addons.errors import MeshError
from hms_addons.up import starter
from hms_addons.up.mesh_file import read_mesh
from hms_addons.up.starter import write_starter

if TYPE_CHECKING:
    from pathlib import Path


def test_it_is_a_good_mesh(tmp_path: Path) -> None:
    written = write_starter(tmp_path / "new")
    assert [path.name for path in written] == ["mesh.yaml", "web.py", "hello.py"]
    mesh = read_mesh(written[0])
    assert list(mesh.instances) == ["web-svc-1", "hello-svc-1", "hello-svc-2"]
    assert not mesh.warnings
    for path in written[1:]:
        ast.parse(path.read_text())


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "web.py").write_text("mine")
    with pytest.raises(MeshError, match="web.py is here already, and nothing was written"):
        write_starter(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["web.py"]


def test_its_port_is_a_free_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        monkeypatch.setattr(starter, "FIRST_PORT", taken)
        mesh = read_mesh(write_starter(tmp_path)[0])
    assert mesh.instances["web-svc-1"].port not in {None, taken}


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MeshError, match="cannot write into"):
        write_starter(tmp_path / "file" / "below")
