from __future__ import annotations

import json

from hms_addons.config.explain import explain
from hms_addons.config.explain_text import to_text
from tests.fakes.configs import snapshot_of

SNAPSHOT = snapshot_of(
    """\
    listeners:
      - name: out
        port: 15001
        routes:
          - match: {prefix: /verify-id}
            action:
              cluster: auth-svc
              fallback:
                - {cluster: auth-svc-dr, timeout: 1s}
                - {stale: 60s, on: [timeout]}
                - {response: {status: 200}, on: [5xx]}
                - {plugin: mine, on: [overflow]}
              mirror: {cluster: auth-svc-v2, percent: 10}
              hedge: {after: p99}
          - {match: {prefix: /plain}, action: {cluster: auth-svc-dr, hedge: {after: 50ms}}}
    clusters:
      - {name: auth-svc, failover: auth-svc-dr}
      - {name: auth-svc-dr, service: auth-svc}
      - {name: auth-svc-v2}
    """
)


def test_all_of_it_is_told() -> None:
    found = explain(SNAPSHOT, "GET /verify-id")
    json.dumps(found)
    route = found["route"]
    assert [step["kind"] for step in route["fallback"]] == [
        "cluster",
        "stale",
        "response",
        "plugin",
    ]
    assert route["mirrors"] == [{"cluster": "auth-svc-v2", "percent": 10.0, "timeout_s": 15.0}]
    assert route["hedge"] == {"after_s": None, "quantile": 0.99, "max": 1}
    assert found["clusters"][0]["failover"] == ["auth-svc-dr"]
    lines = to_text(found).splitlines()
    for line in (
        "fallback on UC, UF, UH, UO, UPE, UT, 502, 503, 504: the cluster auth-svc-dr",
        "fallback on UT: the last good answer, up to 60s old",
        "fallback on 500-599: a fixed answer, 200",
        "fallback on UO: the plugin mine",
        "mirror 10% to auth-svc-v2",
        "hedge after p99 of its latency, at most 1 further",
        "failover to auth-svc-dr, when none of these is usable",
    ):
        assert f"          {line}" in lines


def test_a_route_without_is_told_without() -> None:
    found = explain(SNAPSHOT, "GET /plain")
    assert (found["route"]["fallback"], found["route"]["mirrors"]) == ([], [])
    text = to_text(found)
    assert "fallback" not in text
    assert "failover" not in text
    assert "hedge after 0.05s" in text
