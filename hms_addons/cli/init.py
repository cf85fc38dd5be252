"""`hms init`: a first mesh to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hms_addons.cli.output import fail, write
from hms_addons.errors import MeshError


def init(
    folder: Annotated[
        Path, typer.Argument(metavar="[FOLDER]", help="Where; made if missing. Default: here.")
    ] = Path(),
) -> None:
    """Write a commented `mesh.yaml` and two tiny services, ready for `hms up`.

    Example: `hms init && hms up`

    Nothing that is there is overwritten.
    """
    from hms_addons.up.starter import write_starter  # noqa: PLC0415 - start-up time

    try:
        written = write_starter(folder.expanduser())
    except MeshError as error:
        raise fail(str(error)) from None
    lines = [f"wrote {path}" for path in written]
    where = "" if folder == Path() else f" {written[0]}"
    write("\n".join([*lines, f"start it with: hms up{where}"]) + "\n")
