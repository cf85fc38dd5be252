"""Pushes while calls go on: a canary, one that is refused, one that a sidecar cannot take."""

from __future__ import annotations

import socket
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from scripts.demonstration.managed_files import CANARY_PERCENT, REPORTS
from scripts.demonstration.mesh_files import to_yaml
from scripts.demonstration.report import indented
from scripts.demonstration.verify import replicas_of, statuses_of, verify, verify_many

if TYPE_CHECKING:
    from scripts.demonstration.managed_mesh import ManagedMesh
    from scripts.demonstration.report import Report

CANARY_CALLS: Final = 1000
CANARY_RANGE: Final = (55, 150)
"""Of 1,000 calls at 10 % each: outside lies less than one run in a million (binomial)."""


def canary(mesh: ManagedMesh, report: Report) -> None:
    """A second version of Auth-SVC gets its share, by a push."""
    report.step(
        "A canary",
        f"{mesh.canary.name} runs and has no share; the push gives it one. Nothing is restarted.",
    )
    before = mesh.config_status()
    pids = [one.app_pid() for one in mesh.everyone()]
    began = time.monotonic()
    done = mesh.push(mesh.overlay.with_canary())
    report.show(indented(to_yaml([mesh.overlay.canary()])))
    mesh.await_config(before["version"], "the canary should reach Claims-SVC")
    took = time.monotonic() - began
    report.check(done.code == 0, f"pushed and in force after {took:.1f} s", done.text)
    answers = verify_many(mesh.issuer.token(), CANARY_CALLS)
    counts = replicas_of(answers)
    share = counts[mesh.canary.name]
    report.check(counts.total() == CANARY_CALLS, "every call is answered", statuses_of(answers))
    low, high = CANARY_RANGE
    expected = CANARY_CALLS * CANARY_PERCENT // 100
    report.check(
        low <= share <= high,
        f"{share} of {CANARY_CALLS:,} calls went to v2 (expected: about {expected})",
        f"outside {low} to {high}",
    )
    same = pids == [one.app_pid() for one in mesh.everyone()]
    report.check(same and None not in pids, "every app is the process that it was", str(pids))


def refused_push(mesh: ManagedMesh, report: Report) -> None:
    """A push with a mistake changes nothing."""
    report.step(
        "A bad push", "A key is misspelt. The control plane says where, and nothing changes."
    )
    before = mesh.config_status()
    done = mesh.push_text(mesh.overlay.broken_text())
    report.show(done.text)
    report.check(done.code == 1, "it is refused: exit code 1", f"exit code {done.code}")
    lines = mesh.overlay.broken_text().splitlines()
    line = 1 + next(number for number, text in enumerate(lines) if "trafficPolcy" in text)
    place = f"{mesh.overlay_path}:{line}:"
    report.check(place in done.text, "the file, the line and the column are told", f"no {place}")
    meant = "did you mean trafficPolicy?"
    report.check(meant in done.text, "and what was probably meant", done.text)
    code, history = mesh.operator.json("config", "history")
    versions = [item["version"] for item in history["versions"]]
    same = code == 0 and max(versions) == mesh.pushed
    report.check(same, f"the newest version is still {mesh.pushed}", f"{versions}")
    same = mesh.config_status()["version"] == before["version"]
    answer = verify(mesh.issuer.token())
    report.check(
        same and answer.status == HTTPStatus.OK, "and the mesh serves on", answer.describe()
    )
    mesh.overlay_path.write_text(mesh.overlay.text(), encoding="utf-8")


def nack(mesh: ManagedMesh, report: Report) -> None:
    """A push that compiles, but that one sidecar cannot take."""
    port = mesh.ports.take()
    report.step(
        "A push that one sidecar cannot take",
        f"A second listener for Claims-SVC, on port {port}: but somebody else has that port there.",
    )
    before = mesh.config_status()
    with socket.create_server(("127.0.0.1", port)):
        done = mesh.push(mesh.overlay.with_reports(port))
        report.check(done.code == 0, "the control plane cannot know, and takes it", done.text)
        told = mesh.await_claims(lambda now: now["rejected"], "Claims-SVC should refuse it")
        report.show("$ hms status")
        status = mesh.await_status(1, "hms status should find something wrong")
        report.show(status.text)
        report.check(
            "NACK" in status.text and f"127.0.0.1:{port}" in status.text,
            "hms status says who has refused it and why: exit code 1",
            status.text,
        )
        same = told["version"] == before["version"]
        report.check(same, "the sidecar keeps what it had", told["version"])
        answer = verify(mesh.issuer.token())
        report.check(answer.status == HTTPStatus.OK, "and serves on", answer.describe())
    port = mesh.ports.take()
    mesh.push(mesh.overlay.with_reports(port))
    mesh.await_claims(
        lambda now: not now["rejected"] and now["version"] != before["version"],
        "Claims-SVC should take the mended one",
    )
    answer = verify(mesh.issuer.token(), port=port)
    ok = answer.status == HTTPStatus.OK
    report.check(ok, f"mended, the listener {REPORTS} serves on port {port}", answer.describe())
    status = mesh.await_status(0, "hms status should find all well again")
    report.check(status.code == 0, "all are in sync again: exit code 0")
