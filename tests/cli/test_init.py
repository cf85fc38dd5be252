from __future__ import annotations

from typing import TYPE_CHECKING

from tests.fakes.cli import help_of, hms

if TYPE_CHECKING:
    from pathlib import Path


def test_it_writes_a_mesh_and_says_how_to_start_it(tmp_path: Path) -> None:
    result = hms("init", tmp_path / "new")
    assert result.exit_code == 0
    assert f"start it with: hms up {tmp_path / 'new' / 'mesh.yaml'}" in result.stdout
    again = hms("init", tmp_path / "new")
    assert again.exit_code == 1
    assert "nothing was written" in again.stderr


def test_help_shows_how_to_begin() -> None:
    assert "hms init && hms up" in help_of("init")
