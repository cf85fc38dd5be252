"""A control plane starts, sidecars enrol by token, and the first configuration is pushed."""

from __future__ import annotations

import shlex
import sys
from http import HTTPStatus
from typing import TYPE_CHECKING

from scripts.demonstration.children import until
from scripts.demonstration.first_steps import VERIFIED
from scripts.demonstration.managed_mesh import SHORT_LIFETIME, SYNC_SECONDS
from scripts.demonstration.verify import replicas_of, statuses_of, verify, verify_many

if TYPE_CHECKING:
    from scripts.demonstration.managed_mesh import ManagedMesh
    from scripts.demonstration.report import Report

CALLS = 20


def control_plane(mesh: ManagedMesh, report: Report) -> None:
    """The control plane starts with an empty folder."""
    report.step(
        "A control plane",
        "One process, one folder. It prints three lines to copy into a shell; nothing else is needed.",
    )
    mesh.start_governance()
    report.show("$ " + shlex.join(mesh.control_command(SHORT_LIFETIME)))
    took = mesh.start_control(SHORT_LIFETIME)
    for name, value in mesh.operator.public().items():
        report.show(f"export {name}={value}")
    report.show("export HMS_ADMIN_TOKEN=…")
    ok = mesh.operator.environment().keys() >= {"HMS_CONTROL", "HMS_CA_PIN", "HMS_ADMIN_TOKEN"}
    report.check(ok, f"it serves after {took:.1f} s, and has said all three")
    secret = mesh.operator.environment().get("HMS_ADMIN_TOKEN", "")
    logged = bool(secret) and secret in mesh.running_control.log.read_text(encoding="utf-8")
    report.check(secret and not logged, "the admin token is in no log")


def enrol(mesh: ManagedMesh, report: Report) -> None:
    """Sidecars enrol by join tokens."""
    report.step(
        "A name and a token",
        "Each sidecar gets a join token, good once, for one service, for ten minutes; it has no file.",
    )
    for replica in mesh.everyone():
        mesh.enrol(replica)
    mesh.enrol_claims()
    report.show("$ export HMS_TOKEN=$(hms token create --service auth-svc)")
    report.show("$ " + shlex.join(mesh.auth[0].command).replace(sys.executable, "python"))
    report.show("$ " + shlex.join(mesh.claims_command(mesh.claims_options("hms1.…"))))
    mesh.await_everyone()
    names = [one.name for one in mesh.everyone()]
    report.check(ok=True, expectation=f"{', '.join(names)} and Claims-SVC's sidecar are ready")
    files = [word for one in mesh.everyone() for word in one.command if word == "--config"]
    report.check(not files, "none of them was given a file")


def first_push(mesh: ManagedMesh, report: Report) -> None:
    """The seed's routes and an overlay are pushed."""
    report.step(
        "The configuration is pushed",
        "The seed's routes.yaml and an overlay for the whole mesh; each sidecar gets its own part.",
    )
    before = mesh.config_status()
    report.show("$ " + shlex.join(["hms", *mesh.push_words]))
    done = mesh.push()
    report.show(done.text)
    report.check(done.code == 0, "it is taken", f"exit code {done.code}")
    mesh.await_config(before["version"], "the pushed configuration should reach Claims-SVC")
    token = mesh.issuer.token()

    def served() -> bool:
        return verify(token).status == HTTPStatus.OK

    until(served, within=SYNC_SECONDS, what="Auth-SVC should answer", needs=[mesh.running_claims])
    report.show(f"$ SOLDIER_JWT=… python {mesh.caller}")
    printed = mesh.run_caller(token)
    report.show(printed)
    report.check(printed == VERIFIED, f"the seed's caller prints {VERIFIED}", printed)
    answers = verify_many(token, CALLS)
    counts = replicas_of(answers)
    ok = counts.total() == CALLS and set(counts) == {one.name for one in mesh.auth}
    report.check(
        ok,
        "both replicas are found without an address anywhere; v2 has no share yet",
        f"{dict(counts)}, {statuses_of(answers)}",
    )


def all_well(mesh: ManagedMesh, report: Report) -> None:
    """The fleet at a glance."""
    report.step("The fleet at a glance", "Every sidecar, what it runs, and whether that is well.")
    report.show("$ hms status")
    done = mesh.await_status(0, "hms status should find all well")
    report.show(done.text)
    names = [one.service for one in mesh.everyone()]
    ok = all(name in done.text for name in (*names, "claims-svc"))
    report.check(ok, f"all {len(names) + 1} are there and in sync: exit code 0", done.text)
