from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from scripts.demonstration.children import DemoError
from scripts.demonstration.managed_mesh import ManagedMesh, serial
from scripts.demonstration.ports import FreePorts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[ManagedMesh]:
    mesh = ManagedMesh(tmp_path / "control", FreePorts())
    yield mesh
    mesh.close()


def test_what_the_control_plane_prints_goes_to_a_private_file(mesh: ManagedMesh) -> None:
    assert mesh.operator.exports.stat().st_mode & 0o777 == 0o600
    assert mesh.work.stat().st_mode & 0o777 == 0o700


def test_sidecars_are_given_a_name_and_no_file(mesh: ManagedMesh) -> None:
    for replica in mesh.everyone():
        options = replica.command[: replica.command.index("--")]
        assert "--config" not in options
        assert options[options.index("--service") + 1] == replica.service
        assert options[options.index("--state") + 1].startswith(str(mesh.work))
    assert "--version" in mesh.canary.command


def test_a_lifetime_is_asked_for_only_when_there_is_one(mesh: ManagedMesh) -> None:
    assert mesh.control_command("20s")[-2:] == ["--svid-lifetime", "20s"]
    assert "--svid-lifetime" not in mesh.control_command()


def test_what_has_not_been_started_is_said(mesh: ManagedMesh) -> None:
    with pytest.raises(DemoError, match="control plane has not been started"):
        _ = mesh.running_control
    with pytest.raises(DemoError, match="the load has not begun"):
        mesh.end_load()


def test_the_serial_of_the_one_certificate() -> None:
    assert serial([{"secret": "mesh_certs", "serial": "1f"}]) == "1f"
    with pytest.raises(ValueError, match="unpack"):
        serial([])
