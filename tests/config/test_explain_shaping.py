from __future__ import annotations

import json
from typing import Any

from hms_addons.config.explain import explain
from hms_addons.config.explain_text import to_text
from tests.fakes.configs import snapshot_of

TEXT = """
    listeners:
      - name: out
        port: 15001
        rate_limit: {requests: 5, per: 1s}
        routes:
          - {match: {prefix: /r}, action: {redirect: {host: example.org, prefix: /q}}}
          - {match: {prefix: /same}, action: {redirect: {status: 308}}}
          - {match: {prefix: /d}, action: {direct_response: {status: 404, body: nope}}}
          - match: {prefix: /w}
            action:
              cluster: c
              rewrite: {prefix: /v, host: "x.org:80"}
              fault: {delay: 10ms, abort: 503, percent: 10, when: {header: {X-F: "1"}}}
          - match: {prefix: /h}
            action:
              clusters: [{name: c, response_headers: {set: {B: c}}}]
              response_headers: {set: {X: b}, add: {Y: [a, b]}, remove: [Z]}
              rate_limit: {requests: 10, per: 1h, by: "header:X-Key"}
          - {match: {prefix: /plain}, action: {cluster: c}}
    clusters: [{name: c, endpoints: ["127.0.0.1:9"]}]
    rbac: {policies: [{name: closed, action: DENY, paths: [/v/secret]}]}
    """


def explained(request: str, text: str = TEXT) -> tuple[dict[str, Any], str]:
    found = explain(snapshot_of(text), request)
    assert json.loads(json.dumps(found)) == found
    return found, to_text(found)


def test_a_redirect_is_shown_instead_of_a_cluster() -> None:
    found, text = explained("GET /r/x")
    assert found["clusters"] == []
    assert "answered here: 302 redirect, host example.org, path /r becomes /q" in text
    assert ", to the service" not in text
    assert "308 redirect, the same URL" in explained("GET /same")[1]


def test_a_direct_response_is_shown() -> None:
    assert "answered here: 404, 4 bytes" in explained("GET /d")[1]


def test_naming_a_service_does_not_hide_a_route_that_answers() -> None:
    assert "answered here: 404" in explained("GET http://c.svc/d")[1]


def test_rewrite_limit_and_fault_are_shown() -> None:
    _, text = explained("GET /w/x")
    assert "sent as /v/x, Host x.org:80" in text
    assert "limit 5-per-1s-by-route (listener out): 5 per 1s, 5 at once, by route" in text
    assert "fault: delay 0.01s for 10%, abort with 503 for 10% of those with x-f = '1'" in text


def test_header_rules_are_shown_in_their_order() -> None:
    _, text = explained("GET /h")
    assert "headers of the answer, c: set B: c" in text
    assert "headers of the answer: remove Z; set X: b; add Y: a; add Y: b" in text
    assert "by header:x-key" in text


def test_policies_are_shown_for_the_path_as_it_is_sent() -> None:
    found, _ = explained("GET /w/secret")
    assert found["policies"]["without_token"]["allowed"] is False
    found, _ = explained("GET /plain/secret")
    assert found["policies"]["without_token"]["allowed"] is True


def test_nothing_is_shown_where_nothing_is_shaped() -> None:
    found, _ = explained("GET /plain", TEXT.replace("rate_limit: {requests: 5, per: 1s}", ""))
    assert found["route"]["shaping"] is None
