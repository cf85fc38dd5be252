from __future__ import annotations

import typer
from typer.testing import CliRunner

from hms_addons.cli.one_command import leave_only


def _app() -> typer.Typer:
    app, group = typer.Typer(), typer.Typer()

    @app.callback()
    def options() -> None:
        """Options of all."""

    @app.command()
    def first() -> None:
        typer.echo("first ran")

    @app.command("second")
    def otherwise_called() -> None:
        typer.echo("second ran")

    @group.command()
    def within() -> None:
        typer.echo("within ran")

    app.add_typer(group, name="group")
    return app


def _names(app: typer.Typer) -> set[str]:
    command = typer.main.get_command(app)
    assert isinstance(command, typer.core.TyperGroup)
    return set(command.commands)


def test_the_command_that_is_meant_is_left_and_runs() -> None:
    for word, words in [("first", []), ("second", []), ("group", ["within"])]:
        app = _app()
        leave_only(app, word)
        assert _names(app) == {word}
        assert CliRunner().invoke(app, [word, *words]).stdout == f"{[word, *words][-1]} ran\n"


def test_no_such_command_leaves_them_all() -> None:
    for word in ("", "--help", "frist", "otherwise_called", "within"):
        app = _app()
        leave_only(app, word)
        assert _names(app) == {"first", "second", "group"}
