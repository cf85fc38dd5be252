"""What happens when processes die: a replica, all of a service, HMS-GOV, the control plane."""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from scripts.demonstration.claim_steps import REPLICAS, header, hops_of
from scripts.demonstration.edit_steps import NEXT
from scripts.demonstration.lost_package import START_SECONDS
from scripts.demonstration.pulse import Pulse
from scripts.demonstration.tally import all_good, many, replicas_of, statuses_of

if TYPE_CHECKING:
    from scripts.demonstration.calls import Answer
    from scripts.demonstration.lost_package import LostPackage
    from scripts.demonstration.report import Report

CALLS: Final = 100
CONTROL: Final = "control-plane"
CLAIMS: Final = "claims-svc-1"
PAYMENTS: Final = "payments-svc-1"
TTL: Final = 5.0
"""Of a policy version, in seconds: mesh.yaml says so."""
NEW_POLICY: Final = "1.4.0"


def governance_stops(mesh: LostPackage, report: Report) -> None:
    """HMS-GOV is taken out of the file."""
    report.step(
        "HMS-GOV stops",
        f"It is taken out of service. The policy version is good for {TTL:g} s; we look again later.",
    )
    says = "hms-gov-1 is stopped"
    report.show(
        mesh.edit("port: 15090\n", "port: 15090\n    replicas: 0\n", says, below="  hms-gov:")
    )
    mesh.governance_stopped = time.monotonic()
    answer = mesh.claim()
    report.check(answer.good, "claims go on", answer.describe())


def replica_dies(mesh: LostPackage, report: Report) -> None:
    """A replica dies while calls are under way, and is brought back."""
    victim = REPLICAS[2]
    report.step(
        "A replica dies",
        f"{CALLS} calls; while they run, {victim} and its sidecar are killed (SIGKILL).",
    )
    after, killed = mesh.up.mark(), []
    answers = many(mesh.verify, CALLS, midway=lambda: killed.append(mesh.kill(victim)))
    report.check(all_good(answers), "no call failed", statuses_of(answers))
    told = mesh.up.wait_for(f"{victim} was ended by", within=START_SECONDS, after=after)
    report.show(told.partition("; its last lines")[0])
    report.check("starting it again in" in told, "hms up says so, and starts it again", told)
    took = mesh.await_back([victim], after=after, since=killed[0])

    def called() -> bool:
        return replicas_of(many(mesh.verify, len(REPLICAS)))[victim] > 0

    mesh.in_force(called, f"{victim} gets calls again")
    report.check(ok=True, expectation=f"it was back after {took:.1f} s, and gets calls again")


def failover_and_fallback(mesh: LostPackage, report: Report) -> None:
    """Payments-SVC dies and its next version takes over; that dies, too, and the route answers."""
    report.step(
        "A failover, then a fallback",
        "The next Payments-SVC has seen enough to step in. v1 is killed; then both.",
    )
    before = mesh.admin("claims-svc-1", "/config")["version"]
    commented = "# failover: payments-svc-v2"
    report.show(mesh.edit(commented, commented[2:], "is in force"))
    mesh.in_force(
        lambda: mesh.admin("claims-svc-1", "/config")["version"] != before,
        "Claims-SVC's sidecar has it",
    )
    after = mesh.up.mark()
    mesh.kill(PAYMENTS)
    answers = [mesh.claim() for _ in range(4)]
    by = [hops_of(answer)[-1]["at"] for answer in answers if hops_of(answer)]
    ok = all_good(answers) and by == [NEXT] * 4
    report.check(ok, f"no refund failed: {NEXT} has paid", f"{statuses_of(answers)} by {by}")
    killed = mesh.kill(PAYMENTS, NEXT)
    answer = mesh.claim()
    told = answer.json()
    report.show(f"both dead: {answer.status}, {told.get('state')}")
    ok = answer.status == HTTPStatus.ACCEPTED and told["state"] == "refund queued"
    report.check(ok, "the claim is taken, and says that its refund is queued", answer.describe())
    took = mesh.await_back([PAYMENTS, NEXT], after=after, since=killed)

    def paid() -> bool:
        return bool(mesh.claim().json().get("state") == "refund accepted")

    mesh.in_force(paid, "refunds are accepted again")
    report.check(ok=True, expectation=f"both are back after {took:.1f} s, and pay again")


def all_dead(mesh: LostPackage, report: Report) -> None:
    """With nobody left the caller's sidecar answers by itself, at once; then it comes back."""
    report.step(
        "A service that is gone",
        f"{CLAIMS} is the only one of its service, and is killed. Nothing may hang, nothing may lie.",
    )
    after = mesh.up.mark()
    killed = mesh.kill(CLAIMS)
    seen: list[Answer] = []

    def tripped() -> bool:
        began = time.monotonic()
        seen.append(mesh.claim())
        took.append(time.monotonic() - began)
        return _flag(seen[-1]).startswith("UH")

    took: list[float] = []
    mesh.up.until(tripped, within=START_SECONDS, what="the breaker is open")
    answer = seen[-1]
    report.show(answer.describe())
    refused = all(one.status == HTTPStatus.SERVICE_UNAVAILABLE for one in seen)
    report.check(refused, f"503 each time, {len(seen)} times", statuses_of(seen))
    report.check(answer.headers["Retry-After"], "the last, UH, says when to try again")
    report.show(f"it took {took[-1] * 1000:.0f} ms")
    back = mesh.await_back([CLAIMS], after=after, since=killed)
    mesh.in_force(lambda: mesh.claim().good, "claims are taken again")
    report.check(
        ok=True, expectation=f"it was back after {back:.1f} s, by itself: claims are taken"
    )


def _flag(answer: Answer) -> str:
    return f"{answer.json().get('flag', '')}"


def governance_returns(mesh: LostPackage, report: Report) -> None:
    """HMS-GOV was away for longer than a TTL; it comes back with another version."""

    def away_for() -> float:
        return time.monotonic() - mesh.governance_stopped

    # On a quick machine the steps between were done sooner.
    mesh.up.until(lambda: away_for() > TTL, within=START_SECONDS, what="its version has run out")
    away = away_for()
    report.step(
        "HMS-GOV returns, with another policy",
        f"It has been away for {away:.0f} s; the version that it gave is good for {TTL:g} s.",
    )
    hops = hops_of(mesh.claim())
    old = {header(hop, "X-Policy-Version") for hop in hops}
    ok = len(old) == 1 and None not in old
    report.check(
        ok, f"every hop still has {old}: the old one serves on", f"{old} after {away:.0f} s"
    )
    mesh.file.edit("    replicas: 0\n", "", below="  hms-gov:")
    says = "hms-gov-1 is ready"
    report.show(mesh.edit("POLICY_VERSION: 1.3.4", f"POLICY_VERSION: {NEW_POLICY}", says))
    began = time.monotonic()

    def arrived() -> bool:
        hops = hops_of(mesh.claim())
        return {header(hop, "X-Policy-Version") for hop in hops} == {NEW_POLICY}

    mesh.in_force(arrived, "the new version has arrived everywhere")
    took = time.monotonic() - began
    report.check(ok=True, expectation=f"{NEW_POLICY} on every hop {took:.1f} s after it was back")


def control_plane_dies(mesh: LostPackage, report: Report) -> None:
    """Without a control plane the mesh serves on."""
    report.step(
        "The control plane dies", "kill -9, while calls go on. No call needs it; hms up revives it."
    )
    after = mesh.up.mark()
    pulse = Pulse(mesh.verify)
    pulse.start()
    killed = mesh.kill(CONTROL)
    told = mesh.up.wait_for(f"{CONTROL} was ended", within=START_SECONDS, after=after)
    report.show(told.partition("; its last lines")[0])
    answer = mesh.claim()
    report.check(answer.good, "a claim meanwhile is refunded", answer.describe())
    took = mesh.await_back([CONTROL], after=after, since=killed)
    pulse.stop()
    ok = pulse.calls and not pulse.failures
    report.check(ok, f"{pulse.calls} calls meanwhile, none failed", str(pulse.failures[:3]))
    report.check(ok=True, expectation=f"it was back after {took:.1f} s")
