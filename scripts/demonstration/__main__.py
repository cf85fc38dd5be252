"""Command line of `scripts/demo`: start the mesh, take the tour, end everything."""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.demonstration import leaving, tour
from scripts.demonstration.children import DemoError
from scripts.demonstration.lost_package_mesh import LostPackageMesh
from scripts.demonstration.mesh_files import LISTENER_PORT
from scripts.demonstration.ports import PortError, require_free
from scripts.demonstration.report import Report
from scripts.demonstration.verify import TARGET

if TYPE_CHECKING:
    from collections.abc import Sequence

DESCRIPTION = """\
Runs the Lost-Package mesh on this machine and shows what it does, with real requests:
a stub of HMS-GOV, five replicas of Auth-SVC, each behind its own sidecar with mutual TLS, and
Claims-SVC's sidecar, started as `mitmdump -s hms_addons/mesh.py`; then the seed's own caller, then
a tour. Exit code 0 if everything was as it should be, else 1."""
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
        ok = _run(work, Report(), keep=options.keep)
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


def _run(work: Path, report: Report, *, keep: bool) -> bool:
    report.heading("HMS-SVC: the Lost-Package mesh")
    mesh = LostPackageMesh(work)
    try:
        report.show("starting HMS-GOV, seven apps with their sidecars, and Claims-SVC's sidecar …")
        report.show("$ " + shlex.join(mesh.claims_command))
        mesh.start()
        report.show(f"all of it serves after {report.seconds:.1f} s")
        report.facts(_addresses(mesh))
        tour.run(mesh, report)
        ok = report.summary()
        if not ok:
            sys.stderr.write(f"\nLast lines of the logs:\n{mesh.log_tails()}\n")
        if keep:
            _keep(mesh, report)
        return ok
    finally:
        with leaving.held():  # It takes a second; nothing may cut it short.
            mesh.close()


def _addresses(mesh: LostPackageMesh) -> list[tuple[str, str]]:
    return [
        ("Claims-SVC's sidecar", f"http://localhost:{LISTENER_PORT}"),
        ("  its admin port", f"http://127.0.0.1:{mesh.admin_port}"),
        ("HMS-GOV", f"http://127.0.0.1:{mesh.governance_port}/policy-header"),
        *(
            (one.name, f"mutual TLS on {one.address}, app on port {one.app_port}")
            for one in (*mesh.replicas, mesh.canary, mesh.payments)
        ),
        ("files and logs", str(mesh.work)),
    ]


def _keep(mesh: LostPackageMesh, report: Report) -> None:
    """Wait for Ctrl-C, with everything running."""
    token = mesh.work / "soldier.jwt"
    token.write_text(mesh.issuer.token(), encoding="ascii")
    token.chmod(0o600)
    admin = f"http://127.0.0.1:{mesh.admin_port}"
    overlay = shlex.quote(str(mesh.overlay_path))
    report.show("")
    report.heading("Everything keeps running; Ctrl-C ends it. To try:")
    report.facts(_addresses(mesh))
    authorization = f'-H "Authorization: $(cat {shlex.quote(str(token))})"'
    for line in (
        f"curl {authorization} 'http://localhost:{LISTENER_PORT}{TARGET}'",
        f"curl {admin}/clusters",
        f"curl {admin}/config",
        f"hms explain {mesh.routes},{overlay} 'GET http://auth-svc.svc/verify-id'",
        f"$EDITOR {overlay}      # takes effect when it is saved",
    ):
        report.show(line)
    try:
        while not mesh.running_claims.wait(3600.0):
            pass
    except KeyboardInterrupt:
        report.show("ending everything …")
    else:
        mesh.running_claims.ensure_running()  # It has ended by itself: say so.


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
