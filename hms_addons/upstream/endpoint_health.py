"""What an endpoint's health checks say: the counts in a row, and the verdict they lead to."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hms_addons.config.snapshot_health import HealthCheck


class HealthState(StrEnum):
    """What is known of an endpoint by its checks. Apart from its breaker, which requests move."""

    UNCHECKED = "unchecked"
    """It has just come; its first check decides alone."""
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


class EndpointHealth:
    """The checks of one endpoint.

    Attributes:
        state: the verdict.
        cause: in words, why it is not healthy.
        passes, failures: in a row, up to now; one of them is 0.
        checks_total, failed_total: since it was first checked.
    """

    __slots__ = ("cause", "checks_total", "failed_total", "failures", "passes", "state")

    def __init__(self) -> None:
        self.state = HealthState.UNCHECKED
        self.cause: str | None = "not yet checked"
        self.passes = 0
        self.failures = 0
        self.checks_total = 0
        self.failed_total = 0

    def __repr__(self) -> str:
        return f"<EndpointHealth {self.state.value} passes={self.passes} failures={self.failures}>"

    def passed(self, settings: HealthCheck) -> bool:
        """A check has passed.

        Returns:
            Whether the verdict is another now.
        """
        self.checks_total += 1
        self.failures = 0
        self.passes += 1
        if self.state is HealthState.HEALTHY or (
            self.state is HealthState.UNHEALTHY and self.passes < settings.healthy
        ):
            return False
        self.state = HealthState.HEALTHY
        self.cause = None
        return True

    def failed(self, settings: HealthCheck, why: str) -> bool:
        """A check has failed; `why` says how, and does not name the endpoint.

        Returns:
            Whether the verdict is another now.
        """
        self.checks_total += 1
        self.failed_total += 1
        self.passes = 0
        self.failures += 1
        if self.state is HealthState.HEALTHY and self.failures < settings.unhealthy:
            return False
        changed = self.state is not HealthState.UNHEALTHY
        self.state = HealthState.UNHEALTHY
        checks = "health check" if self.failures == 1 else "health checks in a row"
        self.cause = f"{self.failures} {checks} failed, the last: {why}"
        return changed

    def describe(self) -> dict[str, Any]:
        """Its state as JSON-ready types, for `/clusters`."""
        return {
            "health": self.state.value,
            "health_cause": self.cause,
            "health_checks_total": self.checks_total,
            "health_check_failures_total": self.failed_total,
        }
