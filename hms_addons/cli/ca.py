"""`hms ca`: the mesh's certificate authority, as the control plane runs it."""

from __future__ import annotations

from typing import Annotated

import typer

from hms_addons.cli.operator import AdminToken, CaPin, Control, connect, outcome_of, show
from hms_addons.cli.output import USAGE, Json, fail

ca = typer.Typer(
    help="The mesh's certificate authority, as the control plane runs it.\n\n"
    "Example: `hms ca show`",
    no_args_is_help=True,
)


@ca.command("show")
def show_ca(
    control: Control = None,
    admin_token: AdminToken = None,
    ca_pin: CaPin = None,
    *,
    as_json: Json = False,
) -> None:
    """Show the roots, the pin that new sidecars need, and how far a rotation is.

    Example: `hms ca show --json`
    """
    from hms_addons.clock import SYSTEM_CLOCK  # noqa: PLC0415 - start-up time
    from hms_addons.operator_client import trust_commands  # noqa: PLC0415

    client = connect(control, admin_token, ca_pin)
    found = outcome_of(client, lambda asked: trust_commands.show_ca(asked, SYSTEM_CLOCK))
    show(found, as_json=as_json)


@ca.command("rotate-root")
def rotate_root(
    overlap: Annotated[
        str | None,
        typer.Option(
            "--overlap",
            envvar="HMS_OVERLAP",
            metavar="TIME",
            help="How long to wait for sidecars that do not report; an SVID's life if not given.",
        ),
    ] = None,
    control: Control = None,
    admin_token: AdminToken = None,
    ca_pin: CaPin = None,
    *,
    now: Annotated[
        bool,
        typer.Option(
            "--now", help="End the present phase at once; sidecars that lag behind lose requests."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Replace the root without a gap: announce a new one, sign with it, retire the old one.

    Example: `hms ca rotate-root`, then `hms ca show`

    Each phase waits by itself until it is safe: until every sidecar that reports trusts the new
    root, then until the last SVID below the old one has expired. The pin changes with the last
    step. A sidecar that is cut off from the control plane all the while must join again.
    """
    from hms_addons.clock import SYSTEM_CLOCK  # noqa: PLC0415 - start-up time
    from hms_addons.config.schema_base import parse_duration  # noqa: PLC0415
    from hms_addons.operator_client import trust_commands  # noqa: PLC0415

    try:
        seconds = None if overlap is None else parse_duration(overlap)
    except ValueError as error:
        raise fail(f"--overlap {overlap}: {error}", USAGE) from None
    client = connect(control, admin_token, ca_pin)
    found = outcome_of(
        client,
        lambda asked: trust_commands.rotate_root(asked, SYSTEM_CLOCK, now=now, overlap=seconds),
    )
    show(found, as_json=as_json)
