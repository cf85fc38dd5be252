"""How every command fails and prints."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

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
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
