"""What the commands that ask a control plane have in common: its address, its pin, the token."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from hms_addons.cli.output import FAILED, USAGE, fail, print_json, write
from hms_addons.errors import MeshError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from hms_addons.operator_client.client import OperatorClient
    from hms_addons.operator_client.outcome import Outcome

Control = Annotated[
    str | None,
    typer.Option(
        "--control",
        envvar="HMS_CONTROL",
        metavar="URL",
        help="The control plane, as https://127.0.0.1:15010.",
    ),
]
AdminToken = Annotated[
    str | None,
    typer.Option(
        "--admin-token",
        envvar="HMS_ADMIN_TOKEN",
        metavar="TOKEN",
        help="What `hms control` printed at its first start; better given by its variable.",
    ),
]
CaPin = Annotated[
    str | None,
    typer.Option(
        "--ca-pin",
        envvar="HMS_CA_PIN",
        metavar="PIN",
        help="The fingerprint of its CA, as sha256:…, which it prints at every start.",
    ),
]


def connect(control: str | None, token: str | None, pin: str | None) -> OperatorClient:
    """A client for what was given.

    Raises:
        typer.Exit: something is missing or cannot be.
    """
    from hms_addons.clock import SYSTEM_CLOCK  # noqa: PLC0415 - start-up time
    from hms_addons.operator_client.client import OperatorClient  # noqa: PLC0415

    missing = [
        name
        for name, value in (
            ("--control (HMS_CONTROL)", control),
            ("--ca-pin (HMS_CA_PIN)", pin),
            ("--admin-token (HMS_ADMIN_TOKEN)", token),
        )
        if not value
    ]
    if not (control and token and pin):
        raise fail(
            f"give {', '.join(missing)}: `hms control` prints all three, ready to be copied", USAGE
        )
    try:
        return OperatorClient(control, token, pin, SYSTEM_CLOCK)
    except MeshError as error:
        raise fail(str(error), USAGE) from None


def outcome_of(
    client: OperatorClient, work: Callable[[OperatorClient], Awaitable[Outcome]]
) -> Outcome:
    """Do some work with a connected client.

    Raises:
        typer.Exit: it was in vain; said why.
    """

    async def connected() -> Outcome:
        async with client:
            return await work(client)

    try:
        return asyncio.run(connected())
    except MeshError as error:
        raise fail(str(error)) from None


def show(outcome: Outcome, *, as_json: bool) -> None:
    """Print what was found; end with exit code 1 if it is not good."""
    if as_json:
        print_json(outcome.document)
    elif outcome.text:
        write(outcome.text.rstrip("\n") + "\n")
    if not outcome.ok:
        raise typer.Exit(FAILED)
