"""Warnings about how endpoints are watched: what can never take effect."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hms_addons.config.snapshot_health import SuccessRate

if TYPE_CHECKING:
    from hms_addons.config.problems import Path as KeyPath
    from hms_addons.config.problems import Report
    from hms_addons.config.schema import Config


def lint_health(config: Config, report: Report, *, control: bool) -> None:
    """Warn of comparisons among fewer endpoints than they need; with `control` others may join."""
    if control or not report.whole:
        return
    for index, cluster in enumerate(config.clusters):
        outliers = cluster.outlier_detection
        if outliers is None or outliers.success_rate is None or cluster.dns:
            continue
        needed = outliers.success_rate.minimum_hosts or SuccessRate().minimum_hosts
        path: KeyPath = ("clusters", index, "outlier_detection", "success_rate")
        known = report.known("clusters", index, "endpoints") and report.known(*path)
        if known and len(cluster.endpoints) < needed:
            message = (
                f"compares nobody: it needs {needed} endpoints (minimum_hosts), and there are "
                f"{len(cluster.endpoints)}"
            )
            report.warning(path, message)
