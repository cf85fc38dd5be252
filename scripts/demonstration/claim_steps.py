"""What the mesh is for: a claim on its way, the seed's own call, and one address for six replicas."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from scripts.demonstration.calls import call
from scripts.demonstration.lost_package import GOVERNANCE, ROLE
from scripts.demonstration.tally import all_good, bars, many, replicas_of, statuses_of
from scripts.lost_package.hms_gov import POLICY_VERSION

if TYPE_CHECKING:
    from scripts.demonstration.calls import Answer
    from scripts.demonstration.lost_package import LostPackage
    from scripts.demonstration.report import Report

VERIFIED = "✅ verified"
CALLS = 200
REPLICAS = [f"auth-svc-{n}" for n in range(1, 6)]
CANARY = "auth-svc-v2-1"
TENTH = range(4, 41)
"""How many of 200 calls go to a canary with 10%: 20, give or take four standard deviations and more."""
SHOWN = ("X-Caller-Role", "X-Policy-Version", "X-Caller-Service")
CALLERS = {
    "user-portal-1": None,
    "claims-svc-1": "spiffe://mpsa.mil/svc/user-portal",
    "auth-svc": "spiffe://mpsa.mil/svc/claims-svc",
    "payments-svc-1": "spiffe://mpsa.mil/svc/claims-svc",
}
"""Who is on a claim's way, and whose certificate each has seen; people have none."""


def hops_of(answer: Answer) -> list[dict[str, Any]]:
    """What each service on a claim's way has seen; none if the claim was not accepted."""
    found: list[dict[str, Any]] = answer.json().get("hops", []) if answer.good else []
    return found


def header(hop: dict[str, Any], name: str) -> str | None:
    """A header field that a service has seen, however it was spelt."""
    wanted = name.lower().replace("_", "-")
    values = [v for k, v in hop["headers"].items() if k.lower().replace("_", "-") == wanted]
    return ", ".join(values) or None


def a_claim(mesh: LostPackage, report: Report) -> None:
    """A claim is filed, and refunded."""
    report.step(
        "A soldier's package is lost",
        "POST /claims at the portal → Claims → GET /verify-id at Auth → POST /reimburse at Payments.",
    )
    answer = mesh.claim()
    ok = answer.status == HTTPStatus.ACCEPTED and answer.json()["state"] == "refund accepted"
    report.check(ok, "202: the refund is accepted", answer.describe())
    hops = hops_of(answer)
    for hop in hops:
        seen = "   ".join(f"{name}: {header(hop, name) or '-'}" for name in SHOWN)
        report.show(f"{hop['at']:<15} {seen}")
    met = [hop["at"] for hop in hops]
    way = [name in at for name, at in zip(CALLERS, met, strict=False)]
    report.check(way == [True] * len(CALLERS), "it went the way of the sequence diagram", str(met))
    for name, value, source in (
        ("X-Caller-Role", ROLE, "the token's role, though only the portal's door saw the token"),
        ("X-Policy-Version", POLICY_VERSION, "from HMS-GOV"),
    ):
        seen_values = [header(hop, name) for hop in hops]
        ok = seen_values == [value] * len(CALLERS)
        report.check(ok, f"{name} on every hop: {source}", str(seen_values))
    callers = [header(hop, "X-Caller-Service") for hop in hops]
    report.check(
        callers == [*CALLERS.values()], "X-Caller-Service: by its certificate", str(callers)
    )
    numbers = {header(hop, "X-Request-ID") for hop in hops}
    traces = {str(header(hop, "traceparent")).split("-")[1] for hop in hops if hop["headers"]}
    report.check(len(numbers) == len(traces) == 1, "one X-Request-ID and one trace all the way")
    asked = call(GOVERNANCE, "/stats").json()["asked"]
    report.show(
        f"HMS-GOV was asked {asked} times so far: by each sidecar once in 5 s, no matter the calls"
    )


def seed_caller(mesh: LostPackage, report: Report) -> None:
    """The seed's caller, unmodified."""
    report.step(
        "The seed's own call, as it stands",
        "Claims-SVC asks localhost:15001 in plain HTTP; Auth-SVC answers from behind mutual TLS.",
    )
    report.show(f"$ SOLDIER_JWT=… python {mesh.caller}")
    printed = mesh.run_caller(mesh.token())
    report.show(printed)
    report.check(printed == VERIFIED, f"it prints {VERIFIED}", printed)


def spread(mesh: LostPackage, report: Report) -> None:
    """Calls are spread over the replicas, and a tenth goes to the canary."""
    report.step(
        "One address, five replicas, one canary",
        f"{CALLS} calls to auth-svc.svc; trafficPolicy gives v2 a weight of 10%.",
    )
    answers = many(mesh.verify, CALLS)
    counts = replicas_of(answers)
    report.show(bars(counts, [*REPLICAS, CANARY]))
    report.check(all_good(answers), "every call was answered", statuses_of(answers))
    fair = (CALLS - counts[CANARY]) // len(REPLICAS)
    even = all(fair // 2 <= counts[name] <= fair * 2 for name in REPLICAS)
    report.check(even, "each replica had its share", str(dict(counts)))
    share = counts[CANARY]
    report.check(share in TENTH, f"{share} went to v2 (expected: about {CALLS // 10})", str(share))
