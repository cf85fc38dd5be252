"""Compiles thresholds, outlier detection and health checks into what the snapshot holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hms_addons.config.snapshot import OutlierDetection, Thresholds
from hms_addons.config.snapshot_health import AdaptiveConcurrency, HealthCheck, SuccessRate

if TYPE_CHECKING:
    from hms_addons.config.schema_health import (
        AdaptiveModel,
        HealthCheckModel,
        OutlierDetectionModel,
    )
    from hms_addons.config.schema_routes import ThresholdsModel


def compile_thresholds(model: ThresholdsModel) -> Thresholds:
    """The thresholds of a cluster or a route."""
    given = model.given()
    if model.adaptive is not None:
        given["adaptive"] = _adaptive(model.adaptive)
    return Thresholds(**given)


def _adaptive(model: AdaptiveModel) -> AdaptiveConcurrency:
    given = model.given()
    given.pop("min_rtt", None)
    measured = {} if model.min_rtt is None else model.min_rtt.given()
    for key in ("interval", "requests"):
        if key in measured:
            given[f"min_rtt_{key}"] = measured[key]
    for key in ("jitter", "buffer"):
        if key in measured:
            given[f"min_rtt_{key}"] = measured[key] / 100
    return AdaptiveConcurrency(**given)


def compile_outlier_detection(model: OutlierDetectionModel) -> OutlierDetection:
    """When endpoints are ejected."""
    given = model.given()
    if model.success_rate is not None:
        given["success_rate"] = SuccessRate(**model.success_rate.given())
    if "successful_active_health_check_uneject_host" in given:
        given["health_check_unejects"] = given.pop("successful_active_health_check_uneject_host")
    return OutlierDetection(**given)


def compile_health_check(model: HealthCheckModel | None) -> HealthCheck | None:
    """How endpoints are checked; None: they are not."""
    if model is None:
        return None
    given: dict[str, Any] = model.given()
    tcp = given.pop("tcp", False)
    if tcp:
        given["path"] = None
    if "jitter" in given:
        given["jitter"] /= 100
    if "statuses" in given:
        given["statuses"] = tuple(given["statuses"])
    if "headers" in given:
        given["headers"] = tuple(given["headers"].items())
    return HealthCheck(**given)
