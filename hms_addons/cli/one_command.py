"""Builds the command that is meant, and no other."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import typer


def leave_only(app: typer.Typer, word: str) -> None:
    """Take all commands out of `app` but the one named `word`; none, if there is no such command.

    typer looks at every parameter of every command before it runs one, which takes longer than most
    commands do. Help, completion and a misspelt name need them all.
    """
    commands = [
        command
        for command in app.registered_commands
        if (command.name or getattr(command.callback, "__name__", "")) == word
    ]
    groups = [group for group in app.registered_groups if group.name == word]
    if commands or groups:
        app.registered_commands, app.registered_groups = commands, groups
