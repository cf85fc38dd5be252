from __future__ import annotations

import pytest

from hms_addons.config.schema_forwarding import cluster_references, quantile
from tests.fakes.configs import errors_of

CONFIG = """\
listeners: [{{name: out, port: 1, routes: [{{match: {{}}, action: {{cluster: a, {action}}}}}]}}]
clusters: [{{name: a}}, {{name: a-dr, service: a}}]
"""
AT = "listeners[0].routes[0].action"


@pytest.mark.parametrize(
    "action",
    [
        "fallback: {cluster: a-dr}",
        "fallback: {cluster: a-dr, timeout: 1s, on: [timeout, 5xx]}",
        "fallback: [{stale: 60s}, {response: {}}]",
        "fallback: {response: {status: 204, headers: {Retry-After: '5'}}}",
        "fallback: {plugin: mine}",
        "mirror: {cluster: a-dr}",
        "mirror: [{cluster: a-dr, percent: 0.5, timeout: 1s}]",
        "hedge: {}",
        "hedge: {after: p99.9}",
        "hedge: {after: 50ms, max: 3}",
    ],
)
def test_these_are_taken(action: str) -> None:
    assert errors_of(CONFIG.format(action=action)) == []


@pytest.mark.parametrize(
    ("action", "message"),
    [
        ("fallback: {}", ".fallback[0]: give exactly one of cluster, response, stale and plugin"),
        (
            "fallback: {stale: 1s, response: {}}",
            (
                ".fallback[0]: give exactly one of cluster, response, stale and plugin; for several "
                "in order write a list"
            ),
        ),
        ("fallback: []", ".fallback: must not be empty"),
        ("fallback: {stale: 0}", ".fallback[0].stale: must be more than 0"),
        (
            "fallback: {stale: 1s, timeout: 1s}",
            ".fallback[0].timeout: timeout counts only with cluster",
        ),
        (
            "fallback: {response: {status: 204, body: x}}",
            ".fallback[0].response.body: an answer with 204 has no body",
        ),
        (
            "fallback: {response: {headers: {Content-Length: '5'}}}",
            ".fallback[0].response.headers.Content-Length: Content-Length is written by the mesh itself",
        ),
        (
            'fallback: {response: {headers: {X-A: "a\\r\\nb"}}}',
            (
                ".fallback[0].response.headers.X-A: a header field's value is printable ASCII, "
                "without line breaks"
            ),
        ),
        ("mirror: {cluster: a-dr, percent: 0}", ".mirror[0].percent: must be more than 0, not 0"),
        (
            "mirror: {cluster: a-dr, percent: 101}",
            ".mirror[0].percent: must be at most 100, not 101",
        ),
        (
            "hedge: {after: p5}",
            ".hedge.after: expected a quantile such as p95 or p99.9, not 'p5'",
        ),
        ("hedge: {max: 0}", ".hedge.max: must be at least 1, not 0"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(action: str, message: str) -> None:
    (error,) = errors_of(CONFIG.format(action=action))
    assert error.partition(": ")[2] == AT + message


def test_a_body_that_is_too_long_is_refused() -> None:
    action = f"fallback: {{response: {{body: {'x' * 65537}}}}}"
    (error,) = errors_of(CONFIG.format(action=action))
    assert error.endswith("the body has 65537 bytes, more than 65536")


def test_a_quantile_is_a_share() -> None:
    assert quantile("p95") == 0.95
    assert quantile("p99.9") == pytest.approx(0.999)


def test_the_clusters_that_are_named_and_where() -> None:
    action = {"fallback": [{"stale": 1}, {"cluster": "x"}], "mirror": {"cluster": "y"}}
    assert cluster_references(action) == [
        (("fallback", 1, "cluster"), "x"),
        (("mirror", "cluster"), "y"),
    ]
    assert cluster_references({"fallback": 3, "mirror": [None]}) == []
