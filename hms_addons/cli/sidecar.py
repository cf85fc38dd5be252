"""`hms sidecar`: run a sidecar."""

from __future__ import annotations

import logging
import sys
from pathlib import Path  # noqa: TC003 - typer reads annotations at run time
from typing import Annotated

import typer

from hms_addons.bootstrap import DEFAULT_ADMIN, parse_admin
from hms_addons.cli.output import USAGE, fail, paths
from hms_addons.errors import MeshError

_CONTROL = "With a control plane"


def sidecar(  # noqa: PLR0913, PLR0917 - each is an option of the command
    config: Annotated[
        list[str] | None,
        typer.Option(
            "--config",
            "-c",
            envvar="HMS_CONFIG",
            help="A configuration file; may be repeated. With --control it goes over what the "
            "control plane says.",
        ),
    ] = None,
    service: Annotated[
        str | None,
        typer.Option("--service", envvar="HMS_SERVICE", help="The service it stands beside."),
    ] = None,
    control: Annotated[
        list[str] | None,
        typer.Option(
            "--control",
            envvar="HMS_CONTROL",
            help="Address of the control plane, as https://127.0.0.1:15010; may be repeated.",
            rich_help_panel=_CONTROL,
        ),
    ] = None,
    ca_pin: Annotated[
        str,
        typer.Option(
            "--ca-pin",
            envvar="HMS_CA_PIN",
            help="Fingerprint of the control plane's CA, sha256:…; `hms control` prints it. For "
            "the first contact.",
            rich_help_panel=_CONTROL,
        ),
    ] = "",
    token: Annotated[
        str | None,
        typer.Option(
            "--token",
            envvar="HMS_TOKEN",
            help="A join token, for the first contact; `hms token create` makes one. Everybody on "
            "this machine sees it in `ps`: HMS_TOKEN or --token-file keep it to yourself.",
            rich_help_panel=_CONTROL,
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            "--token-file",
            envvar="HMS_TOKEN_FILE",
            help="A file that holds the join token.",
            rich_help_panel=_CONTROL,
        ),
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(
            "--state",
            envvar="HMS_STATE",
            help="Folder for the certificate and the last good configuration, from which it "
            "starts when the control plane is away. Default .hms/SERVICE.",
            rich_help_panel=_CONTROL,
        ),
    ] = None,
    app: Annotated[
        str | None,
        typer.Option(
            "--app",
            envvar="HMS_APP",
            help="The app's address, or `off`. Default http://127.0.0.1:8080.",
            rich_help_panel=_CONTROL,
        ),
    ] = None,
    inbound: Annotated[
        str | None,
        typer.Option(
            "--inbound",
            envvar="HMS_INBOUND",
            help="Where peers call, as HOST:PORT or PORT, or `off`. Default 0.0.0.0:15006.",
            rich_help_panel=_CONTROL,
        ),
    ] = None,
    outbound: Annotated[
        str | None,
        typer.Option(
            "--outbound",
            envvar="HMS_OUTBOUND",
            help="Where the app calls, as HOST:PORT or PORT, or `off`. Default 127.0.0.1:15001.",
            rich_help_panel=_CONTROL,
        ),
    ] = None,
    advertise: Annotated[
        str | None,
        typer.Option(
            "--advertise",
            envvar="HMS_ADVERTISE",
            help="HOST or HOST:PORT where peers reach this sidecar. Default: found out.",
            rich_help_panel=_CONTROL,
        ),
    ] = None,
    version: Annotated[
        str,
        typer.Option(
            "--version",
            envvar="HMS_VERSION",
            help="The app's version, as v2: SERVICE-v2 is made of its instances.",
            rich_help_panel=_CONTROL,
        ),
    ] = "",
    weight: Annotated[
        int,
        typer.Option(
            "--weight",
            envvar="HMS_WEIGHT",
            min=1,
            max=1_000_000,
            help="This instance's share, relative to the others'.",
            rich_help_panel=_CONTROL,
        ),
    ] = 1,
    priority: Annotated[
        int,
        typer.Option(
            "--priority",
            envvar="HMS_PRIORITY",
            min=0,
            max=100,
            help="0: this instance is used first; 1: when too few of those are left; and so on.",
            rich_help_panel=_CONTROL,
        ),
    ] = 0,
    zone: Annotated[
        str,
        typer.Option(
            "--zone",
            envvar="HMS_ZONE",
            help="Where this sidecar is: endpoints of the same zone come first.",
        ),
    ] = "",
    metadata: Annotated[
        list[str] | None,
        typer.Option(
            "--metadata",
            envvar="HMS_METADATA",
            metavar="NAME=VALUE",
            help="What else `hms services` should say of this instance; may be repeated, and commas "
            "separate several.",
            rich_help_panel=_CONTROL,
        ),
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
    *,
    window: Annotated[
        bool,
        typer.Option(
            "--window",
            envvar="HMS_WINDOW",
            help="Allow `hms open`, and POST /window on the admin port: a mitmweb in this process. "
            "Every program on this machine, the app included, can then read and change whole "
            "requests, and write files as this sidecar's user.",
        ),
    ] = False,
) -> None:
    """Run a sidecar, and optionally the app it stands beside.

    Example, from files: `hms sidecar --config routes.yaml --config local.yaml -- python app.py`

    Example, from a control plane: `hms sidecar --control https://127.0.0.1:15010 --ca-pin sha256:…
    --service auth-svc --token-file token -- python app.py`

    Both are followed: a change is applied without a restart, a bad one is refused and the old
    configuration goes on. SIGTERM drains. With a command the exit code is the app's.
    """
    from hms_addons.config.standard_listeners import StandardListeners  # noqa: PLC0415 - start-up time
    from hms_addons.control_client.presence import Traits, parse_metadata  # noqa: PLC0415
    from hms_addons.joining import ControlOptions  # noqa: PLC0415
    from hms_addons.sidecar_process import SidecarProcess, run  # noqa: PLC0415 - start-up time

    if loop not in {"uvloop", "asyncio"}:
        raise fail(f"--loop {loop}: give uvloop or asyncio", USAGE)
    level = logging.getLevelNamesMapping().get(log_level.upper())
    if level is None:
        raise fail(f"--log-level {log_level}: give debug, info, warning or error", USAGE)
    logging.basicConfig(
        level=level, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s", stream=sys.stderr
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger("httpcore").setLevel(logging.WARNING)
    try:
        address = parse_admin(admin)
        options = None
        if control:
            options = ControlOptions(
                urls=[part.strip() for word in control for part in word.split(",") if part.strip()],
                service=service or "",
                token=token,
                token_file=token_file,
                ca_pin=ca_pin,
                state=state,
                listeners=StandardListeners(app, inbound, outbound),
                advertise=advertise,
                traits=Traits(version, weight, zone, parse_metadata(metadata or ()), priority),
            )
            options.check()
        elif not config:
            message = (
                "where does the configuration come from? Give --control URL (HMS_CONTROL) with "
                "--service, --ca-pin and a token, or --config FILE (HMS_CONFIG)"
            )
            raise fail(message, USAGE)
    except MeshError as error:
        raise fail(str(error), USAGE) from None

    async def main() -> int:
        return await SidecarProcess(
            paths(config or []),
            service=service,
            zone=zone,
            control=options,
            admin=address,
            disabled=disable or (),
            command=command or (),
            window=window,
        ).run()

    raise typer.Exit(run(main, loop=loop))
