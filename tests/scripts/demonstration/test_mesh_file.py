from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hms_addons.up.mesh_file import read_mesh
from scripts.demonstration.mesh_file import NAME, ROOT, MeshFile
from scripts.demonstration.up import DemoError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def file(tmp_path: Path) -> MeshFile:
    return MeshFile(tmp_path)


def test_it_is_a_copy_that_runs_the_repositorys_services(file: MeshFile, tmp_path: Path) -> None:
    assert file.path == tmp_path / NAME
    assert file.text == (ROOT / NAME).read_text(encoding="utf-8")
    one = read_mesh(file.path).instances["auth-svc-1"]
    assert (one.folder / "scripts" / "lost_package" / "auth_svc.py").is_file()


def test_an_edit_shows_what_has_changed_and_where(file: MeshFile) -> None:
    shown = file.edit("replicas: 5", "replicas: 4").splitlines()
    assert [line.split() for line in shown] == [
        ["auth-svc:"],
        ["-", "replicas:", "5"],
        ["+", "replicas:", "4"],
    ]
    assert file.text.splitlines()[file.line_of("replicas: 4") - 1].strip() == "replicas: 4"
    assert not list(file.path.parent.glob("*.new"))


def test_an_edit_can_be_below_a_name(file: MeshFile) -> None:
    file.edit("port: 15091", "port: 9999", below="  token-issuer:")
    assert read_mesh(file.path).instances["token-issuer-1"].port == 9999
    with pytest.raises(DemoError, match="has no 'port: 15090' below '  token-issuer:'"):
        file.edit("port: 15090", "port: 1", below="  token-issuer:")


def test_what_is_not_there_cannot_be_edited(file: MeshFile) -> None:
    with pytest.raises(DemoError, match=r"mesh\.yaml has no 'replicas: 77'"):
        file.edit("replicas: 77", "")


def test_every_line_that_the_tour_edits_is_there(file: MeshFile) -> None:
    for words in ("# svid_lifetime: 60s", "trafficPolicy: weight=10", "replicas: 5", "replicas: 0"):
        assert file.text.count(words) == 1
