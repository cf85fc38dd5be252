"""mesh.yaml is edited while calls go on: a canary, a typo, a port that is taken, a mirror."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Final

from scripts.demonstration.claim_steps import CALLS, CANARY, REPLICAS
from scripts.demonstration.lost_package import DOOR, START_SECONDS
from scripts.demonstration.mesh_file import NAME
from scripts.demonstration.tally import all_good, bars, many, replicas_of, statuses_of

if TYPE_CHECKING:
    from scripts.demonstration.lost_package import LostPackage
    from scripts.demonstration.report import Report

HALF = range(70, 131)
"""How many of 200 calls go to a canary with 50%: 100, give or take four standard deviations."""
COPIED: Final = 3
NEXT: Final = "payments-svc-v2-1"


def canary(mesh: LostPackage, report: Report) -> None:
    """The canary's weight is raised while all runs."""
    report.step("The canary gets half", "One number in mesh.yaml; nothing is restarted for that.")
    before = mesh.admin("claims-svc-1", "/config")["version"]
    change = mesh.edit("trafficPolicy: weight=10", "trafficPolicy: weight=50", "is in force")
    report.show(change)
    mesh.in_force(
        lambda: mesh.admin("claims-svc-1", "/config")["version"] != before,
        "Claims-SVC's sidecar has it",
    )
    answers = many(mesh.verify, CALLS)
    counts = replicas_of(answers)
    report.show(bars(counts, [*REPLICAS, CANARY]))
    report.check(all_good(answers), f"{CALLS} calls, none failed", statuses_of(answers))
    share = counts[CANARY]
    report.check(share in HALF, f"{share} went to v2 (expected: about {CALLS // 2})", str(share))


def typo(mesh: LostPackage, report: Report) -> None:
    """A change with a slip of the pen is told, and what runs goes on."""
    report.step("A slip of the pen", "A key is misspelt. Nothing of the change may take effect.")
    before = mesh.admin("claims-svc-1", "/config")["version"]
    after = mesh.up.mark()
    report.show(mesh.edit("replicas: 5", "replcas: 5", "what runs goes on"))
    told = "\n".join(line for line in mesh.up.said("", after) if line.startswith("up "))
    report.show(told)
    place = f"{NAME}:{mesh.file.line_of('replcas: 5')}:"
    report.check(place in told, "the file, the line and the column are told", f"no {place}")
    meant = "did you mean replicas?"
    report.check(meant in told, "and what was probably meant", told)
    same = mesh.admin("claims-svc-1", "/config")["version"] == before
    answer = mesh.claim()
    report.check(same and answer.good, "the mesh serves on as it was", answer.describe())
    mesh.file.edit("replcas: 5", "replicas: 5")


def refused_by_one(mesh: LostPackage, report: Report) -> None:
    """A change that is sound, but that one sidecar cannot take."""
    report.step(
        "A change that one sidecar cannot take",
        "The portal is to have another door, on a port that somebody else has.",
    )
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        report.show(mesh.edit(f"port: {DOOR},", f"port: {port},", "is in force"))
        mesh.in_force(
            lambda: mesh.admin("user-portal-1", "/config")["rejected"],
            "the portal's has refused it",
        )
        done = mesh.hms("status")
        report.show(f"$ hms status\n{done.text}")
        report.check(
            done.code == 1 and "NACK" in done.text and f"127.0.0.1:{port}" in done.text,
            "hms status says who has refused it and why: exit code 1",
            f"exit code {done.code}",
        )
        answer = mesh.claim()
        report.check(
            answer.good, "that sidecar keeps what it had, and serves on", answer.describe()
        )
    mesh.edit(f"port: {port},", f"port: {DOOR},", "is in force")
    mesh.in_force(
        lambda: not mesh.admin("user-portal-1", "/config")["rejected"], "the portal's has taken it"
    )
    report.check(ok=True, expectation="mended, all take it")


def one_fewer(mesh: LostPackage, report: Report) -> None:
    """A replica is not wanted any more, and leaves while calls are under way."""
    leaver = REPLICAS[-1]
    report.step("One replica fewer", f"{leaver} drains: it says goodbye, and finishes what it has.")
    changes: list[str] = []

    def edit() -> None:
        changes.append(mesh.edit("replicas: 5", "replicas: 4", f"{leaver} is stopped"))

    answers = many(mesh.verify, CALLS, midway=edit)
    report.show(changes[0])
    report.check(all_good(answers), f"{CALLS} calls meanwhile, none failed", statuses_of(answers))
    later = replicas_of(many(mesh.verify, CALLS // 4))
    report.check(leaver not in later, f"{leaver} gets none any more", str(dict(later)))


def mirror(mesh: LostPackage, report: Report) -> None:
    """The next version of Payments-SVC is started, and gets a copy of each refund."""
    report.step(
        "A mirror",
        "One instance of the next Payments-SVC is asked for; the route has its mirror ready.",
    )
    report.show(mesh.edit("replicas: 0", "replicas: 1", f"{NEXT} is ready"))
    mesh.in_force(lambda: mesh.cluster("payments-svc-v2"), "Claims-SVC's sidecar knows it")
    after = mesh.up.mark()
    answers = [mesh.claim() for _ in range(COPIED)]
    callers = {answer.json()["hops"][-1]["at"] for answer in answers if answer.good}
    report.check(
        callers == {"payments-svc-1"}, "callers get the answers of the one in use", str(callers)
    )
    copied = f"{NEXT} │"

    def copies() -> list[str]:
        found = [line for line in mesh.up.said(copied, after) if "POST /reimburse" in line]
        return found if len(found) >= COPIED else []

    lines = mesh.up.until(copies, within=START_SECONDS, what="the copies have arrived")
    report.show(lines[0])
    report.check(len(lines) == COPIED, f"and the next version got {COPIED} copies", str(lines))
