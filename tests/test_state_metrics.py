"""The sidecar's own state as metric families; `addons/test_metrics.py` has the rest of them."""

from __future__ import annotations

from typing import Any

from hms_addons.config.snapshot_interception import ORIGINAL_DESTINATION
from hms_addons.state_metrics import of_clusters, of_shaping


def told(families: Any) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }


def limit(name: str, admitted: int, refused: int) -> dict[str, Any]:
    return {"limit": name, "place": "a", "admitted": admitted, "refused": refused}


def test_limits_faults_and_copies_are_counted() -> None:
    status = {
        "rate_limits": [limit("all", 5, 1), limit("all", 2, 0), limit("keyed", 0, 7)],
        "faults": {"active": 1, "delayed": 3, "aborted": 4, "overflowed": 0},
    }
    clusters: list[dict[str, Any]] = [
        {"name": "auth-svc", "mirrored": None},
        {"name": "auth-svc-v2", "mirrored": {"answered": 9, "dropped": 2}},
    ]
    assert told(of_shaping(status, clusters)) == {
        ("hms_rate_limit_requests_total", "all", "admitted"): 7,
        ("hms_rate_limit_requests_total", "all", "refused"): 1,
        ("hms_rate_limit_requests_total", "keyed", "admitted"): 0,
        ("hms_rate_limit_requests_total", "keyed", "refused"): 7,
        ("hms_faults_injected_total", "delayed"): 3,
        ("hms_faults_injected_total", "aborted"): 4,
        ("hms_mirrored_requests_total", "auth-svc-v2", "answered"): 9,
        ("hms_mirrored_requests_total", "auth-svc-v2", "dropped"): 2,
    }
    assert told(of_shaping({}, clusters[:1])) == {}


def test_endpoints_that_apps_choose_are_no_labels() -> None:
    breakers = {"overflows_total": 0}
    endpoints = [{"address": "10.0.0.7:80", "state": "closed", "connections": {}}]
    cluster: dict[str, Any] = {
        "name": "elsewhere",
        "state": "closed",
        "circuit_breakers": breakers,
        "endpoints": endpoints,
    }
    assert any("10.0.0.7:80" in key for key in told(of_clusters([cluster])))
    cluster["load_balancer"] = ORIGINAL_DESTINATION
    assert not any("10.0.0.7:80" in key for key in told(of_clusters([cluster])))
