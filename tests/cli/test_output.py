from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hms_addons.cli import app
from hms_addons.cli.output import FAILED, USAGE, fail, paths, print_json

if TYPE_CHECKING:
    from collections.abc import Iterator

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


def every_command(group: Any, path: str = "hms") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from every_command(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def test_every_option_has_its_environment_variable() -> None:
    """But those that must not be left on: a new token at each start, a root that is hurried away."""
    without = [
        f"{path} {option.opts[0]}"
        for path, command in every_command(typer.main.get_command(app))
        for option in command.params
        if option.param_type_name == "option"
        and option.opts[0] not in {"--help", "-h"}
        and not str(option.envvar or "").startswith("HMS_")
    ]
    assert without == ["hms control --reset-admin-token", "hms ca rotate-root --now"]
