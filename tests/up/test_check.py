from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hms_addons.config.problems import ConfigProblems
from hms_addons.up.check import check_mesh, mesh_file_among, snapshot_of_mesh
from tests.fakes.cli import hms

if TYPE_CHECKING:
    from pathlib import Path

GOOD = """\
services:
  a-svc: { command: sh, replicas: 2 }
mesh:
  listeners:
    - { name: out, port: 1, routes: [{ match: { prefix: /a }, action: { cluster: a-svc } }] }
  clusters: [{ name: a-svc }]
"""


@pytest.fixture
def mesh(tmp_path: Path) -> Path:
    path = tmp_path / "mesh.yaml"
    path.write_text(GOOD)
    return path


def test_what_runs_services_is_a_mesh_file(mesh: Path, tmp_path: Path) -> None:
    other = tmp_path / "routes.yaml"
    other.write_text("listeners: []\n")
    broken = tmp_path / "broken.yaml"
    broken.write_text("services: {")
    assert mesh_file_among([mesh]) == mesh
    for paths in ([other], [mesh, other], [broken], [tmp_path / "none"], []):
        assert mesh_file_among(paths) is None


def test_it_is_checked_whole(mesh: Path) -> None:
    found = check_mesh(mesh)
    assert found.to_text().startswith("ok: 2 instances, 1 listener, 1 route, 1 cluster")
    mesh.write_text(GOOD.replace("replicas", "replcas"))
    found = check_mesh(mesh)
    assert not found.ok
    assert f"{mesh}:2:" in found.to_text()
    assert "refused: 1 error" in found.to_text()
    with pytest.raises(ConfigProblems):
        snapshot_of_mesh(mesh)


def test_check_and_explain_take_it(mesh: Path) -> None:
    assert "ok: 2 instances" in hms("check", mesh).stdout
    found = hms("explain", mesh, "GET /a/x")
    assert found.exit_code == 0
    assert "a-svc" in found.stdout
    mesh.write_text(GOOD.replace("cluster: a-svc", "cluster: b-svc"))
    result = hms("check", mesh)
    assert (result.exit_code, "mesh.yaml:5:" in result.stdout) == (1, True)
    result = hms("explain", mesh, "GET /a/x")
    assert (result.exit_code, "did you mean a-svc?" in result.stderr) == (1, True)
