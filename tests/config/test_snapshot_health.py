"""The defaults of what watches over endpoints: those that SEMANTICS and Envoy name."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from hms_addons.config.snapshot_health import AdaptiveConcurrency, HealthCheck, SuccessRate


def test_the_defaults_are_those_that_are_promised() -> None:
    check = HealthCheck()
    assert (check.path, check.method, check.statuses) == ("/health", "GET", ((200, 299),))
    assert (check.interval, check.timeout, check.unhealthy, check.healthy) == (5.0, 1.0, 3, 2)
    rate = SuccessRate()
    assert (rate.minimum_hosts, rate.request_volume, rate.stdev_factor) == (5, 100, 1.9)
    adaptive = AdaptiveConcurrency()
    assert (adaptive.percentile, adaptive.min_limit, adaptive.max_limit) == (90.0, 3, 1000)
    assert (adaptive.min_rtt_requests, adaptive.min_rtt_buffer) == (50, 0.25)


def test_they_are_frozen_and_compared_by_value() -> None:
    assert HealthCheck(path="/a") == HealthCheck(path="/a")
    with pytest.raises(FrozenInstanceError):
        HealthCheck().path = "/b"  # type: ignore[misc]
