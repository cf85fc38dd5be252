"""Over every lane: conditions, audited policies, and the audit log; then what a stop leaves of it."""

from __future__ import annotations

import json
import os
import stat
from typing import TYPE_CHECKING, Any

from tests.integration.basics import free_port, until
from tests.integration.clients import fetch
from tests.integration.processes import hms_sidecar
from tests.integration.servers import POLICY_VERSION
from tests.integration.test_lanes import bearer, check_problem

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.conftest import ConfigFile, Lane
    from tests.integration.servers import Upstream


def lines_of(log: Path, **wanted: str) -> list[dict[str, Any]]:
    """The log's lines whose values are as wanted."""
    found = [json.loads(line) for line in log.read_text().splitlines()]
    return [line for line in found if all(line[key] == value for key, value in wanted.items())]


def line_of(lane: Lane, path: str, decision: str) -> dict[str, Any]:
    """The one line about `path`, once it is written."""
    until(lambda: lines_of(lane.audit_log, path=path, decision=decision), f"a line about {path}")
    (line,) = lines_of(lane.audit_log, path=path)
    return line


# -- conditions ------------------------------------------------------------------------------------


def test_a_condition_on_a_header_sees_every_line_of_it(lane: Lane, app: Upstream) -> None:
    assert lane.fetch("GET", "/app/env", "X-Env: prod").status == 200
    check_problem(lane.fetch("GET", "/app/env", "X-Env: beta"), 403, "RBAC")
    check_problem(lane.fetch("GET", "/app/env", "X-Env: beta", "x-env: prod"), 403, "RBAC")
    check_problem(lane.fetch("GET", "/app/env", "X_Env: beta"), 403, "RBAC")
    assert len([request for request in app.requests if request.target == "/app/env"]) == 1
    app.requests.clear()


def test_a_condition_on_a_claim_is_about_the_verified_token(lane: Lane) -> None:
    assert lane.fetch("GET", "/app/strong", bearer(acr={"level": 3})).status == 200
    problem = check_problem(lane.fetch("GET", "/app/strong", bearer(acr={"level": 2})), 403, "RBAC")
    assert "policy 'strong' denies" in str(problem["detail"])
    check_problem(lane.fetch("GET", "/app/strong"), 403, "RBAC")


# -- governance ------------------------------------------------------------------------------------


def test_no_caller_sets_a_header_that_is_governances(lane: Lane, app: Upstream) -> None:
    forged = ("X-Zone: forged", "x-zone: forged", "X_Zone: forged", "X-Policy-Version: 0")
    for port in (lane.port, lane.inbound):
        assert fetch(port, "GET", "/app/zone", *forged).status == 200
    for request in app.requests:
        if request.target == "/app/zone":
            named = [name.lower().replace("_", "-") for name, _ in request.fields]
            assert "x-zone" not in named
            assert request.header("x-policy-version") == POLICY_VERSION
    app.requests.clear()


# -- the audit log ---------------------------------------------------------------------------------


def test_an_allowed_request_is_in_the_audit_log_without_its_secrets(lane: Lane) -> None:
    token = bearer(roles=["PROGRAM_MANAGER"], sub="sgt-audit")
    answer = lane.fetch("GET", "/guarded/audit-1?ssn=secret-ssn", token, "X-Request-ID: audit-1")
    assert answer.status == 200
    line = line_of(lane, "/guarded/audit-1", "allowed")
    assert (line["subject"], line["roles"]) == ("sgt-audit", ["PROGRAM_MANAGER"])
    assert (line["policy"], line["mode"], line["request_id"]) == ("managers", "enforce", "audit-1")
    assert (line["method"], line["service"]) == ("GET", "guarded")
    assert line["caller"] == "spiffe://mpsa.mil/svc/claims-svc"
    assert line["peer"].startswith("127.0.0.1:")
    text = lane.audit_log.read_text()
    assert "secret-ssn" not in text  # no hexadecimal one: it might be within an ID
    assert token.rpartition(" ")[2] not in text
    assert stat.S_IMODE(lane.audit_log.stat().st_mode) == 0o600


def test_a_denied_request_is_in_the_audit_log_with_its_policy(lane: Lane) -> None:
    check_problem(lane.fetch("DELETE", "/guarded/audit-2", bearer()), 403, "RBAC")
    line = line_of(lane, "/guarded/audit-2", "denied")
    assert (line["policy"], line["status"], line["flag"]) == ("no-delete", 403, "RBAC")
    check_problem(lane.fetch("GET", "/guarded/audit-3", "Authorization: Bearer x.y.z"), 401, "JWT")
    line = line_of(lane, "/guarded/audit-3", "denied")
    assert (line["policy"], line["subject"], line["flag"]) == (None, None, "JWT")


def test_what_an_audited_policy_would_deny_passes_and_is_logged(lane: Lane) -> None:
    assert lane.fetch("GET", "/app/trial").status == 200
    line = line_of(lane, "/app/trial", "allowed")
    assert (line["mode"], line["would_deny"], line["policy"]) == ("audit", True, "trial")


def test_a_renamed_audit_log_is_opened_anew(lane: Lane) -> None:
    old = lane.audit_log.with_suffix(".1")
    os.replace(lane.audit_log, old)  # noqa: PTH105 - as logrotate does
    assert lane.fetch("GET", "/app/rotated").status == 200
    until(lane.audit_log.exists, "a new file")
    line_of(lane, "/app/rotated", "allowed")
    assert not lines_of(old, path="/app/rotated")


def test_nothing_of_the_audit_log_is_lost_on_sigterm(
    config: ConfigFile, app: Upstream, tmp_path: Path
) -> None:
    port = free_port()
    config.write(f"""
        listeners:
          - {{name: out, port: {port}, routes: [{{match: {{prefix: /}}, action: {{cluster: app}}}}]}}
        clusters: [{{name: app, endpoints: ["127.0.0.1:{app.port}"]}}]
        rbac: {{audit_log: {{path: audit.log}}}}
        """)
    with hms_sidecar("--config", config.path) as sidecar:
        sidecar.wait_listening(port)
        for number in range(20):
            assert fetch(port, "GET", f"/{number}").status == 200
        assert sidecar.stop() == 0
    found = [line["path"] for line in lines_of(tmp_path / "audit.log")]
    assert found == [f"/{number}" for number in range(20)]


def test_a_log_that_cannot_be_written_is_refused_with_its_place(config: ConfigFile) -> None:
    config.write("""
        listeners: [{name: out, port: 1}]
        rbac:
          audit_log: {path: /nope/audit.log}
        """)
    with hms_sidecar("--config", config.path) as sidecar:
        assert sidecar.wait() == 1
    assert "mesh.yaml:4:" in sidecar.output
    assert "rbac.audit_log.path: /nope/audit.log cannot be written: No such file" in sidecar.output
