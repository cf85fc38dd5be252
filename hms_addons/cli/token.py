"""`hms token`: join tokens, by which a sidecar gets its first SVID."""

from __future__ import annotations

import re
import sys
from typing import Annotated, Final

import typer

from hms_addons.cli.operator import AdminToken, CaPin, Control, connect, outcome_of, show
from hms_addons.cli.output import USAGE, Json, fail

token = typer.Typer(
    help="Join tokens, by which a sidecar gets its first SVID.\n\n"
    "Example: `hms token create --service auth-svc`, then `hms sidecar --service auth-svc --token …`.",
    no_args_is_help=True,
)

_ID: Final = re.compile(r"[a-z0-9]+")


@token.command()
def create(
    service: Annotated[
        str,
        typer.Option("--service", envvar="HMS_SERVICE", metavar="NAME", help="Whom it lets in."),
    ],
    ttl: Annotated[
        str, typer.Option("--ttl", envvar="HMS_TOKEN_TTL", metavar="TIME", help="As 10m or 2h.")
    ] = "10m",
    control: Control = None,
    admin_token: AdminToken = None,
    ca_pin: CaPin = None,
    *,
    as_json: Json = False,
) -> None:
    """Make a token that is good for one sidecar of one service, and print it this once.

    Example: `export HMS_TOKEN=$(hms token create --service auth-svc)`
    """
    from hms_addons.config.schema_base import parse_duration  # noqa: PLC0415 - start-up time
    from hms_addons.operator_client import trust_commands  # noqa: PLC0415

    try:
        seconds = parse_duration(ttl)
    except ValueError as error:
        raise fail(f"--ttl {ttl}: {error}", USAGE) from None
    client = connect(control, admin_token, ca_pin)
    found = outcome_of(client, lambda asked: trust_commands.create_token(asked, service, seconds))
    show(found, as_json=as_json)
    if not as_json:
        sys.stderr.write(f"good for one sidecar of {service}, for {ttl}; it is not shown again\n")


@token.command("list")
def list_tokens(
    control: Control = None,
    admin_token: AdminToken = None,
    ca_pin: CaPin = None,
    *,
    as_json: Json = False,
) -> None:
    """List the tokens there are, used and expired ones for a day; never their secrets.

    Example: `hms token list`
    """
    from hms_addons.clock import SYSTEM_CLOCK  # noqa: PLC0415 - start-up time
    from hms_addons.operator_client import trust_commands  # noqa: PLC0415

    client = connect(control, admin_token, ca_pin)
    found = outcome_of(client, lambda asked: trust_commands.list_tokens(asked, SYSTEM_CLOCK))
    show(found, as_json=as_json)


@token.command()
def revoke(
    token_id: Annotated[
        str, typer.Argument(metavar="ID", help="As `hms token list` shows it; not the token.")
    ],
    control: Control = None,
    admin_token: AdminToken = None,
    ca_pin: CaPin = None,
    *,
    as_json: Json = False,
) -> None:
    """Revoke a token: it lets nobody in any more. Sidecars that have joined stay.

    Example: `hms token revoke 1f2e3d4c5b6a`
    """
    from hms_addons.operator_client import trust_commands  # noqa: PLC0415 - start-up time

    if not _ID.fullmatch(token_id):  # not quoted: it may be the token itself
        raise fail("revoke: that is no token's ID; `hms token list` shows them", USAGE)
    client = connect(control, admin_token, ca_pin)
    found = outcome_of(client, lambda asked: trust_commands.revoke_token(asked, token_id))
    show(found, as_json=as_json)
