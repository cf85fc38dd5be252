"""Changes of files while calls go on: a route, and a change that is refused."""

from __future__ import annotations

import json
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from scripts.demonstration.calls import Answer, call
from scripts.demonstration.mesh_files import LISTENER_PORT, to_yaml
from scripts.demonstration.report import indented
from scripts.demonstration.verify import verify

if TYPE_CHECKING:
    from scripts.demonstration.lost_package_mesh import LostPackageMesh
    from scripts.demonstration.report import Report


def reimburse(mesh: LostPackageMesh, token: str | None = None) -> Answer:
    """Ask for a refund at Payments-SVC, as the program manager unless `token` says otherwise."""
    body = json.dumps({"claim": "DE-4711", "amount": "120.00 USD"}).encode()
    fields = {"Authorization": token or mesh.issuer.token(), "Content-Type": "application/json"}
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
    answer = reimburse(mesh)
    report.show(f"before: {answer.describe()}")
    ok = (answer.status, answer.flag) == (HTTPStatus.NOT_FOUND, "NR")
    report.check(ok, "an unknown service is a local 404 NR: never an open proxy", answer.describe())
    route = mesh.overlay.add_payments(mesh.payments.port)
    report.show(f"added to {mesh.overlay_path}:")
    report.show(indented(to_yaml([route])))
    now = _apply(mesh, report, mesh.overlay.text())
    _check_in_force(report, before, now)
    answer = reimburse(mesh)
    report.show(f"after:  {answer.describe()}")
    report.check(answer.status == HTTPStatus.ACCEPTED, "202 Accepted", answer.describe())
    answer = verify(mesh.issuer.token())
    report.check(answer.status == HTTPStatus.OK, "the old route still leads", answer.describe())


LIMIT = {"requests": 3, "per": "1m", "by": "subject"}
"""Refunds that one person may ask for."""


def rate_limit(mesh: LostPackageMesh, report: Report) -> None:
    """The route gets a limit, which holds to the very request, and loses it again."""
    report.step(
        "A rate limit",
        "Nobody files more than three refunds a minute; what is more is refused, with the time to wait.",
    )
    before = mesh.config_status()
    report.show(indented(to_yaml(mesh.overlay.limit_payments(LIMIT))))
    now = _apply(mesh, report, mesh.overlay.text())
    _check_in_force(report, before, now)
    answers = [reimburse(mesh) for _ in range(5)]
    statuses = [int(answer.status) for answer in answers]
    expected = [HTTPStatus.ACCEPTED] * 3 + [HTTPStatus.TOO_MANY_REQUESTS] * 2
    report.check(statuses == expected, "three are let through, the others are 429", str(statuses))
    refused = answers[-1]
    report.show(refused.describe())
    wait = refused.headers["Retry-After"]
    told = refused.flag == "RL" and wait is not None and refused.headers["RateLimit"] is not None
    report.check(told, f"flag RL, and when to come again: in {wait} s", refused.describe())
    mesh.overlay.limit_payments(None)
    _apply(mesh, report, mesh.overlay.text())
    answer = reimburse(mesh)
    report.check(
        answer.status == HTTPStatus.ACCEPTED, "without it, all as before", answer.describe()
    )


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
    answer = reimburse(mesh)
    report.check(answer.status == HTTPStatus.ACCEPTED, "and serves on", answer.describe())
    mended = mesh.reload(mesh.overlay.text())
    report.check(mended["rejected"] is None, "mended, it is accepted", str(mended["rejected"]))
