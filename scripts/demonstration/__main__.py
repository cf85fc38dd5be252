"""Command line of `scripts/demo`: start a mesh, take the tour, end everything; twice."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.demonstration import leaving, parts
from scripts.demonstration.children import DemoError
from scripts.demonstration.mesh_files import LISTENER_PORT
from scripts.demonstration.ports import FreePorts, PortError, require_free
from scripts.demonstration.report import Report

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scripts.demonstration.mesh import Mesh

DESCRIPTION = """\
Runs the Lost-Package mesh on this machine and shows what it does, with real requests.
Part 1, from files: a stub of HMS-GOV, five replicas of Auth-SVC, each behind its own sidecar with
mutual TLS, and Claims-SVC's sidecar, started as `mitmdump -s hms_addons/mesh.py`; then the seed's
own caller, then a tour. Part 2, by a control plane: every sidecar is given a name and a join token,
and the rest comes from there. Exit code 0 if everything was as it should be, else 1."""
FAILED = 1
USAGE = 2
INTERRUPTED = 130


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="scripts/demo", description=DESCRIPTION)
    parser.add_argument(
        "--part", type=int, choices=(1, 2), help="only this part (default: both, one by one)"
    )
    parser.add_argument(
        "--keep", action="store_true", help="leave everything running afterwards, until Ctrl-C"
    )
    parser.add_argument(
        "--work",
        type=Path,
        metavar="DIR",
        help="a new or empty folder for keys, configuration files and logs, which is left there "
        "(default: a temporary one, which is removed if all went well)",
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo. Returns the exit code."""
    options = parse(arguments)
    leaving.install()
    try:
        require_free(LISTENER_PORT, "the seed's caller")
        work = _work_folder(options.work)
    except PortError as error:
        return _say(str(error), FAILED)
    except OSError as error:
        return _say(f"--work {options.work}: {error.strerror or error}", USAGE)
    leave_files = True
    try:
        ok = _run(work, Report(), part=options.part, keep=options.keep)
        leave_files = not ok or options.work is not None
    except (DemoError, PortError) as error:
        return _say(str(error), FAILED)
    except KeyboardInterrupt:
        leave_files = options.work is not None
        return _say("interrupted; everything has been ended", INTERRUPTED)
    except SystemExit:
        leave_files = options.work is not None
        raise
    finally:
        if leave_files:
            sys.stderr.write(f"Keys, configuration files and logs are in {work}\n")
        else:
            shutil.rmtree(work, ignore_errors=True)
    return 0 if ok else FAILED


def _say(message: str, code: int) -> int:
    sys.stderr.write(f"\nscripts/demo: {message}\n")
    return code


def _run(work: Path, report: Report, *, part: int | None, keep: bool) -> bool:
    ports = FreePorts()
    meshes: list[Mesh] = []
    try:
        if part != 2:  # noqa: PLR2004 - the second
            parts.from_files(work / "files", ports, report, meshes)
        if part != 1:
            parts.by_control_plane(work / "control", ports, report, meshes, keep=keep)
        ok = report.summary()
        if not ok:
            tails = "\n".join(mesh.processes.log_tails() for mesh in meshes)
            sys.stderr.write(f"\nLast lines of the logs:\n{tails}\n")
        if keep:
            parts.keep(work, report, meshes)
        return ok
    finally:
        with leaving.held():  # It takes a second; nothing may cut it short.
            for mesh in meshes:
                mesh.close()


def _work_folder(wanted: Path | None) -> Path:
    """An empty folder that only this user can read: keys lie in it."""
    if wanted is None:
        return Path(tempfile.mkdtemp(prefix="hms-demo-"))
    folder = wanted.absolute()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty; name a new folder")
    return folder


if __name__ == "__main__":
    sys.exit(main())
