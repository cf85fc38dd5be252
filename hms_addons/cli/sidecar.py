"""`hms sidecar`: run a sidecar."""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import typer

from hms_addons.bootstrap import DEFAULT_ADMIN, parse_admin
from hms_addons.cli.output import USAGE, fail, paths
from hms_addons.errors import MeshError


def sidecar(
    config: Annotated[
        list[str],
        typer.Option(
            "--config", "-c", envvar="HMS_CONFIG", help="A configuration file; may be repeated."
        ),
    ],
    service: Annotated[
        str | None,
        typer.Option("--service", envvar="HMS_SERVICE", help="The service it stands beside."),
    ] = None,
    admin: Annotated[
        str,
        typer.Option("--admin", envvar="HMS_ADMIN", help="Address of the admin port, or `off`."),
    ] = DEFAULT_ADMIN,
    disable: Annotated[
        list[str] | None,
        typer.Option("--disable", envvar="HMS_DISABLE", help="An installed plugin to leave out."),
    ] = None,
    loop: Annotated[
        str, typer.Option("--loop", envvar="HMS_LOOP", help="Event loop: `uvloop` or `asyncio`.")
    ] = "uvloop",
    log_level: Annotated[
        str,
        typer.Option("--log-level", envvar="HMS_LOG_LEVEL", help="debug, info, warning or error."),
    ] = "info",
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="[-- CMD…]", help="The app to run once the sidecar is ready."),
    ] = None,
) -> None:
    """Run a sidecar, and optionally the app it stands beside.

    Example: `hms sidecar --config routes.yaml --config local.yaml -- python app.py`

    The files are followed: a change is applied without a restart, a bad one is refused and the old
    configuration goes on. SIGTERM drains. With a command the exit code is the app's.
    """
    from hms_addons.sidecar_process import SidecarProcess, run  # noqa: PLC0415 - start-up time

    if loop not in {"uvloop", "asyncio"}:
        raise fail(f"--loop {loop}: give uvloop or asyncio", USAGE)
    level = logging.getLevelNamesMapping().get(log_level.upper())
    if level is None:
        raise fail(f"--log-level {log_level}: give debug, info, warning or error", USAGE)
    logging.basicConfig(
        level=level, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s", stream=sys.stderr
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger("httpcore").setLevel(logging.WARNING)
    try:
        address = parse_admin(admin)
    except MeshError as error:
        raise fail(str(error), USAGE) from None

    async def main() -> int:
        return await SidecarProcess(
            paths(config),
            service=service,
            admin=address,
            disabled=disable or (),
            command=command or (),
        ).run()

    raise typer.Exit(run(main, loop=loop))
