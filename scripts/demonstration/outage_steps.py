"""The control plane dies and comes back; replicas join, drain and die."""

from __future__ import annotations

import signal
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from scripts.demonstration.children import DemoError, until
from scripts.demonstration.managed_mesh import SYNC_SECONDS
from scripts.demonstration.processes import START_SECONDS
from scripts.demonstration.verify import replicas_of, statuses_of, verify, verify_many

if TYPE_CHECKING:
    from scripts.demonstration.calls import Answer
    from scripts.demonstration.managed_mesh import ManagedMesh
    from scripts.demonstration.replica import Replica
    from scripts.demonstration.report import Report

CALLS: Final = 100
LEASE_SECONDS: Final = 30.0
"""A registration that is not renewed runs out after 15 s; a crowded machine is slow."""
JOIN_SECONDS: Final = 1.0
"""From a replica's being ready to the first call that it gets."""


def control_plane_dies(mesh: ManagedMesh, report: Report) -> None:
    """Without a control plane the mesh serves on; it comes back with the same data."""
    report.step(
        "The control plane dies",
        "kill -9. No call needs it; started again on the same folder, it finds all as it was.",
    )
    before = mesh.config_status()
    mesh.kill_control()
    done = mesh.operator.run("status")
    report.show(f"$ hms status\n{done.text}")
    report.check(done.code == 1, "hms status says that it is away: exit code 1", str(done.code))
    answers = verify_many(mesh.issuer.token(), CALLS)
    ok = all(answer.status == HTTPStatus.OK for answer in answers)
    report.check(ok, f"{CALLS} calls meanwhile, none failed", statuses_of(answers))
    report.show("$ " + " ".join(mesh.control_command()))
    took = mesh.start_control()
    mesh.await_status(0, "all should be in sync again")
    report.check(ok=True, expectation=f"it serves again after {took:.1f} s, and all are in sync")
    same = mesh.config_status()["version"] == before["version"]
    report.check(same, "nobody's configuration has changed for that")


def dying(mesh: ManagedMesh, report: Report) -> None:
    """A replica is killed, and cannot say goodbye."""
    victim = mesh.auth[0]
    report.step(
        "A replica dies",
        f"{victim.name} and its sidecar are killed (SIGKILL) while calls are under way.",
    )
    answers = verify_many(mesh.issuer.token(), CALLS, midway=lambda: mesh.processes.kill([victim]))
    mesh.killed_at = time.monotonic()
    ok = all(answer.status == HTTPStatus.OK for answer in answers)
    report.check(ok, f"{CALLS} calls meanwhile, none failed", statuses_of(answers))
    there = registered(mesh, victim)
    report.check(there, "hms services still lists it: its registration has yet to run out")


def joining(mesh: ManagedMesh, report: Report) -> None:
    """A new replica joins by a token."""
    name = f"auth-{len(mesh.auth) + 1}"
    report.step(
        "A replica joins",
        f"{name} gets a token and is started; nobody tells Claims-SVC where it is.",
    )
    newcomer = mesh.replica("auth-svc", name)
    mesh.joined.append(newcomer)
    mesh.enrol(newcomer)
    mesh.processes.await_replicas([newcomer])
    began = time.monotonic()
    token = mesh.issuer.token()
    seen: list[Answer] = []

    def called() -> bool:
        seen.append(verify(token))
        return replicas_of(seen)[name] > 0

    until(called, within=SYNC_SECONDS, what=f"{name} should get calls", needs=[mesh.running_claims])
    took = time.monotonic() - began
    report.check(
        took < JOIN_SECONDS,
        f"its first call came {took * 1000:.0f} ms after it was ready",
        f"more than {JOIN_SECONDS:g} s",
    )
    ok = all(answer.status == HTTPStatus.OK for answer in seen)
    report.check(ok, "no call failed meanwhile", statuses_of(seen))


def leaving(mesh: ManagedMesh, report: Report) -> None:
    """A replica is drained; the one that was killed has run out."""
    (leaver,), victim = mesh.joined, mesh.auth[0]
    report.step(
        "One leaves, and one is gone",
        f"{leaver.name} gets SIGTERM and says goodbye; {victim.name} could not, and its time runs out.",
    )
    if leaver.sidecar is None:
        raise DemoError(f"{leaver.name} has not been started")
    sidecar = leaver.sidecar
    answers = verify_many(mesh.issuer.token(), CALLS, midway=lambda: sidecar.send(signal.SIGTERM))
    ok = all(answer.status == HTTPStatus.OK for answer in answers)
    report.check(ok, f"{CALLS} calls while {leaver.name} drains, none failed", statuses_of(answers))
    report.check(sidecar.wait(START_SECONDS), f"{leaver.name} and its app have ended")
    report.check(not registered(mesh, leaver), "hms services lists it no more")
    until(
        lambda: not registered(mesh, victim),
        within=LEASE_SECONDS,
        what=f"{victim.name} should leave the registry",
        needs=[mesh.running_control],
    )
    took = time.monotonic() - mesh.killed_at
    report.check(ok=True, expectation=f"nor {victim.name}, {took:.0f} s after it was killed")


def registered(mesh: ManagedMesh, replica: Replica) -> bool:
    """Whether `hms services` knows the replica's address."""
    done = mesh.operator.run("services")
    if done.code:
        raise DemoError(f"hms services has printed:\n{done.text}")
    return replica.address in done.text
