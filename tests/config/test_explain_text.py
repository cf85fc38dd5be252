from __future__ import annotations

from hms_addons.config.explain import explain
from hms_addons.config.explain_text import to_text
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


def test_text_for_a_person() -> None:
    lines = to_text(explain(SNAPSHOT, "GET http://auth-svc.svc/verify-id")).splitlines()
    assert lines[:8] == [
        "request   GET /verify-id",
        "listener  out (outbound, 127.0.0.1:15001)",
        "service   auth-svc (named by the request)",
        "route     verify, to the service auth-svc",
        (
            "          timeout 1s, retries 2 (on connect-failure, gateway-error, reset, "
            "reset-before-request), at most 100 connections"
        ),
        "cluster   auth-svc, 90% of the requests: 127.0.0.1:9001",
        "          round_robin, mutual TLS with the secret mesh_certs, which nothing here provides",
        "cluster   auth-svc-v2, 10% of the requests: v2.internal:9",
    ]
    assert lines[-1] == "  pay: the request names auth-svc, and this leads to pay"


def test_text_counts_in_words() -> None:
    only = """
        listeners:
          - {name: out, port: 15001, routes: [{match: {prefix: /a}, action: {cluster: one}}]}
        clusters: [{name: one, endpoints: ["127.0.0.1:9001"]}]
        """
    assert "cluster   one, all requests: 127.0.0.1:9001" in to_text(
        explain(snapshot_of(only), "GET /a")
    )
    assert "no route of the listener out matches (1 route)" in to_text(
        explain(snapshot_of(only), "GET /b")
    )
