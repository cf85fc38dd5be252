"""Who may: forged headers, bad tokens, roles, callers without a certificate, and how often."""

from __future__ import annotations

import http.client
import ssl
import textwrap
from http import HTTPStatus
from typing import TYPE_CHECKING

from scripts.demonstration.calls import PATIENCE, Answer, call
from scripts.demonstration.claim_steps import header, hops_of
from scripts.demonstration.lost_package import MESH, ROLE, TARGET
from scripts.demonstration.tally import all_good, statuses_of

if TYPE_CHECKING:
    from scripts.demonstration.lost_package import LostPackage
    from scripts.demonstration.report import Report

INVALID = "❌ invalid"
HOUR = 3600.0
FORGED = {
    "X-Caller-Role": "GENERAL",
    "x_caller_role": "GENERAL",
    "X-Caller-Service": "spiffe://mpsa.mil/svc/pentagon",
    "X-Policy-Version": "0.0.0",
}
"""Under the second spelling, too, CGI and WSGI apps would read the role."""
LIMIT = 10
"""Refunds that one person may have a minute."""


def show_problem(report: Report, answer: Answer, *names: str) -> None:
    """Show a local answer: status, the header fields named, and the problem's members."""
    report.show(f"{answer.status} {http.client.responses.get(answer.status, '')}")
    for name in ("X-HMS-Flag", *names):
        if answer.headers[name] is not None:
            report.show(f"{name}: {answer.headers[name]}")
    if answer.headers.get_content_type() == "application/problem+json":
        detail = f"detail: {answer.json().get('detail')}"
        report.show(textwrap.fill(detail, 100, subsequent_indent="  "))


def check_refusal(report: Report, answer: Answer, status: HTTPStatus, flag: str) -> None:
    """Status, flag, and a reason that a person can read."""
    ok = answer.status == status and answer.flag == flag
    report.check(ok, f"refused with {status:d} and the flag {flag}", answer.describe())
    is_problem = answer.headers.get_content_type() == "application/problem+json"
    reason = answer.json().get("detail") if is_problem else None
    report.check(reason, "the reason is told (RFC 9457)", answer.describe())


def forged_headers(mesh: LostPackage, report: Report) -> None:
    """Headers that only the mesh may set are taken from callers."""
    report.step(
        "A forged role",
        "Somebody claims a role of his own; what reaches the apps is the role of his token.",
    )
    report.show("sent: " + ", ".join(f"{name}: {value}" for name, value in FORGED.items()))
    answer = mesh.claim(headers=FORGED)
    hops = hops_of(answer)
    roles = [header(hop, "X-Caller-Role") for hop in hops]
    report.show(f"seen: X-Caller-Role: {', '.join(map(str, roles))}")
    report.check(hops and set(roles) == {ROLE}, "the forged role is gone", answer.describe())
    forged = [value for value in FORGED.values() if value in answer.body.decode()]
    report.check(not forged, "nothing of it reached any app under any name", f"saw {forged}")
    bare = mesh.claim(token="", headers=FORGED)
    ok = bare.status == HTTPStatus.FORBIDDEN
    report.check(ok, "without a token the forged role opens nothing: 403", bare.describe())


def bad_token(mesh: LostPackage, report: Report) -> None:
    """An expired token is refused, with its reason."""
    report.step(
        "An expired token", "It ended an hour ago; the portal's door refuses it, no app sees it."
    )
    token = mesh.token(lifetime=-HOUR)
    answer = mesh.claim(token)
    show_problem(report, answer, "WWW-Authenticate")
    check_refusal(report, answer, HTTPStatus.UNAUTHORIZED, "JWT")
    challenge = answer.headers.get("WWW-Authenticate", "")
    report.check("expired" in challenge.lower(), "WWW-Authenticate says that it expired", challenge)
    printed = mesh.run_caller(token)
    report.check(printed == INVALID, f"the seed's caller prints {INVALID}", printed)


def roles(mesh: LostPackage, report: Report) -> None:
    """Genuine tokens of roles that may not."""
    report.step(
        "Roles that may not",
        f"A SOLDIER may file a claim, but only a {ROLE} has it paid; an AUDITOR may only look.",
    )
    answer = mesh.claim(mesh.token("SOLDIER", subject="soldier-7"))
    told = answer.json()
    report.show(f"SOLDIER: {answer.status}, {told.get('error')}")
    report.show(textwrap.fill(str(told.get("why")), 100))
    report.check(
        answer.status == HTTPStatus.FORBIDDEN and "managers-refund" in str(told.get("why")),
        "refused on the way to Payments-SVC, and the portal can say by which policy",
        answer.describe(),
    )
    answer = mesh.claim(mesh.token("AUDITOR", subject="auditor-1"))
    report.show("AUDITOR:")
    show_problem(report, answer)
    check_refusal(report, answer, HTTPStatus.FORBIDDEN, "RBAC")


def round_the_mesh(mesh: LostPackage, report: Report) -> None:
    """A replica's sidecar talks to nobody without a certificate, nor to every one that has one."""
    address = mesh.cluster("auth-svc")[0]["address"]
    report.step(
        "Round the mesh",
        f"Auth-SVC's sidecar at {address} is called directly; then by a service that may not.",
    )
    port = int(address.rpartition(":")[2])
    token = mesh.token()
    for how, outcome in (
        ("plain HTTP", _attempt(port, token)),
        ("TLS without a certificate", _attempt_tls(port, token)),
    ):
        report.check(not outcome.startswith("200"), f"{how}: {outcome}")
    portal = int(mesh.instances()["user-portal-1"]["url"].rpartition(":")[2])
    answer = call(portal, TARGET, {"Authorization": token})
    show_problem(report, answer)
    ok = (answer.status, answer.flag) == (HTTPStatus.FORBIDDEN, "RBAC")
    report.check(ok, "the portal has a certificate, and may not: 403", answer.describe())
    answer = call(MESH, "/verify-id?host=elsewhere.svc", {"Authorization": token})
    ok = (answer.status, answer.flag) == (HTTPStatus.NOT_FOUND, "NR")
    report.check(ok, "an unknown service is a 404 NR: never an open proxy", answer.describe())


def _attempt(port: int, token: str) -> str:
    try:
        return call(port, TARGET, {"Authorization": token}).describe()
    except (OSError, http.client.HTTPException) as error:
        return _closed(error)


def _attempt_tls(port: int, token: str) -> str:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # The stranger does not care whom it talks to.
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=PATIENCE, context=context)
    try:
        connection.request("GET", TARGET, headers={"Authorization": token})
        return str(connection.getresponse().status)
    except (OSError, http.client.HTTPException) as error:
        return _closed(error)
    finally:
        connection.close()


def _closed(error: Exception) -> str:
    return f"the connection is closed without an answer ({type(error).__name__})"


def rate_limit(mesh: LostPackage, report: Report) -> None:
    """One person has so many refunds a minute."""
    report.step(
        "A rate limit",
        f"{LIMIT} refunds a minute and person, counted where Claims-SVC calls Payments-SVC.",
    )
    token = mesh.someone()
    answers: list[Answer] = []
    # On a slow machine some come back into the bucket meanwhile.
    while len(answers) < 3 * LIMIT and all_good(answers):
        answers.append(mesh.claim(token))
    *let, answer = answers
    report.check(len(let) >= LIMIT, f"{len(let)} are let through", statuses_of(answers))
    report.show(answer.describe())
    wait = answer.headers.get("Retry-After", "")
    ok = answer.status == HTTPStatus.TOO_MANY_REQUESTS and wait.isdigit()
    report.check(ok, f"then 429, and when to come again: in {wait} s", answer.describe())
    other = mesh.claim()
    report.check(other.good, "another person has a limit of his own", other.describe())
