"""`hms up` and `hms down`: a whole mesh on this machine."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hms_addons.cli.output import FAILED, Json, fail, write
from hms_addons.errors import MeshError

if TYPE_CHECKING:
    from hms_addons.up.mesh_file import Mesh
    from hms_addons.up.report import Report
    from hms_addons.up.run_state import RunState

MeshFile = Annotated[
    Path,
    typer.Argument(metavar="[FILE]", help="What the mesh is made of. Default mesh.yaml."),
]
DEFAULT = Path("mesh.yaml")


def up(
    file: MeshFile = DEFAULT,
    *,
    as_json: Json = False,
    plain: Annotated[
        bool, typer.Option("--plain", envvar="HMS_PLAIN", help="Lines alone, no live table.")
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option("--verbose", "-v", envvar="HMS_VERBOSE", help="Sidecars tell all they do."),
    ] = False,
) -> None:
    """Run a whole mesh from one file: control plane, a sidecar for each app, and the apps.

    Example: `hms init && hms up`

    What dies is started again, after a pause that doubles. Edits of the file are applied while it
    runs; one that cannot be is refused with its line, and what runs goes on. Ctrl-C drains in order,
    a second one kills. Its state is in `.hms` beside the file.
    """
    from hms_addons.config.problems import ConfigProblems  # noqa: PLC0415 - start-up time
    from hms_addons.up.mesh_file import read_mesh, told  # noqa: PLC0415
    from hms_addons.up.run_state import RunState  # noqa: PLC0415

    path = file.expanduser()
    try:
        if not path.exists() and path == DEFAULT:
            raise fail("there is no mesh.yaml here: `hms init` writes one to start from")
        mesh = read_mesh(path)
        state = RunState(path)
        state.take()
    except ConfigProblems as error:
        raise fail(f"{path} cannot be used:\n{told(error)}") from None
    except MeshError as error:
        raise fail(str(error)) from None
    report = _report(as_json=as_json, plain=plain)
    try:
        code = asyncio.run(_run(state, mesh, report, verbose=verbose))
    except MeshError as error:
        report.close()
        raise fail(str(error)) from None
    finally:
        report.close()
        state.release()
    raise typer.Exit(code)


def _report(*, as_json: bool, plain: bool) -> Report:
    from hms_addons.clock import SYSTEM_CLOCK  # noqa: PLC0415 - start-up time
    from hms_addons.up.report import JsonReport, LiveReport, Terminal, TextReport  # noqa: PLC0415

    if as_json:
        return JsonReport(sys.stdout, SYSTEM_CLOCK)
    console = Terminal(highlight=False, markup=False, emoji=False)
    # Rich takes FORCE_COLOR for a terminal, too.
    if console.is_terminal and sys.stdout.isatty() and not plain:
        return LiveReport(console, SYSTEM_CLOCK)
    return TextReport(console)


async def _run(state: RunState, mesh: Mesh, report: Report, *, verbose: bool) -> int:
    from random import Random  # noqa: PLC0415 - start-up time

    from hms_addons.clock import SYSTEM_CLOCK  # noqa: PLC0415
    from hms_addons.up.supervisor import Supervisor  # noqa: PLC0415

    rng = Random()  # noqa: S311 - pauses, not cryptography
    supervisor = Supervisor(state, mesh, os.environ, report, SYSTEM_CLOCK, rng, verbose=verbose)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, supervisor.stop)
    # Two who say `hms down`, or a terminal that goes away meanwhile, do not cut the drain short.
    for number in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, partial(supervisor.stop, hurry=False))
    for problem in mesh.warnings:
        report.say(str(problem))
    return await supervisor.run()


def down(
    file: MeshFile = DEFAULT,
    *,
    kill: Annotated[
        bool, typer.Option("--kill", envvar="HMS_KILL", help="At once, without a drain.")
    ] = False,
) -> None:
    """End what `hms up` runs for a file, in order, and wait until it has ended.

    Also what a killed `hms up` has left behind. Exit code 0 if nothing is left.

    Example: `hms down`
    """
    from hms_addons.up.down import bring_down  # noqa: PLC0415 - start-up time

    try:
        said = asyncio.run(bring_down(file.expanduser(), kill=kill))
    except MeshError as error:
        raise fail(str(error), FAILED) from None
    write(said + "\n")
