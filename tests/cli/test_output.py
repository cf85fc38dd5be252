from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import typer

from hms_addons.cli import app
from hms_addons.cli.output import FAILED, USAGE, fail, paths, print_json, run, write

if TYPE_CHECKING:
    from collections.abc import Iterator


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


def test_what_the_locale_cannot_write_ends_no_command(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(taken, encoding="ascii"))
    run(lambda: write("a │ b\n"))
    assert taken.getvalue() == b"a ? b\n"


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
    """But those that must not be left on: a new token at each start, a root that is hurried away, rules
    that change where a machine's calls go."""
    without = [
        f"{path} {option.opts[0]}"
        for path, command in every_command(typer.main.get_command(app))
        for option in command.params
        if option.param_type_name == "option"
        and option.opts[0] not in {"--help", "-h"}
        and not str(option.envvar or "").startswith("HMS_")
    ]
    assert set(without) == {
        "hms control --reset-admin-token",
        "hms ca rotate-root --now",
        *(
            f"hms iptables {word} {option}"
            for word in ("up", "down")
            for option in ("--apply", "--host")
        ),
    }


SHORT, LONG = 1, 2000
"""Problems: what they take to print fits in a buffer, or does not."""


@pytest.fixture
def check(tmp_path: Path, request: pytest.FixtureRequest) -> list[str]:
    """A command that tells many problems."""
    path = tmp_path / "bad.yaml"
    path.write_text("listeners:\n" + "  - {name: 7, prt: 1}\n" * request.param)
    return ["hms", "check", "--json", str(path)]


def into_full(command: list[str], unbuffered: str = "") -> subprocess.CompletedProcess[str]:
    """Run it where nothing can be written."""
    with Path("/dev/full").open("wb") as full:
        return subprocess.run(
            command,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )


def test_help_that_cannot_be_written_is_said_in_one_line() -> None:
    ended = into_full(["hms", "certs", "--help"])
    assert ended.stderr == "hms: cannot write: No space left on device\n"
    assert ended.returncode == FAILED


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("check", [SHORT, LONG], indirect=True)
def test_output_that_cannot_be_written_is_said_in_one_line(
    check: list[str], unbuffered: str
) -> None:
    ended = into_full(check, unbuffered)
    assert ended.stderr == "hms: cannot write: No space left on device\n"
    assert ended.returncode == FAILED


@pytest.mark.parametrize("check", [SHORT, LONG], indirect=True)
def test_who_has_seen_enough_is_told_nothing(check: list[str]) -> None:
    with subprocess.Popen(
        check, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == FAILED


def test_what_else_fails_is_not_taken_for_it(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        print_json({})
        raise FileNotFoundError(2, "none", "x")

    with pytest.raises(FileNotFoundError):
        run(command)
    with pytest.raises(SystemExit) as caught:
        run(lambda: app(["check", "/no/such/file"]))
    assert caught.value.code == FAILED
    assert "cannot write" not in capsys.readouterr().err
