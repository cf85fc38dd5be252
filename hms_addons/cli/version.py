"""`hms --version`: what runs here, for bug reports and for those who wonder why it is slow."""

from __future__ import annotations

import importlib.util
import platform
from importlib import metadata
from typing import Annotated

import typer

_HOT = "hms_addons.exchange"
"""One of the modules that `scripts/compile` compiles."""


def compiled(module: str = _HOT) -> bool:
    """Whether the module that would be imported is machine code."""
    spec = importlib.util.find_spec(module)
    return spec is not None and (spec.origin or "").endswith((".so", ".pyd"))


def text() -> str:
    """One line: our version, and what it stands on."""
    hot = "compiled" if compiled() else "interpreted"
    versions = f"mitmproxy {metadata.version('mitmproxy')}, Python {platform.python_version()}"
    return f"hms-svc {metadata.version('hms-svc')} (hot path {hot}, {versions})"


def _print(wanted: bool) -> None:  # noqa: FBT001 - typer's callbacks take the value
    if wanted:
        typer.echo(text())
        raise typer.Exit


def version(
    _shown: Annotated[  # noqa: FBT002 - typer makes the flag of it
        bool,
        typer.Option("--version", callback=_print, is_eager=True, help="Say what runs here."),
    ] = False,
) -> None:
    """Options of `hms` itself."""
