"""`hms control`: run a control plane."""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path  # noqa: TC003 - typer reads annotations
from typing import Annotated

import typer

from hms_addons.cli.output import FAILED, USAGE, fail
from hms_addons.errors import MeshError
from hms_addons.event_loop import NAMES, loop_factory


def control(  # noqa: PLR0913 - one for each option
    data: Annotated[
        Path,
        typer.Option("--data", envvar="HMS_DATA", help="Folder for its state; made if missing."),
    ],
    listen: Annotated[
        str, typer.Option("--listen", envvar="HMS_LISTEN", help="Address and port.")
    ] = "127.0.0.1:15010",
    trust_domain: Annotated[
        str, typer.Option("--trust-domain", envvar="HMS_TRUST_DOMAIN", help="The mesh's name.")
    ] = "mpsa.mil",
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            envvar="HMS_CONTROL_CONFIG",
            help="A file, or a folder of *.yaml, to follow; then nothing can be pushed.",
        ),
    ] = None,
    svid_lifetime: Annotated[
        str,
        typer.Option("--svid-lifetime", envvar="HMS_SVID_LIFETIME", help="As 24h or 90m."),
    ] = "24h",
    name: Annotated[
        list[str] | None,
        typer.Option(
            "--name",
            envvar="HMS_CONTROL_NAMES",
            help="A host name or address it is reached by; may be repeated.",
        ),
    ] = None,
    loop: Annotated[
        str, typer.Option("--loop", envvar="HMS_LOOP", help="Event loop: `uvloop` or `asyncio`.")
    ] = "uvloop",
    log_level: Annotated[
        str,
        typer.Option("--log-level", envvar="HMS_LOG_LEVEL", help="debug, info, warning or error."),
    ] = "info",
    *,
    reset_admin_token: Annotated[
        bool,
        typer.Option("--reset-admin-token", help="Make and show a new one; the old one is void."),
    ] = False,
) -> None:
    """Run a control plane: configuration, registry and certificates of a mesh.

    Example: `hms control --data /var/lib/hms`

    It prints three lines to copy into a shell: where it is, the pin of its CA, and, at its first
    start only, the admin token. Then `hms token create`, `hms config push` and `hms status` work
    there. SIGTERM ends it at once and loses nothing; sidecars go on without it.
    """
    from hms_addons.config.schema_base import parse_duration  # noqa: PLC0415 - start-up time
    from hms_addons.control.assembly import Settings  # noqa: PLC0415
    from hms_addons.control.process import ControlProcess  # noqa: PLC0415

    level = logging.getLevelNamesMapping().get(log_level.upper())
    if level is None:
        raise fail(f"--log-level {log_level}: give debug, info, warning or error", USAGE)
    if loop not in NAMES:
        raise fail(f"--loop {loop}: give uvloop or asyncio", USAGE)
    host, port = _address(listen)
    try:
        lifetime = parse_duration(svid_lifetime)
    except ValueError as error:
        raise fail(f"--svid-lifetime {svid_lifetime}: {error}", USAGE) from None
    logging.basicConfig(
        level=level, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s", stream=sys.stderr
    )
    logging.getLogger("uvicorn").setLevel(max(level, logging.WARNING))
    settings = Settings(
        data=data.expanduser(),
        host=host,
        port=port,
        trust_domain=trust_domain,
        config=None if config is None else config.expanduser(),
        svid_lifetime=lifetime,
        names=tuple(name or ()),
        reset_admin_token=reset_admin_token,
    )

    try:
        settings.check()
    except MeshError as error:
        raise fail(str(error), USAGE) from None

    async def main() -> int:
        return await ControlProcess(settings).run()

    with asyncio.Runner(loop_factory=loop_factory(loop)) as runner:
        try:
            code = runner.run(main())
        except MeshError as error:
            raise fail(str(error), FAILED) from None
    raise typer.Exit(code)


def _address(text: str) -> tuple[str, int]:
    """Host and port of `host:port`; an IPv6 address stands in brackets."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:  # noqa: PLR2004
        raise fail(f"--listen {text}: give host:port, as 127.0.0.1:15010", USAGE)
    return host.removeprefix("[").removesuffix("]"), int(port)
