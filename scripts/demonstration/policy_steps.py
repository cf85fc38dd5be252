"""Who may: forged headers, bad tokens, roles, and callers without a certificate."""

from __future__ import annotations

import http.client
import ssl
import textwrap
from http import HTTPStatus
from typing import TYPE_CHECKING

from scripts.demonstration.calls import PATIENCE, Answer, call
from scripts.demonstration.first_steps import INVALID
from scripts.demonstration.mesh_files import CALLER
from scripts.demonstration.tokens import ROLE
from scripts.demonstration.verify import TARGET, received, verify

if TYPE_CHECKING:
    from scripts.demonstration.lost_package_mesh import LostPackageMesh
    from scripts.demonstration.report import Report

HOUR = 3600.0
FORGED = {
    "X-Caller-Role": "GENERAL",
    "x_caller_role": "GENERAL",
    "X-Caller-Service": "spiffe://mpsa.mil/svc/pentagon",
    "X-Policy-Version": "0.0.0",
}
"""Under the second spelling, too, CGI and WSGI apps would read the role."""


def forged_headers(mesh: LostPackageMesh, report: Report) -> None:
    """Headers that only the mesh may set are taken from callers."""
    report.step(
        "A forged role",
        "A caller claims a role of its own; what reaches the app is the role of its token.",
    )
    report.show("sent:    " + ", ".join(f"{name}: {value}" for name, value in FORGED.items()))
    answer = verify(mesh.issuer.token(), FORGED)
    if not report.check(answer.status == HTTPStatus.OK, "the call is answered", answer.describe()):
        return
    roles, services = received(answer, "X-Caller-Role"), received(answer, "X-Caller-Service")
    report.show(f"arrived: X-Caller-Role: {', '.join(roles)}, X-Caller-Service: {services[0]}")
    report.check(roles == [ROLE], "the forged role is gone", f"saw {roles}")
    report.check(services == [CALLER], "the forged caller is gone", f"saw {services}")
    forged = [value for value in FORGED.values() if value in answer.body.decode()]
    report.check(not forged, "nothing of it reached the app under any name", f"saw {forged}")
    bare = verify(None, FORGED)
    report.check(
        bare.status == HTTPStatus.FORBIDDEN,
        "without a token the forged role opens nothing: 403",
        bare.describe(),
    )


def show_problem(report: Report, answer: Answer, *names: str) -> None:
    """Show a local answer: status, the header fields named, and the problem's members."""
    report.show(f"{answer.status} {http.client.responses.get(answer.status, '')}")
    for name in ("Content-Type", "X-HMS-Flag", *names):
        if answer.headers[name] is not None:
            report.show(f"{name}: {answer.headers[name]}")
    if answer.headers.get_content_type() == "application/problem+json":
        for name, value in answer.json().items():
            report.show(textwrap.fill(f"  {name}: {value}", 100, subsequent_indent="    "))


def check_refusal(report: Report, answer: Answer, status: HTTPStatus, flag: str) -> None:
    """Status, flag, and a reason that a person can read."""
    ok = answer.status == status and answer.flag == flag
    report.check(ok, f"refused with {status:d} and the flag {flag}", answer.describe())
    is_problem = answer.headers.get_content_type() == "application/problem+json"
    reason = answer.json().get("detail") if is_problem else None
    report.check(reason, "the reason is told (RFC 9457)", answer.describe())


def expired_token(mesh: LostPackageMesh, report: Report) -> None:
    """An expired token is refused, with its reason."""
    report.step(
        "An expired token",
        "It ended an hour ago; Claims-SVC's own sidecar refuses it before it goes anywhere.",
    )
    token = mesh.issuer.token(lifetime=-HOUR)
    answer = verify(token)
    show_problem(report, answer, "WWW-Authenticate")
    check_refusal(report, answer, HTTPStatus.UNAUTHORIZED, "JWT")
    challenge = answer.headers.get("WWW-Authenticate", "")
    report.check("expired" in challenge.lower(), "WWW-Authenticate says that it expired", challenge)
    printed = mesh.run_caller(token)
    report.check(printed == INVALID, f"the seed's caller prints {INVALID}", printed)


def role_not_allowed(mesh: LostPackageMesh, report: Report) -> None:
    """A genuine token of a role that the policy does not name."""
    report.step(
        "A role that may not",
        f"Auth-SVC's policy asks for {ROLE}; this token is genuine, but a CLERK's.",
    )
    answer = verify(mesh.issuer.token(subject="clerk-17", roles=["CLERK"]))
    show_problem(report, answer)
    check_refusal(report, answer, HTTPStatus.FORBIDDEN, "RBAC")


def no_certificate(mesh: LostPackageMesh, report: Report) -> None:
    """A replica's sidecar talks to nobody without an SVID."""
    replica = mesh.replicas[0]
    report.step(
        "Round the mesh",
        f"A caller without a certificate of the mesh tries {replica.name}'s sidecar directly.",
    )
    token = mesh.issuer.token()
    for how, outcome in (
        ("plain HTTP", _attempt(replica.port, token)),
        ("TLS without a certificate", _attempt_tls(replica.port, token)),
    ):
        report.check(not outcome.startswith("200"), f"{how}: {outcome}")


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
