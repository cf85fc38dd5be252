"""Changes while calls go on: a route, a change that is refused, a canary."""

from __future__ import annotations

import json
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from scripts.demonstration.calls import Answer, call
from scripts.demonstration.mesh_files import CANARY_PERCENT, LISTENER_PORT, to_yaml
from scripts.demonstration.verify import replicas_of, statuses_of, verify, verify_many

if TYPE_CHECKING:
    from scripts.demonstration.lost_package_mesh import LostPackageMesh
    from scripts.demonstration.report import Report

CANARY_CALLS: Final = 200
CANARY_RANGE: Final = (3, 50)
"""Of 200 calls at 10 % each: outside lies less than one run in a hundred thousand."""


def _reimburse(mesh: LostPackageMesh) -> Answer:
    body = json.dumps({"claim": "DE-4711", "amount": "120.00 USD"}).encode()
    fields = {"Authorization": mesh.issuer.token(), "Content-Type": "application/json"}
    target = "/reimburse?host=payments-svc.svc"
    return call(LISTENER_PORT, target, fields, method="POST", body=body)


def _apply(mesh: LostPackageMesh, report: Report, text: str) -> dict[str, Any]:
    """Write the overlay, wait for the sidecar's word, and say how long it took."""
    began = time.monotonic()
    status = mesh.reload(text)
    report.show(f"the sidecar took note of it after {time.monotonic() - began:.1f} s")
    return status


def _check_in_force(report: Report, before: dict[str, Any], now: dict[str, Any]) -> None:
    report.check(
        now["rejected"] is None and now["version"] != before["version"],
        f"version {now['version']} is in force (/config on the admin port)",
        str(now["rejected"]),
    )


def new_route(mesh: LostPackageMesh, report: Report) -> None:
    """A route appears while the sidecar runs."""
    report.step(
        "A new route, without a restart",
        "The refund needs POST /reimburse at Payments-SVC; the overlay is edited while all runs.",
    )
    before = mesh.config_status()
    answer = _reimburse(mesh)
    report.show(f"before: {answer.describe()}")
    ok = (answer.status, answer.flag) == (HTTPStatus.NOT_FOUND, "NR")
    report.check(ok, "an unknown service is a local 404 NR: never an open proxy", answer.describe())
    route = mesh.overlay.add_payments(mesh.payments.port)
    report.show(f"added to {mesh.overlay_path}:")
    report.show(_indented(to_yaml([route])))
    now = _apply(mesh, report, mesh.overlay.text())
    _check_in_force(report, before, now)
    answer = _reimburse(mesh)
    report.show(f"after:  {answer.describe()}")
    report.check(answer.status == HTTPStatus.ACCEPTED, "202 Accepted", answer.describe())
    answer = verify(mesh.issuer.token())
    report.check(answer.status == HTTPStatus.OK, "the old route still leads", answer.describe())


def broken_change(mesh: LostPackageMesh, report: Report) -> None:
    """A change that cannot be used is refused, and the old configuration goes on."""
    report.step("A broken change", "A key is misspelt. Nothing of the change may take effect.")
    before = mesh.config_status()
    now = _apply(mesh, report, mesh.overlay.broken_text())
    reason = str((now["rejected"] or {}).get("reason"))
    report.show(reason)
    report.check(now["rejected"] is not None, "it is refused", str(now["rejected"]))
    place = f"{mesh.overlay_path}:"
    told = place in reason and "connect_timeout" in reason
    report.check(told, "file, line, and what was probably meant are told", reason)
    report.check(now["version"] == before["version"], "the old version is in force", now["version"])
    answer = _reimburse(mesh)
    report.check(answer.status == HTTPStatus.ACCEPTED, "and serves on", answer.describe())
    mended = mesh.reload(mesh.overlay.text())
    report.check(mended["rejected"] is None, "mended, it is accepted", str(mended["rejected"]))


def canary(mesh: LostPackageMesh, report: Report) -> None:
    """A second version of Auth-SVC gets its share."""
    report.step(
        "A canary",
        f"trafficPolicy: weight={CANARY_PERCENT} for auth-svc-v2; no app is restarted.",
    )
    before = mesh.config_status()
    cluster = mesh.overlay.add_canary(mesh.canary.port)
    report.show(_indented(to_yaml([cluster])))
    now = _apply(mesh, report, mesh.overlay.text())
    _check_in_force(report, before, now)
    answers = verify_many(mesh.issuer.token(), CANARY_CALLS)
    counts = replicas_of(answers)
    share = counts[mesh.canary.name]
    report.check(counts.total() == CANARY_CALLS, "every call is answered", statuses_of(answers))
    low, high = CANARY_RANGE
    report.check(
        low <= share <= high,
        f"{share} of {CANARY_CALLS} calls went to v2, the others to the five as before",
        f"expected about {CANARY_CALLS * CANARY_PERCENT // 100}",
    )


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
