"""The demo's two parts, from the start of their meshes to what is left running."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from scripts.demonstration import tour
from scripts.demonstration.leaving import held
from scripts.demonstration.lost_package_mesh import LostPackageMesh
from scripts.demonstration.managed_mesh import ManagedMesh

if TYPE_CHECKING:
    from pathlib import Path

    from scripts.demonstration.mesh import Mesh
    from scripts.demonstration.ports import FreePorts
    from scripts.demonstration.report import Report


def from_files(work: Path, ports: FreePorts, report: Report, meshes: list[Mesh]) -> None:
    """Part 1; its mesh is put into `meshes`, to be ended by the caller.

    Raises:
        DemoError: something did not start.
    """
    report.heading("HMS-SVC: the Lost-Package mesh")
    mesh = LostPackageMesh(work, ports)
    meshes.append(mesh)
    report.show("starting HMS-GOV, seven apps with their sidecars, and Claims-SVC's sidecar …")
    report.show("$ " + shlex.join(mesh.command))
    began = report.seconds
    mesh.start()
    report.show(f"all of it serves after {report.seconds - began:.1f} s")
    report.facts(mesh.addresses())
    tour.run(mesh, report, tour.FROM_FILES)


def by_control_plane(
    work: Path, ports: FreePorts, report: Report, meshes: list[Mesh], *, keep: bool
) -> None:
    """Part 2; likewise. Part 1's mesh makes way for it: it ends, or moves if it is to be kept."""
    report.show("")
    report.heading("The same mesh, run by a control plane")
    for earlier in meshes:
        if keep and isinstance(earlier, LostPackageMesh):
            earlier.make_way()
            report.show(
                "the first mesh is to be kept: its listener has moved, while it ran, to port "
                f"{earlier.listener_port}"
            )
        else:
            with held():
                earlier.close()
    mesh = ManagedMesh(work, ports)
    meshes.append(mesh)
    tour.run(mesh, report, tour.BY_CONTROL_PLANE)


def keep(work: Path, report: Report, meshes: list[Mesh]) -> None:
    """Wait for Ctrl-C, with everything running.

    Raises:
        DemoError: a sidecar of Claims-SVC has ended by itself.
    """
    token = work / "soldier.jwt"
    token.touch(0o600)
    token.write_text(meshes[0].issuer.token(), encoding="ascii")
    report.show("")
    report.heading("Everything keeps running; Ctrl-C ends it.")
    for mesh in meshes:
        report.show("")
        report.facts(mesh.addresses())
        report.show("To try:")
        for line in mesh.hints(f'-H "Authorization: $(cat {shlex.quote(str(token))})"'):
            report.show(f"  {line}")
    try:
        while not any(mesh.running_claims.wait(1800.0) for mesh in meshes):
            pass
    except KeyboardInterrupt:
        report.show("ending everything …")
    else:
        for mesh in meshes:
            mesh.running_claims.ensure_running()  # One has ended by itself: say so.
