"""Command line of `scripts/demo`: `hms up` on the Lost-Package mesh, a claim, the tour, the end."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.demonstration import closing_steps, leaving, tour
from scripts.demonstration.closing_steps import LIFETIME
from scripts.demonstration.lost_package import DOOR, ISSUER, MESH, LostPackage
from scripts.demonstration.mesh_file import NAME
from scripts.demonstration.report import Report
from scripts.demonstration.up import DemoError

if TYPE_CHECKING:
    from collections.abc import Sequence

DESCRIPTION = f"""\
Runs the Lost-Package mesh on this machine and shows what it does, with real requests: `hms up` on a
copy of {NAME}, a claim that goes from the portal to the refund, then a tour
that breaks things on purpose. Exit code 0 if everything was as it should be, else 1."""
FAILED = 1
USAGE = 2
INTERRUPTED = 130


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="scripts/demo", description=DESCRIPTION)
    parser.add_argument(
        "--keep", action="store_true", help="leave everything running afterwards, until Ctrl-C"
    )
    parser.add_argument(
        "--work",
        type=Path,
        metavar="DIR",
        help="a new or empty folder for mesh.yaml, keys and logs, which is left there "
        "(default: a temporary one, which is removed if all went well)",
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo. Returns the exit code."""
    options = parse(arguments)
    leaving.install()
    try:
        work = _work_folder(options.work)
    except OSError as error:
        return _say(f"--work {options.work}: {error.strerror or error}", USAGE)
    leave_files = True
    try:
        ok = _run(work, Report(), keep=options.keep)
        leave_files = not ok or options.work is not None
    except DemoError as error:
        return _say(str(error), FAILED)
    except KeyboardInterrupt:
        leave_files = options.work is not None
        return _say("interrupted; everything has been ended", INTERRUPTED)
    except SystemExit:
        leave_files = options.work is not None
        raise
    finally:
        if leave_files:
            sys.stderr.write(f"mesh.yaml, keys and logs are in {work}\n")
        else:
            shutil.rmtree(work, ignore_errors=True)
    return 0 if ok else FAILED


def _say(message: str, code: int) -> int:
    sys.stderr.write(f"\nscripts/demo: {message}\n")
    return code


def _run(work: Path, report: Report, *, keep: bool) -> bool:
    report.heading("HMS-SVC: the Lost-Package mesh")
    mesh = LostPackage(work, report.show)
    mesh.file.edit("# svid_lifetime: 60s", f"svid_lifetime: {LIFETIME}")
    try:
        report.show(f"$ cd {work}; hms up {NAME}")
        took = mesh.start()
        mesh.serials = mesh.serials_now()
        report.show(f"ready after {took:.1f} s")
        tour.run(mesh, report, tour.STEPS)
        if keep:
            _keep(mesh, report)
        tour.run(mesh, report, [closing_steps.end])
        ok = report.summary()
        if not ok:
            sys.stderr.write(f"\nThe last lines of hms up:\n{mesh.up.tail()}\n")
        return ok
    finally:
        with leaving.held():  # Nothing may cut it short.
            mesh.end()


def _keep(mesh: LostPackage, report: Report) -> None:
    """Wait for Ctrl-C, with everything running.

    Raises:
        DemoError: `hms up` has ended by itself.
    """
    report.show("")
    report.heading(
        f"{'NOT all' if report.failures else 'All'} as it should be so far. Everything keeps running; Ctrl-C ends it."
    )
    report.show("To try, in another terminal:")
    file = mesh.file.path
    for line in (
        f"TOKEN=$(curl -s 'localhost:{ISSUER}/token?role=PROGRAM_MANAGER')",
        f"""curl -H "Authorization: $TOKEN" -d '{{"amount": "120 USD"}}' localhost:{DOOR}/claims""",
        f"""curl -H "Authorization: $TOKEN" 'localhost:{MESH}/verify-id?host=auth-svc.svc'""",
        f"hms top {file}",
        f"hms logs auth-svc -f {file}",
        f'eval "$(hms open control-plane {file})"; hms status',
        f"$EDITOR {file}      # takes effect when it is saved",
    ):
        report.show(f"  {line}")
    try:
        while not mesh.up.wait(1800.0):
            pass
    except KeyboardInterrupt:
        report.show("ending everything …")
    else:
        raise DemoError(f"hms up has ended (exit code {mesh.up.code}):\n{mesh.up.tail()}")


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
