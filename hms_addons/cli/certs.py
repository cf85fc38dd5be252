"""`hms certs`: an offline certificate authority."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hms_addons.cli.output import USAGE, Json, fail, print_json, write

if TYPE_CHECKING:
    from hms_addons.control.ca.offline import InitResult, IssueResult

certs = typer.Typer(
    help="An offline certificate authority, for meshes without a control plane.",
    no_args_is_help=True,
)


def _print_result(result: InitResult | IssueResult) -> None:
    """A result's fields; what is no number as text."""
    values = {field.name: getattr(result, field.name) for field in fields(result)}
    print_json(
        {
            name: value if isinstance(value, int | float) else str(value)
            for name, value in values.items()
        }
    )


@certs.command("init")
def certs_init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder for the new CA.")],
    trust_domain: Annotated[
        str,
        typer.Option("--trust-domain", envvar="HMS_TRUST_DOMAIN", help="The mesh's trust domain."),
    ] = "mpsa.mil",
    *,
    as_json: Json = False,
) -> None:
    """Make a certificate authority in a folder. An existing one is never overwritten."""
    from hms_addons.control.ca.authority import CaError  # noqa: PLC0415 - start-up time
    from hms_addons.control.ca.offline import init_ca  # noqa: PLC0415

    try:
        made = init_ca(folder, trust_domain)
    except CaError as error:
        raise fail(str(error)) from None
    if as_json:
        _print_result(made)
        return
    write(
        f"CA of {made.trust_domain} in {folder}\n"
        f"  certificate  {made.certificate}\n  key          {made.key} (keep it secret)\n"
        f"  bundle       {made.bundle}\n  fingerprint  {made.fingerprint}\n"
        f"Next: hms certs issue SERVICE --ca {folder} --out DIR\n"
    )


@certs.command("issue")
def certs_issue(
    service: Annotated[str, typer.Argument(metavar="SERVICE", help="As auth-svc.")],
    ca: Annotated[Path, typer.Option("--ca", envvar="HMS_CA", help="Folder of the CA.")],
    out: Annotated[
        Path,
        typer.Option("--out", envvar="HMS_OUT", help="Folder for certificate, key and bundle."),
    ],
    lifetime: Annotated[
        str, typer.Option("--lifetime", envvar="HMS_LIFETIME", help="As 24h or 90m.")
    ] = "24h",
    *,
    as_json: Json = False,
) -> None:
    """Issue a service its SVID: the three files that a `secrets:` entry names.

    Run it again to renew: a running sidecar takes the new files by itself.
    """
    from hms_addons.config.schema_base import parse_duration  # noqa: PLC0415 - start-up time
    from hms_addons.control.ca.authority import CaError  # noqa: PLC0415
    from hms_addons.control.ca.offline import issue_svid  # noqa: PLC0415
    from hms_addons.identity.svid import iso_time  # noqa: PLC0415

    try:
        seconds = parse_duration(lifetime)
    except ValueError as error:
        raise fail(f"--lifetime {lifetime}: {error}", USAGE) from None
    try:
        made = issue_svid(service, ca, out, seconds)
    except CaError as error:
        raise fail(str(error)) from None
    if as_json:
        _print_result(made)
        return
    write(
        f"SVID {made.spiffe_id}, valid until {iso_time(made.not_after)}\n"
        f"  certificate  {made.certificate}\n  key          {made.key}\n"
        f"  bundle       {made.bundle}\n"
    )
