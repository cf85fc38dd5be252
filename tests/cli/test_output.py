from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from hms_addons.cli.output import FAILED, USAGE, fail, paths, print_json

if TYPE_CHECKING:
    import pytest


def test_files_are_named_by_words_and_by_commas() -> None:
    assert paths(["a.yaml,b.yaml", "c.yaml"]) == [Path("a.yaml"), Path("b.yaml"), Path("c.yaml")]
    assert paths(["~/a.yaml", ","]) == [Path.home() / "a.yaml"]


def test_a_failure_is_said_on_stderr_and_ends_the_command(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ending = fail("no such thing")
    assert isinstance(ending, typer.Exit)
    assert ending.exit_code == FAILED
    assert fail("not so", USAGE).exit_code == USAGE
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "hms: no such thing\nhms: not so\n"


def test_json_is_for_scripts_and_keeps_every_letter(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"name": "Müller"})
    out = capsys.readouterr().out
    assert json.loads(out) == {"name": "Müller"}
    assert "Müller" in out
