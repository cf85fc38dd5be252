from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hms_addons.config.explain import explain
from hms_addons.config.explain_text import to_text
from hms_addons.errors import ConfigError
from tests.fakes.configs import snapshot_of

SNAPSHOT = snapshot_of(
    """\
    trust_domain: mpsa.mil
    service: claims-svc
    listeners:
      - name: out
        port: 15001
        routes:
          - name: verify
            match: {prefix: /verify-id, methods: [GET]}
            action: {cluster: auth-svc, timeout: 1s, retries: 2, circuit_breakers: {max_connections: 100}}
          - name: pay
            match: {prefix: /pay, headers: {x-channel: portal}}
            action: {cluster: pay}
      - {name: peers, port: 15006, direction: inbound, tls: strict, app: "127.0.0.1:8080"}
    clusters:
      - {name: auth-svc, tls_context: {sds: mesh_certs}, endpoints: ["127.0.0.1:9001"]}
      - {name: auth-svc-v2, trafficPolicy: weight=10, dns: "v2.internal:9"}
      - {name: pay}
    governance: {url: "http://gov:9100"}
    rbac:
      providers: [{name: p, hs256_secret_env: S}]
      policies:
        - {name: managers, action: ALLOW, services: [pay], paths: [/pay*], roles: [MANAGER]}
        - {name: no-deletes, action: DENY, methods: [DELETE]}
    """,
    control=True,
)


def ask(line: str, **headers: str) -> dict[str, Any]:
    found = explain(SNAPSHOT, line, {k.replace("_", "-"): v for k, v in headers.items()})
    assert json.loads(json.dumps(found)) == found
    assert to_text(found)
    return found


def passed_over(found: dict[str, Any]) -> dict[str, str]:
    return {item["route"]: item["reason"] for item in found["passed_over"]}


@pytest.mark.parametrize(
    "line",
    [
        "GET http://auth-svc.svc/verify-id",
        "GET http://auth-svc.svc/verify-id HTTP/1.1",
        "http://auth-svc.svc/verify-id",
        "/verify-id?host=auth-svc.svc",
        "GET http://localhost:15001/x/../verify-id?host=AUTH-svc.svc",
    ],
)
def test_a_request_that_names_its_service(line: str) -> None:
    found = ask(line)
    assert found["failure"] is None
    assert found["request"]["service"] == "auth-svc"
    assert found["request"]["path"] == "/verify-id"
    assert found["request"]["query"] == ""
    assert found["listener"]["name"] == "out"
    route = found["route"]
    assert (route["name"], route["timeout_s"], route["retries"]["attempts"]) == ("verify", 1.0, 2)
    assert route["thresholds"]["max_connections"] == 100
    assert [(c["name"], c["share"]) for c in found["clusters"]] == [
        ("auth-svc", 0.9),
        ("auth-svc-v2", 0.1),
    ]
    assert found["clusters"][0]["tls"] == {
        "secret": "mesh_certs",
        "provided": False,
        "peers": ["spiffe://mpsa.mil/svc/auth-svc"],
    }
    assert passed_over(found) == {
        "default:auth-svc": "an earlier route, verify, had matched",
        "pay": "the request names auth-svc, and this leads to pay",
    }


def test_no_route() -> None:
    found = ask("POST /verify-id", x_channel="app")
    assert (found["failure"]["status"], found["failure"]["flag"]) == (404, "NR")
    assert found["route"] is None
    assert passed_over(found) == {
        "verify": "the method POST is not GET",
        "pay": "the path /verify-id is not /pay or below it",
    }
    assert passed_over(ask("/pay", X_Channel="app"))["pay"] == (
        "needs the header x-channel = 'portal'; it is 'app'"
    )


def test_an_unknown_service() -> None:
    found = ask("GET http://auth-scv.svc/verify-id")
    assert found["failure"]["title"] == "Unknown service"
    assert "did you mean auth-svc.svc?" in found["failure"]["detail"]


def test_a_bad_target() -> None:
    found = ask("GET /a%2fb")
    assert (found["failure"]["status"], found["failure"]["flag"]) == (400, "DPE")
    assert "%2f" in found["failure"]["detail"]
    assert ask("GET /a b")["failure"]["status"] == 400
    assert ask("GET")["failure"]["status"] == 400
    assert ask("GET /café")["failure"]["status"] == 400


def test_two_services_in_the_query() -> None:
    found = ask("/verify-id?host=auth-svc.svc&%68ost=pay.svc")
    assert found["failure"]["status"] == 400
    assert "two services, 'auth-svc' and 'pay'" in found["failure"]["detail"]


def test_a_port_chooses_the_listener() -> None:
    found = ask("GET http://auth:15006/anything")
    assert found["listener"]["name"] == "peers"
    assert found["request"]["service"] is None
    assert (found["route"]["name"], found["route"]["timeout_s"]) == ("default:app", None)
    assert found["clusters"][0]["endpoints"] == ["127.0.0.1:8080"]
    assert ask("GET /", host="auth:15006")["listener"]["name"] == "peers"


def test_policies() -> None:
    policies = ask("GET http://pay.svc/pay", x_channel="portal")["policies"]
    assert policies["without_token"]["allowed"] is False
    assert policies["applying"] == [
        {
            "name": "managers",
            "action": "ALLOW",
            "mode": "enforce",
            "effect": "allows callers with a role of MANAGER",
        }
    ]
    assert [item["name"] for item in policies["not_applying"]] == ["no-deletes"]
    delete = ask("DELETE http://auth-svc.svc/x")["policies"]
    assert delete["applying"][0]["effect"] == "refuses everyone"
    assert delete["without_token"]["allowed"] is False
    assert ask("GET http://auth-svc.svc/")["policies"]["without_token"]["allowed"] is True


def test_headers() -> None:
    headers = ask("GET http://auth-svc.svc/")["headers"]
    assert "X-Caller-Role" in headers["removed"]
    assert "X-Policy-Version: from http://gov:9100" in headers["set"]


def test_without_listeners_there_is_nothing_to_explain() -> None:
    with pytest.raises(ConfigError, match="no listeners"):
        explain(snapshot_of(""), "GET /")


@given(
    st.text(max_size=30) | st.from_regex(r"GET (http://[a-z.]{1,9})?/[ -~]{0,20}", fullmatch=True)
)
def test_any_request_line_is_explained(line: str) -> None:
    found = explain(SNAPSHOT, line, {"x-é": "ü"})
    assert (found["failure"] is None) is (found["route"] is not None)
    assert to_text(found)


@pytest.mark.parametrize("name", ["X-Caller-Role", "x_caller_role"])
def test_a_forged_header_decides_no_route(name: str) -> None:
    snapshot = snapshot_of(
        """
        listeners:
          - name: out
            port: 15001
            routes:
              - name: generals
                match: {prefix: /, headers: {x-caller-role: GENERAL}}
                action: {cluster: pay}
        clusters: [{name: pay, endpoints: ["127.0.0.1:9001"]}]
        """
    )
    found = explain(snapshot, "GET http://localhost/x", {name: "GENERAL"})
    assert found["route"] is None
    assert "x-caller-role" in passed_over(found)["generals"]


@pytest.mark.parametrize("method", ["get", "G=T", "FOO", "DESCRIBE", "\r\nGET", "", "GÉT"])
def test_a_method_that_the_parser_does_not_know_is_refused_as_on_the_wire(method: str) -> None:
    found = ask(f"{method} http://auth-svc.svc/verify-id")
    assert found["route"] is None
    assert found["failure"]["status"] == 400
    assert found["failure"]["flag"] == "DPE"
    assert found["failure"]["detail"] == "not well-formed HTTP/1.1: Invalid method encountered"
    assert found["listener"]["name"] == "out"


@pytest.mark.parametrize("method", ["GET", "M-SEARCH", "PROPFIND", "QUERY", "OPTIONS"])
def test_one_that_it_knows_is_followed(method: str) -> None:
    assert ask(f"{method} http://auth-svc.svc/verify-id")["route"] is not None


@pytest.mark.parametrize(
    "name", ["Host", "Content-Length", "Transfer-Encoding", "Expect", "Authorization"]
)
def test_what_may_be_sent_once_is_refused_twice(name: str) -> None:
    twice = [(name, "1"), ("X-A", "b"), (name.lower(), "1")]
    failure = explain(SNAPSHOT, "GET http://auth-svc.svc/verify-id", twice)["failure"]
    assert (failure["status"], failure["flag"]) == (400, "DPE")
    assert failure["detail"] == f"{name} was sent more than once"


def test_what_else_is_there_twice_is_one_list() -> None:
    def route(*values: str) -> Any:
        pairs = [("X-Channel", value) for value in values]
        return explain(SNAPSHOT, "GET http://pay.svc/pay", pairs)["route"]["name"]

    assert route("portal") == "pay"
    assert route("portal", "portal") != "pay"


WHEN = snapshot_of(
    """\
    listeners:
      - name: out
        port: 15001
        routes: [{match: {prefix: /}, action: {cluster: pay}}]
    clusters: [{name: pay, endpoints: ["127.0.0.1:1"]}]
    rbac:
      providers: [{name: p, hs256_secret_env: S}]
      policies:
        - {name: no-beta, action: DENY, when: [{header: X-Env, values: [beta]}]}
        - {name: fraud, action: ALLOW, when: [{claim: org.unit, values: [fraud]}], mode: audit}
    """,
)


def test_conditions_on_headers_are_judged_and_those_on_claims_are_told() -> None:
    refused = explain(WHEN, "GET http://pay.svc/", [("X-Env", "prod"), ("x-env", "beta")])
    assert not refused["policies"]["without_token"]["allowed"]
    fine = explain(WHEN, "GET http://pay.svc/")
    assert fine["policies"]["without_token"]["allowed"]
    (fraud,) = fine["policies"]["applying"]
    assert fraud["mode"] == "audit"
    assert "the claim org.unit to be fraud" in fraud["effect"]
    (beta,) = fine["policies"]["not_applying"]
    assert beta["reason"] == "requires the header x-env to be beta"


def test_what_an_audited_policy_would_deny_is_told() -> None:
    found = explain(WHEN, "GET http://pay.svc/")
    assert "policy 'fraud' requires the claim" in found["policies"]["without_token"]["would_deny"]
    assert "would deny (audit): no ALLOW policy matches" in to_text(found)


def test_the_balancer_and_what_it_chooses_by_are_told() -> None:
    snapshot = snapshot_of(
        """\
        listeners:
          - name: out
            port: 1
            routes:
              - {match: {prefix: /by-query}, action: {cluster: a, hash_on: {query: user}}}
              - {match: {prefix: /}, action: {cluster: a}}
        clusters:
          - {name: a, endpoints: ['h:1'], hash_on: {cookie: s, ttl: 1h}}
          - {name: b, endpoints: ['h:1']}
        """
    )
    found = explain(snapshot, "GET /")
    assert found["clusters"][0]["hash_on"] == "cookie s, made where it is missing"
    assert "ring_hash by cookie s, made where it is missing, plain text" in to_text(found)
    found = explain(snapshot, "GET /by-query")
    assert found["route"]["hash_on"] == found["clusters"][0]["hash_on"] == "query user"
    assert explain(snapshot, "GET http://b.svc/")["clusters"][0]["hash_on"] is None
