"""`hms logs`, `hms open` and `hms top`: a look at a mesh that `hms up` runs."""

from __future__ import annotations

import asyncio
import os
import sys
import webbrowser
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
WINDOW_TIME = 60.0
"""Seconds for a window to open on a busy machine."""


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


def open_service(
    service: Service,
    file: MeshFile = DEFAULT,
    *,
    close: Annotated[
        bool, typer.Option("--close", envvar="HMS_CLOSE", help="Close the window again.")
    ] = False,
    browser: Annotated[
        bool,
        typer.Option(
            "--browser/--no-browser",
            envvar="HMS_BROWSER",
            help="Show it in a browser, if there is one.",
        ),
    ] = True,
    as_json: Json = False,
) -> None:
    """Open a window on a service: mitmweb on its sidecar, where its traffic is watched, held, edited and replayed.

    The sidecar goes on as it is, and no request is lost, when the window opens or closes. With
    several instances, name one. With --json nothing is opened: it tells where a service's instances are, their calls and
    their admin ports. Of `control-plane` it prints lines for a shell, the admin token among them.

    Example: `hms open hello-svc-1`

    Example: `hms open hello-svc-1 --close`

    Example: `eval "$(hms open control-plane)"; hms status`
    """
    told = _told(file)
    if service == "control-plane":
        _open_control(file, told, as_json=as_json)
        return
    chosen = chosen_instances(told["instances"], service)
    if as_json:
        print_json(chosen)
        return
    if len(chosen) > 1:
        names = " or ".join(f"`hms open {one['name']}`" for one in chosen)
        raise fail(
            f"{service} has {len(chosen)} instances, each with a sidecar of its own: {names}"
        )
    [one] = chosen
    write(f"{one['name']}: {one['state']}\n  app     {one['app'] or '(not known to listen)'}\n")
    if not one["admin"]:
        raise fail(f"{one['name']} has no sidecar, so there is nothing to look into")
    write(f"  calls   {one['url']}\n  admin   http://127.0.0.1:{one['admin']}\n")
    found = _ask_window(one, close=close)
    if close:
        write(f"  window  {'closed' if found['closed'] else 'was not open'}\n")
        return
    write(f"  window  {found['url']}\n")
    if browser and (sys.platform == "darwin" or {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys()):
        webbrowser.open(found["url"])


def chosen_instances(found: list[dict[str, Any]], service: str) -> list[dict[str, Any]]:
    """The instances of that name, or of a service of that name; ends the command if there is none."""
    from hms_addons.config.problems import closest  # noqa: PLC0415 - start-up time

    names = ("name", "group", "service")
    chosen = [one for one in found if service in {one[key] for key in names}]
    if not chosen:
        known = sorted({one[key] for one in found for key in names})
        guess = closest(service, known)
        hint = f" (did you mean {guess}?)" if guess else f"; there are: {', '.join(known)}"
        raise fail(f"there is no service {service}{hint}")
    return chosen


def _open_control(file: Path, told: dict[str, Any], *, as_json: bool) -> None:
    from hms_addons.up.run_state import RunState  # noqa: PLC0415 - start-up time

    token = RunState(file.expanduser()).admin_token
    variables = {"HMS_CONTROL": told["control"], "HMS_CA_PIN": told["ca_pin"]}
    variables["HMS_ADMIN_TOKEN"] = token or ""
    if as_json:
        print_json(variables)
    else:
        write("".join(f"export {name}={value}\n" for name, value in variables.items()))


def _ask_window(one: dict[str, Any], *, close: bool) -> dict[str, Any]:
    """Have the sidecar open or close its window; what it says of it."""
    import httpx  # noqa: PLC0415 - start-up time

    url = f"http://127.0.0.1:{one['admin']}/window"
    wanted = {"open": "no" if close else "yes", "format": "json"}
    try:
        # The first time, mitmweb is imported there.
        answer = httpx.post(url, params=wanted, timeout=WINDOW_TIME, trust_env=False)
        found: dict[str, Any] = answer.json()
    except (httpx.HTTPError, ValueError) as error:
        raise fail(
            f"the sidecar of {one['name']} does not answer at {url}: {error}", FAILED
        ) from None
    if not answer.is_success:
        raise fail(f"{one['name']}: {found.get('detail', answer.text)}", FAILED)
    return found


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
