from __future__ import annotations

import pytest

from tests.fakes.cli import hms


@pytest.mark.parametrize("command", ["status", "services"])
def test_without_a_control_plane_nothing_is_shown(command: str) -> None:
    result = hms(command, env={"HMS_CONTROL": "", "HMS_ADMIN_TOKEN": "", "HMS_CA_PIN": ""})
    assert result.exit_code == 2
    assert "give --control" in result.stderr


@pytest.mark.parametrize("words", [["status"], ["status", "--watch"], ["services", "--json"]])
def test_a_control_plane_that_is_away_is_said_and_is_wrong(words: list[str]) -> None:
    result = hms(
        *words,
        *("--control", "https://127.0.0.1:1", "--admin-token", "hmsadm1.x"),
        *("--ca-pin", "sha256:" + "ab" * 32),
    )
    assert result.exit_code == 1
    assert "https://127.0.0.1:1 cannot be reached" in result.stderr
