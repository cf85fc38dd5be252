"""How every command fails and prints."""

from __future__ import annotations

import json
import os
import sys
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

FAILED: Final = 1
USAGE: Final = 2

Json = Annotated[bool, typer.Option("--json", envvar="HMS_JSON", help="Print JSON, for scripts.")]


def paths(names: list[str]) -> list[Path]:
    """The files that were named, one a word or several with commas."""
    return [Path(part).expanduser() for name in names for part in name.split(",") if part]


def fail(message: str, code: int = FAILED) -> typer.Exit:
    """Say what went wrong; raise what comes back."""
    sys.stderr.write(f"hms: {message}\n")
    return typer.Exit(code)


def print_json(value: object) -> None:
    """Print a value as a script reads it."""
    write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write(text: str) -> None:
    """Write to standard output, at once.

    Raises:
        typer.Exit: it takes no more; said why, but where somebody has seen enough, as `head`.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        raise _unwritable(error) from None


def run(command: Callable[[], object]) -> None:
    """Run a command to its end; what others have printed for it, as its help, is written, too.

    Raises:
        SystemExit: as the command ends; with 1 if standard output takes no more.
    """
    if isinstance(sys.stdout, TextIOWrapper):
        # In a locale without "│" a question mark will do; a traceback would not.
        sys.stdout.reconfigure(errors="replace")
    try:
        command()
    finally:
        try:
            if sys.stdout is not None:  # else it was closed from the start
                sys.stdout.flush()
        except OSError as error:
            raise SystemExit(_unwritable(error).exit_code) from None


def _unwritable(error: OSError) -> typer.Exit:
    # What is left in its buffer would fail once more at the exit, with a traceback.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):
        return typer.Exit(FAILED)
    return fail(f"cannot write: {error.strerror or error}")
