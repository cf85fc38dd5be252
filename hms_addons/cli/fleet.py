"""`hms status` and `hms services`: what the control plane knows of the mesh."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from hms_addons.cli.operator import AdminToken, CaPin, Control, connect, outcome_of, show
from hms_addons.cli.output import FAILED, Json, fail, write
from hms_addons.errors import MeshError

if TYPE_CHECKING:
    from hms_addons.operator_client.client import OperatorClient

WATCH_INTERVAL = 2.0
_CLEAR = "\x1b[2J\x1b[H"


def status(
    control: Control = None,
    admin_token: AdminToken = None,
    ca_pin: CaPin = None,
    *,
    as_json: Json = False,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch",
            "-w",
            envvar="HMS_WATCH",
            help="Show it anew every other second, until Ctrl-C.",
        ),
    ] = False,
) -> None:
    """Show every sidecar: its configuration, certificate, endpoints and breakers; and what is wrong.

    Example: `hms status --watch`

    Exit code 0: all are in sync and well; 1: something is wrong, and a line says what, for each
    thing: a configuration that was refused, a certificate that is about to expire, a sidecar that
    is gone, a breaker that is open.
    """
    from hms_addons.clock import SYSTEM_CLOCK  # noqa: PLC0415 - start-up time
    from hms_addons.operator_client import fleet_status  # noqa: PLC0415

    client = connect(control, admin_token, ca_pin)
    if watch:
        raise typer.Exit(_watch(client))
    found = outcome_of(
        client, lambda asked: fleet_status.status(asked, SYSTEM_CLOCK, width=_width())
    )
    show(found, as_json=as_json)


def services(
    control: Control = None,
    admin_token: AdminToken = None,
    ca_pin: CaPin = None,
    *,
    as_json: Json = False,
) -> None:
    """List the services that are registered, and their instances.

    Example: `hms services --json`
    """
    from hms_addons.operator_client import fleet_status  # noqa: PLC0415 - start-up time

    client = connect(control, admin_token, ca_pin)
    found = outcome_of(client, lambda asked: fleet_status.services(asked, width=_width()))
    show(found, as_json=as_json)


def _width() -> int | None:
    """The terminal's columns, or None: there is none."""
    if not sys.stdout.isatty():
        return None
    from rich.console import Console  # noqa: PLC0415 - start-up time

    return Console().width


def _watch(client: OperatorClient) -> int:
    """Show it again and again; the exit code says how it was at last."""
    from hms_addons.clock import SYSTEM_CLOCK  # noqa: PLC0415 - start-up time
    from hms_addons.operator_client import fleet_status  # noqa: PLC0415

    code = FAILED

    async def forever() -> None:
        nonlocal code
        async with client:
            while True:
                try:
                    found = await fleet_status.status(client, SYSTEM_CLOCK, width=_width())
                    text, code = found.text, 0 if found.ok else FAILED
                except MeshError as error:  # it may come back
                    text, code = f"{error}\n", FAILED
                write((_CLEAR if sys.stdout.isatty() else "") + text)
                await SYSTEM_CLOCK.sleep(WATCH_INTERVAL)

    try:
        asyncio.run(forever())
    except KeyboardInterrupt:
        write("\n")
    except MeshError as error:
        raise fail(str(error)) from None
    return code
