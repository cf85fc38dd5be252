from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from hms_addons.up.run_state import RunState
from tests.fakes.cli import help_of, hms

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_faults_of_the_file_are_told_with_their_places(tmp_path: Path) -> None:
    file = tmp_path / "mesh.yaml"
    file.write_text("services:\n  a:\n    comand: x\n")
    result = hms("up", file)
    assert result.exit_code == 1
    assert f"{file}:3:5: services.a.comand: unknown key 'comand' (did you mean command?)" in (
        result.stderr
    )
    assert not (tmp_path / ".hms").exists()


def test_without_a_file_the_way_to_one_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "`hms init` writes one" in hms("up").stderr
    assert hms("up").exit_code == 1
    assert "other.yaml:1:1: cannot be read" in hms("up", "other.yaml").stderr


def test_a_taken_port_is_said(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        (tmp_path / "mesh.yaml").write_text(f"services: {{a: {{command: sh, port: {port}}}}}")
        result = hms("up", tmp_path / "mesh.yaml")
    assert result.exit_code == 1
    assert f"port {port} for a-1 is in use by process" in result.stderr


def test_a_mesh_is_up_once(tmp_path: Path) -> None:
    file = tmp_path / "mesh.yaml"
    file.write_text("services: {a: {command: sh}}")
    state = RunState(file)
    state.take()
    result = hms("up", file)
    state.release()
    assert result.exit_code == 1
    assert "is up already" in result.stderr


def test_down_of_what_is_not_up_is_no_failure(tmp_path: Path) -> None:
    result = hms("down", tmp_path / "mesh.yaml")
    assert result.exit_code == 0
    assert "is not up" in result.stdout


def test_help_tells_how_it_ends() -> None:
    assert "Ctrl-C drains in order" in help_of("up")
