"""The seed's first call, and what becomes of it on its way."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from scripts.demonstration.mesh_files import CALLER
from scripts.demonstration.tokens import ROLE, SUBJECT
from scripts.demonstration.verify import (
    bars,
    received,
    replicas_of,
    statuses_of,
    verify,
    verify_many,
)
from scripts.lost_package.hms_gov import POLICY_VERSION

if TYPE_CHECKING:
    from scripts.demonstration.lost_package_mesh import LostPackageMesh
    from scripts.demonstration.report import Report

CALLS = 100
VERIFIED = "✅ verified"
INVALID = "❌ invalid"


def seed_caller(mesh: LostPackageMesh, report: Report) -> None:
    """The seed's caller, unmodified."""
    report.step(
        "The seed's first call",
        "Claims-SVC asks its own sidecar in plain HTTP; Auth-SVC answers from behind mutual TLS.",
    )
    report.show(f"$ SOLDIER_JWT=… python {mesh.caller}")
    printed = mesh.run_caller(mesh.issuer.token())
    report.show(printed)
    report.check(printed == VERIFIED, f"the caller prints {VERIFIED}", printed)


def spread(mesh: LostPackageMesh, report: Report) -> None:
    """Calls are spread over the replicas."""
    names = [replica.name for replica in mesh.replicas]
    report.step(
        "One address, five replicas",
        f"{CALLS} calls to auth-svc.svc; the app behind each sidecar says which replica it is.",
    )
    answers = verify_many(mesh.issuer.token(), CALLS)
    counts = replicas_of(answers)
    report.show(bars(counts, names))
    report.check(counts.total() == CALLS, "every call was answered with 200", statuses_of(answers))
    fair = CALLS // len(names)
    even = all(fair // 2 <= counts[name] <= fair * 2 for name in names)
    report.check(even, "each replica had its share", str(dict(counts)))


def headers(mesh: LostPackageMesh, report: Report) -> None:
    """What the mesh tells the app, and what it asked HMS-GOV for that."""
    report.step(
        "What arrived at the app",
        "Claims-SVC sent a token and nothing else; the sidecars added the rest.",
    )
    answer = verify(mesh.issuer.token())
    if not report.check(answer.status == HTTPStatus.OK, "the call is answered", answer.describe()):
        return
    expected = {
        "X-Policy-Version": ([POLICY_VERSION], "from HMS-GOV"),
        "X-Caller-Role": ([ROLE], "from the JWT"),
        "X-Caller-Subject": ([SUBJECT], "from the JWT"),
        "X-Caller-Service": ([CALLER], "from the caller's certificate (SVID)"),
    }
    for name, (values, source) in expected.items():
        seen = received(answer, name)
        report.check(seen == values, f"{name}: {', '.join(values)}   ← {source}", f"saw {seen}")
    for name in ("X-Request-ID", "traceparent"):
        seen = received(answer, name)
        shown = ", ".join(seen)
        report.check(
            len(seen) == 1, f"{name}: {shown}   ← made where it was missing", f"saw {seen}"
        )
    asked = mesh.governance_questions()
    # Payments-SVC's sidecars have asked too, or are about to.
    involved, everyone = len(mesh.replicas) + 1, len(mesh.everyone()) + 1
    report.check(
        involved <= asked <= everyone,
        f"HMS-GOV was asked {asked} times: once by each sidecar, whatever the number of calls",
        f"expected {involved} to {everyone}",
    )
