"""What `hms explain` shows of checks, comparisons and limits."""

from __future__ import annotations

import json

from hms_addons.config.explain_health import health_lines, health_of, thresholds_of
from tests.fakes.configs import snapshot_of


def shown(text: str) -> tuple[dict[str, object], list[str]]:
    cluster = snapshot_of(f"clusters: [{{name: a, {text}}}]").clusters["a"]
    found = {**health_of(cluster), "thresholds": thresholds_of(cluster.thresholds)}
    return json.loads(json.dumps(found)), health_lines(found)


def test_what_is_not_configured_takes_no_line() -> None:
    found, lines = shown("endpoints: []")
    assert lines == []
    assert (found["outlier_detection"], found["success_rate"]) == (True, False)
    assert found["health_check"] is None
    assert thresholds_of(None) is None


def test_what_is_configured_is_told_in_one_line() -> None:
    found, lines = shown(
        "health_check: {path: /health}, outlier_detection: {success_rate: true},"
        " circuit_breakers: {adaptive: {max_limit: 90}}"
    )
    assert lines == [
        (
            "          checked with GET /health every 5s, success rates compared, 3 to 90 requests "
            "at once, by latency"
        )
    ]
    assert found["health_check"] == {
        "request": "GET /health",
        "statuses": [[200, 299]],
        "interval_s": 5.0,
        "timeout_s": 1.0,
        "unhealthy": 3,
        "healthy": 2,
    }


def test_a_tcp_check() -> None:
    _, lines = shown("health_check: {tcp: true, interval: 500ms}")
    assert lines == ["          checked with a connection every 0.5s"]
