"""Health checks, outlier detection and adaptive limits as users write them, and what is refused."""

from __future__ import annotations

import pytest

from tests.fakes.configs import errors_of


def errors(cluster: str) -> list[str]:
    found = errors_of(f"clusters: [{{name: a, {cluster}}}]")
    return [error.partition(" clusters[0].")[2] for error in found]


@pytest.mark.parametrize(
    "text",
    [
        "health_check: {path: /health}",
        "health_check: {path: '/health?deep=1', statuses: [204, 200-202, '401'], headers: {X-A: b}}",
        "health_check: {tcp: true, interval: 1s, timeout: 5s, jitter: 0, unhealthy: 1, healthy: 1}",
        "health_check: {path: /, method: HEAD, host: 'a.svc', statuses: 200-399}",
        "outlier_detection: {success_rate: true}",
        "outlier_detection: {success_rate: false}",
        "outlier_detection: {success_rate: {minimum_hosts: 2, stdev_factor: 2}}",
        "outlier_detection: true",
        "circuit_breakers: {adaptive: true}",
        "circuit_breakers: {adaptive: {min_limit: 1, max_limit: 1, min_rtt: {interval: 1m}}}",
        "circuit_breakers: {max_requests: 2, adaptive: {min_limit: 2}}",
    ],
)
def test_these_are_taken(text: str) -> None:
    assert errors(text) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("health_check: {}", "health_check: needs `path`, as /health, or tcp: true"),
        ("health_check: {tcp: false}", "health_check: needs `path`, as /health, or tcp: true"),
        (
            "health_check: {path: /x, tcp: true}",
            "health_check.path: path belongs to an HTTP check; leave it out, or tcp: true",
        ),
        (
            "health_check: {tcp: true, statuses: [200]}",
            "health_check.statuses: statuses belongs to an HTTP check; leave it out, or tcp: true",
        ),
        (
            "health_check: {path: health}",
            (
                "health_check.path: expected a path such as /health or /health?deep=1 in visible "
                "ASCII, not 'health' (did you mean /health?)"
            ),
        ),
        (
            'health_check: {path: "/a\\r\\nX: y"}',
            (
                "health_check.path: expected a path such as /health or /health?deep=1 in visible "
                "ASCII, not '/a\\r\\nX: y'"
            ),
        ),
        (
            "health_check: {path: /x, statuses: [2xx]}",
            "health_check.statuses: expected a status or a range, as 204 or 200-299, not '2xx'",
        ),
        (
            "health_check: {path: /x, statuses: 299-200}",
            ("health_check.statuses: the range 299-200 is empty (did you mean 200-299?)"),
        ),
        ("health_check: {path: /x, statuses: []}", "health_check.statuses: must not be empty"),
        (
            "health_check: {path: /x, headers: {host: a}}",
            "health_check.headers.host: host is set by the check itself; use `host`",
        ),
        (
            'health_check: {path: /x, headers: {X-A: "b\\nc"}}',
            "health_check.headers.X-A: 'b\\nc' cannot be the value of a header field",
        ),
        (
            "health_check: {path: /x, method: CONNECT}",
            "health_check.method: CONNECT cannot be a check; use tcp: true to see whether one can connect",
        ),
        ("health_check: {path: /x, interval: 0}", "health_check.interval: must be more than 0"),
        (
            "health_check: {path: /x, unhealthy: 0}",
            "health_check.unhealthy: must be at least 1, not 0",
        ),
        (
            "health_check: {path: /x, jitter: 101}",
            "health_check.jitter: must be at most 100, not 101",
        ),
        (
            "outlier_detection: {success_rate: 5}",
            "outlier_detection.success_rate: expected a mapping, or false to switch it off, not 5",
        ),
        (
            "outlier_detection: {success_rate: {minimum_hosts: 1}}",
            "outlier_detection.success_rate.minimum_hosts: must be at least 2, not 1",
        ),
        (
            "circuit_breakers: {adaptive: {min_limit: 20, max_limit: 10}}",
            "circuit_breakers.adaptive.min_limit: min_limit 20 is more than max_limit 10",
        ),
        (
            "circuit_breakers: {adaptive: {max_limit: 2}}",
            "circuit_breakers.adaptive.max_limit: min_limit 3 is more than max_limit 2",
        ),
        (
            "circuit_breakers: {max_requests: 2, adaptive: true}",
            "circuit_breakers.max_requests: max_requests 2 is less than adaptive's min_limit 3",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(text: str, message: str) -> None:
    assert errors(text) == [message]
