"""`hms config`: the configuration that a control plane hands out."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Final

import typer

from hms_addons.cli.operator import AdminToken, CaPin, Control, connect, outcome_of, show
from hms_addons.cli.output import USAGE, Json, fail, paths

if TYPE_CHECKING:
    from hms_addons.operator_client.seen_versions import SeenVersions

config = typer.Typer(
    help="The configuration that the control plane hands out to the sidecars.\n\n"
    "Example: `hms config push routes.yaml`, then `hms status`.",
    no_args_is_help=True,
)

MAX_VERSION: Final = 10**15 - 1
"""What the control plane takes for a version's number."""

Files = Annotated[
    list[str],
    typer.Argument(metavar="FILE…", help="Configuration files, merged in order."),
]

Force = Annotated[
    bool,
    typer.Option("--force", envvar="HMS_FORCE", help="Replace a version that you have not seen."),
]


@config.command()
def push(
    files: Files,
    made_from: Annotated[
        int | None,
        typer.Option(
            "--made-from",
            envvar="HMS_MADE_FROM",
            min=0,
            max=MAX_VERSION,
            metavar="N",
            help="The version that the files were made from: refused if another is in force.",
        ),
    ] = None,
    control: Control = None,
    admin_token: AdminToken = None,
    ca_pin: CaPin = None,
    *,
    force: Force = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", envvar="HMS_DRY_RUN", help="Only check, as `hms check` would there."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Push files as the new configuration; every sidecar has it within a second.

    Example: `hms config push routes.yaml canary.yaml`

    What is wrong is said with file, line and column, as `hms check` says it, and then nothing has
    changed. If somebody else has pushed since `hms config` last showed you the configuration (or
    pushes in the same moment), you are told who, and nothing has changed either: look with
    `hms config diff`, then push again, or use `--force`. What you have seen is kept in
    `~/.local/state/hms` (XDG_STATE_HOME), on this computer; from others, as in a pipeline, say what
    your files were made from with `--made-from`, which counts more. Exit code 0: in force; 1: refused.
    """
    from hms_addons.operator_client import config_commands as commands  # noqa: PLC0415

    client = connect(control, admin_token, ca_pin)
    found = outcome_of(
        client,
        lambda asked: commands.push(
            asked, paths(files), _seen(), dry_run=dry_run, made_from=made_from, force=force
        ),
    )
    show(found, as_json=as_json)


@config.command()
def diff(
    what: Annotated[
        list[str],
        typer.Argument(metavar="FILE…|FROM TO", help="Files, or the numbers of two versions."),
    ],
    control: Control = None,
    admin_token: AdminToken = None,
    ca_pin: CaPin = None,
    *,
    as_json: Json = False,
) -> None:
    """Show what pushing files would change, or what lies between two versions.

    Example: `hms config diff routes.yaml` or `hms config diff 3 5`
    """
    from hms_addons.operator_client import config_commands as commands  # noqa: PLC0415

    numbers = [int(word) for word in what if word.isascii() and word.isdigit()]
    if numbers and (len(numbers) != len(what) or len(numbers) != 2):  # noqa: PLR2004 - from, to
        raise fail("diff: give files, or two versions", USAGE)
    if numbers and max(numbers) > MAX_VERSION:
        raise fail(f"diff: no version has the number {max(numbers)}", USAGE)
    client = connect(control, admin_token, ca_pin)
    if numbers:
        found = outcome_of(
            client, lambda asked: commands.diff_versions(asked, numbers[0], numbers[1], _seen())
        )
    else:
        found = outcome_of(client, lambda asked: commands.diff_files(asked, paths(what), _seen()))
    show(found, as_json=as_json)


@config.command()
def history(
    control: Control = None,
    admin_token: AdminToken = None,
    ca_pin: CaPin = None,
    *,
    as_json: Json = False,
) -> None:
    """List the versions that are kept, the newest first.

    Example: `hms config history`
    """
    from hms_addons.operator_client import config_commands as commands  # noqa: PLC0415

    client = connect(control, admin_token, ca_pin)
    show(outcome_of(client, lambda asked: commands.history(asked, _seen())), as_json=as_json)


@config.command()
def rollback(
    version: Annotated[
        int,
        typer.Argument(metavar="N", min=1, max=MAX_VERSION, help="The version to go back to."),
    ],
    control: Control = None,
    admin_token: AdminToken = None,
    ca_pin: CaPin = None,
    *,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Make an old version the newest: nothing is lost, and the number grows.

    Example: `hms config rollback 3`

    As with `hms config push`, a version that you have not seen is not replaced: look at it, or use
    `--force`.
    """
    from hms_addons.operator_client import config_commands as commands  # noqa: PLC0415

    client = connect(control, admin_token, ca_pin)
    show(
        outcome_of(client, lambda asked: commands.rollback(asked, version, _seen(), force=force)),
        as_json=as_json,
    )


@config.command("show")
def show_config(
    version: Annotated[
        int | None,
        typer.Argument(
            metavar="[N]", min=1, max=MAX_VERSION, help="A version; else what is in force."
        ),
    ] = None,
    control: Control = None,
    admin_token: AdminToken = None,
    ca_pin: CaPin = None,
    *,
    as_json: Json = False,
) -> None:
    """Print the configuration as it was pushed.

    Example: `hms config show 3 > routes.yaml`
    """
    from hms_addons.operator_client import config_commands as commands  # noqa: PLC0415

    client = connect(control, admin_token, ca_pin)
    show(outcome_of(client, lambda asked: commands.show(asked, version, _seen())), as_json=as_json)


def _seen() -> SeenVersions:
    """What this user has seen."""
    from hms_addons.operator_client.seen_versions import (  # noqa: PLC0415 - start-up time
        SeenVersions,
        default_path,
    )

    return SeenVersions(default_path(), lambda what: sys.stderr.write(f"hms: warning: {what}\n"))
