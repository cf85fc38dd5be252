from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.fakes.cli import hms

if TYPE_CHECKING:
    from pathlib import Path

NOTHING = {"HMS_CONTROL": "", "HMS_ADMIN_TOKEN": "", "HMS_CA_PIN": ""}
AWAY = {
    "HMS_CONTROL": "https://127.0.0.1:1",
    "HMS_ADMIN_TOKEN": "hmsadm1.not-to-be-shown",
    "HMS_CA_PIN": "sha256:" + "ab" * 32,
}


@pytest.mark.parametrize(
    "words", [["push", "x.yaml"], ["diff", "x.yaml"], ["history"], ["rollback", "1"], ["show"]]
)
def test_every_command_needs_a_control_plane(words: list[str]) -> None:
    result = hms("config", *words, env=NOTHING)
    assert result.exit_code == 2
    assert "HMS_CONTROL" in result.stderr
    result = hms("config", *words, env=AWAY)
    assert result.exit_code == 1
    assert "cannot be reached" in result.stderr
    assert "not-to-be-shown" not in result.output


@pytest.mark.parametrize("words", [["3"], ["3", "x.yaml"], ["1", "2", "3"]])
def test_a_difference_is_of_files_or_of_two_versions(words: list[str]) -> None:
    result = hms("config", "diff", *words, env=AWAY)
    assert result.exit_code == 2
    assert "give files, or two versions" in result.stderr


@pytest.mark.parametrize("words", [["rollback", "0"], ["rollback", "x"], ["show", "0"], ["push"]])
def test_what_is_no_version_is_a_usage_error(words: list[str], tmp_path: Path) -> None:
    assert hms("config", *words, env=AWAY).exit_code == 2


@pytest.mark.parametrize(
    "words",
    [["rollback", "N"], ["show", "N"], ["push", "--made-from", "N", "x.yaml"], ["diff", "1", "N"]],
)
def test_what_is_no_number_of_a_version_is_not_sent(words: list[str]) -> None:
    """The control plane would speak of its API instead."""
    for number, code in ((10**15, 2), (9 * 10**20, 2), (10**15 - 1, 1)):
        result = hms("config", *(str(number) if word == "N" else word for word in words), env=AWAY)
        assert result.exit_code == code
        assert ("cannot be reached" in result.stderr) == (code == 1)
