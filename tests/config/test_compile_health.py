"""Thresholds, outlier detection and health checks, compiled."""

from __future__ import annotations

from hms_addons.config.snapshot import Cluster, OutlierDetection, Thresholds
from hms_addons.config.snapshot_health import AdaptiveConcurrency, HealthCheck, SuccessRate
from tests.fakes.configs import snapshot_of


def cluster_of(text: str) -> Cluster:
    return snapshot_of(f"clusters: [{{name: a, {text}}}]").clusters["a"]


def test_nothing_is_checked_compared_or_adapted_unless_it_is_asked_for() -> None:
    cluster = cluster_of("endpoints: []")
    assert cluster.health_check is None
    assert cluster.outlier_detection == OutlierDetection()
    assert cluster.outlier_detection.success_rate is None
    assert cluster.thresholds.adaptive is None


def test_a_health_check_in_full() -> None:
    check = cluster_of(
        "health_check: {path: '/up?x=1', interval: 2s, timeout: 100ms, unhealthy: 5, healthy: 4,"
        " jitter: 25, method: POST, host: h, statuses: [204, 300-303], headers: {X-A: b}}"
    ).health_check
    assert check == HealthCheck(
        path="/up?x=1",
        interval=2.0,
        timeout=0.1,
        unhealthy=5,
        healthy=4,
        jitter=0.25,
        method="POST",
        host="h",
        statuses=((204, 204), (300, 303)),
        headers=(("X-A", "b"),),
    )
    assert cluster_of("health_check: {tcp: true}").health_check == HealthCheck(path=None)


def test_outlier_detection_in_full() -> None:
    found = cluster_of(
        "outlier_detection: {interval: 1s, successful_active_health_check_uneject_host: false,"
        " success_rate: {minimum_hosts: 3, request_volume: 10, stdev_factor: 1.5}}"
    ).outlier_detection
    assert found == OutlierDetection(
        interval=1.0,
        health_check_unejects=False,
        success_rate=SuccessRate(minimum_hosts=3, request_volume=10, stdev_factor=1.5),
    )
    compared = cluster_of("outlier_detection: {success_rate: true}").outlier_detection
    assert compared == OutlierDetection(success_rate=SuccessRate())
    assert cluster_of("outlier_detection: {success_rate: false}").outlier_detection == (
        OutlierDetection()
    )


def test_adaptive_limits_of_clusters_and_routes() -> None:
    adaptive = (
        "circuit_breakers: {max_requests: 50, adaptive: {percentile: 50, update_interval: 1s,"
        " min_limit: 2, max_limit: 40, min_rtt: {interval: 30s, requests: 10, jitter: 5, buffer: 100}}}"
    )
    expected = Thresholds(
        max_requests=50,
        adaptive=AdaptiveConcurrency(
            percentile=50,
            update_interval=1.0,
            min_limit=2,
            max_limit=40,
            min_rtt_interval=30.0,
            min_rtt_requests=10,
            min_rtt_jitter=0.05,
            min_rtt_buffer=1.0,
        ),
    )
    snapshot = snapshot_of(
        f"listeners: [{{name: o, port: 1, routes: [{{action: {{cluster: a, {adaptive}}}}}]}}]\n"
        f"clusters: [{{name: a, {adaptive}}}]"
    )
    (route,) = snapshot.listeners[0].routes
    assert snapshot.clusters["a"].thresholds == expected
    assert route.thresholds == expected
    assert cluster_of("circuit_breakers: {adaptive: true}").thresholds.adaptive == (
        AdaptiveConcurrency()
    )
