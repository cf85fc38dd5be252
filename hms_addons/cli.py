"""The `hms` command: wiring only. Each command calls one function and prints what it returns."""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hms_addons.bootstrap import DEFAULT_ADMIN, parse_admin
from hms_addons.errors import MeshError
from hms_addons.identity.svid import iso_time

if TYPE_CHECKING:
    from hms_addons.control.ca.offline import InitResult, IssueResult

app = typer.Typer(
    name="hms",
    help="HMS-SVC, a service mesh whose sidecars are mitmproxy instances.\n\n"
    "Begin with `hms check FILE`, then `hms sidecar --config FILE`.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
certs = typer.Typer(
    help="An offline certificate authority, for meshes without a control plane.",
    no_args_is_help=True,
)
app.add_typer(certs, name="certs")

FAILED = 1
USAGE = 2

Files = Annotated[
    list[str],
    typer.Argument(metavar="FILE…", help="Configuration files, merged in order."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


def _paths(names: list[str]) -> list[Path]:
    return [Path(part).expanduser() for name in names for part in name.split(",") if part]


def _fail(message: str, code: int = FAILED) -> typer.Exit:
    sys.stderr.write(f"hms: {message}\n")
    return typer.Exit(code)


def _print_json(value: object) -> None:
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def _print_result(result: InitResult | IssueResult) -> None:
    """A result's fields; what is no number as text."""
    values = {field.name: getattr(result, field.name) for field in fields(result)}
    _print_json(
        {
            name: value if isinstance(value, int | float) else str(value)
            for name, value in values.items()
        }
    )


@app.command(context_settings={"allow_interspersed_args": False})
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
        raise _fail(f"--loop {loop}: give uvloop or asyncio", USAGE)
    level = logging.getLevelNamesMapping().get(log_level.upper())
    if level is None:
        raise _fail(f"--log-level {log_level}: give debug, info, warning or error", USAGE)
    logging.basicConfig(
        level=level, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s", stream=sys.stderr
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger("httpcore").setLevel(logging.WARNING)
    try:
        address = parse_admin(admin)
    except MeshError as error:
        raise _fail(str(error), USAGE) from None

    async def main() -> int:
        return await SidecarProcess(
            _paths(config),
            service=service,
            admin=address,
            disabled=disable or (),
            command=command or (),
        ).run()

    raise typer.Exit(run(main, loop=loop))


@app.command()
def check(
    files: Files,
    service: Annotated[
        str | None,
        typer.Option("--service", help="The service whose sidecar will have it, if it matters."),
    ] = None,
    *,
    control: Annotated[
        bool,
        typer.Option(
            "--control",
            help="Check it as a control plane does: for a whole mesh, or with --service for one "
            "service's sidecars; certificates and endpoints come from there.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Check configuration files: every problem at once, with its place and a remedy.

    Exit code 0: usable (there may be warnings); 1: not.
    """
    from hms_addons.config.check import check_files  # noqa: PLC0415 - start-up time

    result = check_files(_paths(files), service=service, control=control)
    if as_json:
        _print_json(result.to_json())
    else:
        sys.stdout.write(result.to_text() + "\n")
    if not result.ok:
        raise typer.Exit(FAILED)


@app.command()
def explain(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="Configuration file, or several with commas.")
    ],
    request: Annotated[
        str, typer.Argument(metavar="REQUEST", help="As 'GET http://auth-svc.svc/verify-id'.")
    ],
    header: Annotated[
        list[str] | None, typer.Option("--header", "-H", help="A header, as 'Name: value'.")
    ] = None,
    *,
    as_json: Json = False,
) -> None:
    """Say what would happen to a request: listener, route, cluster, policies; and why not others.

    Exit code 0: a route matches; 1: none does, or the configuration is bad.
    """
    from hms_addons.config.explain import explain as explain_request  # noqa: PLC0415
    from hms_addons.config.explain import to_text  # noqa: PLC0415
    from hms_addons.config.source import FileSource  # noqa: PLC0415

    headers = {}
    for line in header or []:
        name, colon, value = line.partition(":")
        if not colon:
            raise _fail(f"--header {line!r}: give it as 'Name: value'", USAGE)
        headers[name.strip()] = value.strip()
    try:
        snapshot = FileSource(_paths([file])).load()
        found = explain_request(snapshot, request, headers)
    except MeshError as error:
        raise _fail(str(error)) from None
    if as_json:
        _print_json(found)
    else:
        sys.stdout.write(to_text(found) + "\n")
    if found.get("route") is None:
        raise typer.Exit(FAILED)


@certs.command("init")
def certs_init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder for the new CA.")],
    trust_domain: Annotated[
        str, typer.Option("--trust-domain", help="The mesh's trust domain.")
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
        raise _fail(str(error)) from None
    if as_json:
        _print_result(made)
        return
    sys.stdout.write(
        f"CA of {made.trust_domain} in {folder}\n"
        f"  certificate  {made.certificate}\n  key          {made.key} (keep it secret)\n"
        f"  bundle       {made.bundle}\n  fingerprint  {made.fingerprint}\n"
        f"Next: hms certs issue SERVICE --ca {folder} --out DIR\n"
    )


@certs.command("issue")
def certs_issue(
    service: Annotated[str, typer.Argument(metavar="SERVICE", help="As auth-svc.")],
    ca: Annotated[Path, typer.Option("--ca", help="Folder of the CA.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for certificate, key and bundle.")],
    lifetime: Annotated[str, typer.Option("--lifetime", help="As 24h or 90m.")] = "24h",
    *,
    as_json: Json = False,
) -> None:
    """Issue a service its SVID: the three files that a `secrets:` entry names.

    Run it again to renew: a running sidecar takes the new files by itself.
    """
    from hms_addons.config.schema_base import parse_duration  # noqa: PLC0415 - start-up time
    from hms_addons.control.ca.authority import CaError  # noqa: PLC0415
    from hms_addons.control.ca.offline import issue_svid  # noqa: PLC0415

    try:
        seconds = parse_duration(lifetime)
    except ValueError as error:
        raise _fail(f"--lifetime {lifetime}: {error}", USAGE) from None
    try:
        made = issue_svid(service, ca, out, seconds)
    except CaError as error:
        raise _fail(str(error)) from None
    if as_json:
        _print_result(made)
        return
    sys.stdout.write(
        f"SVID {made.spiffe_id}, valid until {iso_time(made.not_after)}\n"
        f"  certificate  {made.certificate}\n  key          {made.key}\n"
        f"  bundle       {made.bundle}\n"
    )


def main() -> None:
    """Entry point of the console script."""
    app()
