"""`hms logs`, `hms open` and `hms top`: a look at a mesh that `hms up` runs."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hms_addons.cli.output import FAILED, Json, fail, print_json, write
from hms_addons.cli.up import DEFAULT, MeshFile
from hms_addons.errors import MeshError

if TYPE_CHECKING:
    from pathlib import Path

    from hms_addons.up.log_files import LogReader
    from hms_addons.up.run_state import RunState

Service = Annotated[
    str, typer.Argument(metavar="SERVICE", help="As in the file; or one instance, as auth-svc-2.")
]
FOLLOWED = 0.3
LOOK = 1.0


def logs(
    service: Service,
    file: MeshFile = DEFAULT,
    *,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", envvar="HMS_FOLLOW", help="Go on until Ctrl-C.")
    ] = False,
) -> None:
    """Show what a service's instances have written, by time; also after the mesh has ended.

    Example: `hms logs hello-svc -f`
    """
    from hms_addons.up.log_files import LogReader  # noqa: PLC0415 - start-up time
    from hms_addons.up.run_state import RunState  # noqa: PLC0415

    try:
        reader = LogReader(RunState(file.expanduser()).logs, service)
    except MeshError as error:
        raise fail(str(error)) from None
    _print_new(reader)
    if follow:
        try:
            asyncio.run(_follow(reader))
        except KeyboardInterrupt:
            return


def _print_new(reader: LogReader) -> None:
    if lines := reader.new():
        write("".join(f"{name} │ {line}\n" for name, line in lines))


async def _follow(reader: LogReader) -> None:
    from hms_addons.clock import SYSTEM_CLOCK  # noqa: PLC0415 - start-up time

    while True:
        await SYSTEM_CLOCK.sleep(FOLLOWED)
        _print_new(reader)


def open_service(service: Service, file: MeshFile = DEFAULT, *, as_json: Json = False) -> None:
    """Say where a service's instances are: the app, its calls, and the sidecar's admin port.

    Of `control-plane` it prints lines for a shell, the admin token among them.

    Example: `hms open hello-svc`

    Example: `eval "$(hms open control-plane)"; hms status`
    """
    from hms_addons.config.problems import closest  # noqa: PLC0415 - start-up time
    from hms_addons.up.run_state import RunState  # noqa: PLC0415

    told = _told(file)
    if service == "control-plane":
        token = RunState(file.expanduser()).admin_token
        variables = {"HMS_CONTROL": told["control"], "HMS_CA_PIN": told["ca_pin"]}
        variables["HMS_ADMIN_TOKEN"] = token or ""
        if as_json:
            print_json(variables)
        else:
            write("".join(f"export {name}={value}\n" for name, value in variables.items()))
        return
    found = told["instances"]
    names = ("name", "group", "service")
    chosen = [one for one in found if service in {one[key] for key in names}]
    if not chosen:
        known = sorted({one[key] for one in found for key in names})
        guess = closest(service, known)
        hint = f" (did you mean {guess}?)" if guess else f"; there are: {', '.join(known)}"
        raise fail(f"there is no service {service}{hint}")
    if as_json:
        print_json(chosen)
        return
    for one in chosen:
        write(f"{one['name']}: {one['state']}\n  app    {one['app'] or '(not known to listen)'}\n")
        if one["admin"]:  # It has a sidecar.
            write(f"  calls  {one['url']}\n  admin  http://127.0.0.1:{one['admin']}\n")


def top(
    file: MeshFile = DEFAULT,
    *,
    once: Annotated[
        bool, typer.Option("--once", envvar="HMS_ONCE", help="Look for a second, and end.")
    ] = False,
) -> None:
    """Show the table of `hms up` for a mesh that runs elsewhere: state, requests, errors, breakers.

    Example: `hms top`
    """
    from hms_addons.up.run_state import RunState  # noqa: PLC0415 - start-up time

    _told(file)
    try:
        asyncio.run(_top(RunState(file.expanduser()), once=once or not sys.stdout.isatty()))
    except KeyboardInterrupt:
        return
    except MeshError as error:
        raise fail(str(error), FAILED) from None


def _told(file: Path) -> dict[str, Any]:
    from hms_addons.up.run_state import RunState  # noqa: PLC0415 - start-up time

    try:
        return RunState(file.expanduser()).told()
    except MeshError as error:
        raise fail(str(error)) from None


async def _top(state: RunState, *, once: bool) -> None:
    from rich.console import Console  # noqa: PLC0415 - start-up time
    from rich.live import Live  # noqa: PLC0415

    from hms_addons.clock import SYSTEM_CLOCK  # noqa: PLC0415
    from hms_addons.operator_client.fleet_status import WIDTH  # noqa: PLC0415
    from hms_addons.up.table import table_of  # noqa: PLC0415
    from hms_addons.up.watched import Watched  # noqa: PLC0415

    async with Watched(state, SYSTEM_CLOCK) as watched:
        await watched.rows()
        await SYSTEM_CLOCK.sleep(LOOK)
        if once:
            console = Console(highlight=False, markup=False)
            if not console.is_terminal:
                console.width = WIDTH
            console.print(table_of(await watched.rows()))
            return
        with Live(table_of(await watched.rows()), screen=False) as live:
            while True:
                await SYSTEM_CLOCK.sleep(LOOK)
                live.update(table_of(await watched.rows()))
