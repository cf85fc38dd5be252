"""What happens when replicas die, all of them too, and when they come back."""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from scripts.demonstration.children import until
from scripts.demonstration.mesh_files import EJECTION_SECONDS
from scripts.demonstration.policy_steps import show_problem
from scripts.demonstration.verify import bars, replicas_of, statuses_of, verify, verify_many

if TYPE_CHECKING:
    from scripts.demonstration.lost_package_mesh import LostPackageMesh
    from scripts.demonstration.report import Report

CALLS: Final = 100
PATIENCE: Final = 15.0
"""Seconds for breakers to open or close."""
PROMPT: Final = 0.5
"""Seconds within which an open breaker answers, on a crowded machine."""


def one_replica_killed(mesh: LostPackageMesh, report: Report) -> None:
    """A replica dies while calls are under way."""
    victim = mesh.replicas[2]
    names = [replica.name for replica in mesh.replicas]
    report.step(
        "A replica dies",
        f"{CALLS} calls; while they run, {victim.name} and its sidecar are killed (SIGKILL).",
    )
    token = mesh.issuer.token()
    answers = verify_many(token, CALLS, midway=lambda: mesh.processes.kill([victim]))
    counts = replicas_of(answers)
    report.show(bars(counts, names))
    report.check(counts.total() == CALLS, "no call failed", statuses_of(answers))
    after = verify_many(token, CALLS)
    counts = replicas_of(after)
    report.check(
        counts.total() == CALLS and not counts[victim.name],
        f"{CALLS} more calls took the detour, and none failed",
        f"{statuses_of(after)}, {dict(counts)}",
    )
    states = mesh.endpoints()
    state = states[victim.name]
    report.show(f"{victim.name} at {state['address']} is {state['state']}: {state['cause']}")
    report.check(state["state"] != "closed", "its breaker has opened", state["state"])
    rest = [states[name]["state"] for name in names if name != victim.name]
    report.check(set(rest) == {"closed"}, "the others' have not", str(rest))


def all_replicas_dead(mesh: LostPackageMesh, report: Report) -> None:
    """With nobody left the sidecar answers by itself, at once."""
    report.step(
        "All replicas dead",
        "The breakers open; the sidecar then answers by itself, without a call that cannot succeed.",
    )
    mesh.processes.kill(replica for replica in mesh.replicas if replica.app_pid() is not None)
    token = mesh.issuer.token()
    seen = []

    def tripped() -> bool:
        seen.append(verify(token))
        return seen[-1].flag == "UH"

    until(tripped, within=PATIENCE, what="the answer should be UH", needs=[mesh.running_claims])
    began = time.monotonic()
    answer = verify(token)
    took = time.monotonic() - began
    show_problem(report, answer, "Retry-After")
    refused = all(one.status == HTTPStatus.SERVICE_UNAVAILABLE for one in seen)
    report.check(refused, f"no call hung or lied until the breakers were open: {statuses_of(seen)}")
    report.check(
        answer.flag == "UH" and answer.headers.get_content_type() == "application/problem+json",
        "the flag is UH (no healthy upstream), and the reason is told",
        answer.describe(),
    )
    wait = answer.headers.get("Retry-After", "")
    report.check(
        wait.isdigit() and 0 < int(wait) <= EJECTION_SECONDS + 2,
        f"Retry-After says when to try again: {wait} s (ejections are short here: "
        f"{EJECTION_SECONDS} s, not 30)",
        repr(wait),
    )
    report.check(took < PROMPT, f"it took {took * 1000:.0f} ms", f"more than {PROMPT:g} s")


def recovery(mesh: LostPackageMesh, report: Report) -> None:
    """They come back, and are found."""
    names = [replica.name for replica in mesh.replicas]
    report.step(
        "Recovery",
        "All five are started again; one real request probes each, then it is back in use.",
    )
    mesh.restart(mesh.replicas)
    began = time.monotonic()
    token = mesh.issuer.token()

    def closed() -> bool:
        verify(token)
        return all(one["state"] == "closed" for one in mesh.endpoints().values())

    until(closed, within=PATIENCE, what="breakers should close", needs=[mesh.running_claims])
    report.show(f"all breakers were closed {time.monotonic() - began:.1f} s after the restart")
    answers = verify_many(token, CALLS)
    counts = replicas_of(answers)
    report.show(bars(counts, names))
    report.check(counts.total() == CALLS, "every call is answered again", statuses_of(answers))
    report.check(all(counts[name] for name in names), "by all five", str(dict(counts)))
