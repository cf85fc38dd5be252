"""`hms check` and `hms explain`: what configuration files say, without running anything."""

from __future__ import annotations

from typing import Annotated

import typer

from hms_addons.cli.output import FAILED, USAGE, Json, fail, paths, print_json, write
from hms_addons.errors import MeshError

Files = Annotated[
    list[str],
    typer.Argument(metavar="FILE…", help="Configuration files, merged in order."),
]


def check(
    files: Files,
    service: Annotated[
        str | None,
        typer.Option(
            "--service",
            envvar="HMS_SERVICE",
            help="The service whose sidecar will have it, if it matters.",
        ),
    ] = None,
    *,
    control: Annotated[
        bool,
        typer.Option(
            "--control",
            envvar="HMS_CHECK_CONTROL",
            help="Check it as a control plane does: for a whole mesh, or with --service for one "
            "service's sidecars; certificates and endpoints come from there.",
        ),
    ] = False,
    no_files: Annotated[
        bool,
        typer.Option(
            "--no-files",
            envvar="HMS_CHECK_NO_FILES",
            help="The certificates and keys that it names are on another machine: do not look for "
            "them. (With --control they may be missing, too.)",
        ),
    ] = False,
    disable: Annotated[
        list[str] | None,
        typer.Option(
            "--disable", envvar="HMS_DISABLE", help="An installed plugin that will be left out."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check configuration files: every problem at once, with its place and a remedy.

    Certificates, keys and plugins that it names are looked for on this machine, as a sidecar would.
    Whether ports are free, and what plugins say to their options, only a start can tell.

    A file of `hms up` is checked as that command does.

    Exit code 0: usable (there may be warnings); 1: not.
    """
    from hms_addons.bootstrap import installed_plugins  # noqa: PLC0415 - start-up time
    from hms_addons.config.check import check_files  # noqa: PLC0415 - start-up time
    from hms_addons.config.installed import Known  # noqa: PLC0415 - start-up time
    from hms_addons.up.check import check_mesh, mesh_file_among  # noqa: PLC0415 - start-up time

    try:
        if (mesh := mesh_file_among(paths(files))) is not None:
            result = check_mesh(mesh)
        else:
            result = check_files(
                paths(files),
                service=service,
                control=control,
                known=Known(
                    installed=installed_plugins(disable or ()),
                    files=False if no_files else None if control else True,
                ),
            )
    except MeshError as error:
        raise fail(str(error)) from None
    if as_json:
        print_json(result.to_json())
    else:
        write(result.to_text() + "\n")
    if not result.ok:
        raise typer.Exit(FAILED)


def explain(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="Configuration file, or several with commas.")
    ],
    request: Annotated[
        str, typer.Argument(metavar="REQUEST", help="As 'GET http://auth-svc.svc/verify-id'.")
    ],
    header: Annotated[
        list[str] | None,
        typer.Option("--header", "-H", envvar="HMS_HEADER", help="A header, as 'Name: value'."),
    ] = None,
    *,
    as_json: Json = False,
) -> None:
    """Say what would happen to a request: listener, route, cluster, policies; and why not others.

    Exit code 0: a route matches; 1: none does, or the configuration is bad.
    """
    from hms_addons.config.explain import explain as explain_request  # noqa: PLC0415
    from hms_addons.config.explain_text import to_text  # noqa: PLC0415
    from hms_addons.config.source import FileSource  # noqa: PLC0415
    from hms_addons.up.check import mesh_file_among, snapshot_of_mesh  # noqa: PLC0415

    headers = []
    for line in header or []:
        name, colon, value = line.partition(":")
        if not colon:
            raise fail(f"--header {line!r}: give it as 'Name: value'", USAGE)
        headers.append((name.strip(), value.strip()))
    try:
        mesh = mesh_file_among(paths([file]))
        snapshot = FileSource(paths([file])).load() if mesh is None else snapshot_of_mesh(mesh)
        found = explain_request(snapshot, request, headers)
    except MeshError as error:
        raise fail(str(error)) from None
    if as_json:
        print_json(found)
    else:
        write(to_text(found) + "\n")
    if found.get("route") is None:
        raise typer.Exit(FAILED)
