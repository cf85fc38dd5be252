from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import typer

from hms_addons.cli.operator import connect, outcome_of, show
from hms_addons.operator_client.outcome import Outcome

if TYPE_CHECKING:
    from hms_addons.operator_client.client import OperatorClient

PIN = "sha256:" + "ab" * 32
NOBODY = "https://127.0.0.1:1"


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ((None, None, None), ["--control", "--ca-pin", "--admin-token"]),
        ((NOBODY, "", PIN), ["--admin-token (HMS_ADMIN_TOKEN)"]),
        ((NOBODY, "hmsadm1.x", None), ["--ca-pin (HMS_CA_PIN)"]),
    ],
)
def test_what_is_missing_is_named_with_its_variable(
    given: tuple[str | None, str | None, str | None],
    missing: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(typer.Exit) as caught:
        connect(*given)
    assert caught.value.exit_code == 2
    said = capsys.readouterr().err
    assert [word for word in missing if word not in said] == []
    assert "hms control" in said


@pytest.mark.parametrize(
    "given",
    [("http://x", "hmsadm1.x", PIN), (NOBODY, "two words", PIN), (NOBODY, "hmsadm1.x", "beef")],
)
def test_what_cannot_be_is_a_usage_error_that_shows_no_token(
    given: tuple[str, str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as caught:
        connect(*given)
    assert caught.value.exit_code == 2
    said = capsys.readouterr().err
    assert said.startswith("hms: ")
    assert "two words" not in said


def test_a_control_plane_that_is_away_is_said_in_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def never(client: OperatorClient) -> Outcome:
        raise AssertionError(client)

    with pytest.raises(typer.Exit) as caught:
        outcome_of(connect(NOBODY, "hmsadm1.x", PIN), never)
    assert caught.value.exit_code == 1
    said = capsys.readouterr().err
    assert said.startswith(f"hms: {NOBODY} cannot be reached")
    assert said.count("\n") == 1


def test_a_good_outcome_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    show(Outcome("text\n\n", {"a": 1}), as_json=False)
    assert capsys.readouterr().out == "text\n"
    show(Outcome("text", {"a": 1}), as_json=True)
    assert capsys.readouterr().out == '{\n  "a": 1\n}\n'


def test_one_that_is_not_good_ends_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as caught:
        show(Outcome("wrong", {}, ok=False), as_json=False)
    assert caught.value.exit_code == 1
    assert capsys.readouterr().out == "wrong\n"
