from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.fakes.cli import hms

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--loop", "twisted"], "give uvloop or asyncio"),
        (["--log-level", "loud"], "give debug, info, warning or error"),
        (["--admin", "here"], "give host:port"),
    ],
)
def test_sidecar_usage_errors(good: Path, arguments: list[str], said: str) -> None:
    result = hms("sidecar", "--config", good, *arguments)
    assert result.exit_code == 2
    assert said in result.stderr


def test_sidecar_needs_a_configuration() -> None:
    result = hms("sidecar", env={"HMS_CONFIG": ""})
    assert result.exit_code == 2
    assert "--config" in result.stderr


def test_metadata_that_cannot_be_is_a_usage_error() -> None:
    control = ("--control", "https://127.0.0.1:1", "--service", "auth-svc")
    for arguments, variables in ((["--metadata", "team"], {}), ([], {"HMS_METADATA": "a=1,team"})):
        result = hms("sidecar", *control, *arguments, env=variables)
        assert result.exit_code == 2
        assert "--metadata team: give name=value" in result.stderr


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [("HMS_LOOP", "twisted", "--loop"), ("HMS_ADMIN", "x", "host:port")],
)
def test_sidecar_reads_its_variables(good: Path, variable: str, value: str, said: str) -> None:
    result = hms("sidecar", env={"HMS_CONFIG": str(good), variable: value})
    assert result.exit_code == 2
    assert said in result.stderr
