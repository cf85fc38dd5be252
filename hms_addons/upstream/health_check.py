"""Active health checks: every endpoint asked at intervals, off the request path.

An endpoint that its checks call unhealthy is no candidate, whatever its breaker says; requests move the
breaker, checks the health, and both are shown. The first check of an endpoint is made at once and decides
alone. Until it has, the endpoint is used only while no other of its cluster is known to be healthy: one that
joins does not get requests before it is up, and a cluster that has just been configured does not refuse them.

Thousands of endpoints cost a timer each, and never more than `MOST_AT_ONCE` connections: what is due waits
its turn. Clusters say who their members are (`follow`); whoever leaves takes timer and check along.
"""

from __future__ import annotations

import logging
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final

from hms_addons.upstream.endpoint_health import EndpointHealth, HealthState

if TYPE_CHECKING:
    import asyncio
    import random
    from collections.abc import Callable, Coroutine
    from typing import Any

    from hms_addons.clock import Clock, Timer
    from hms_addons.config.snapshot_health import HealthCheck
    from hms_addons.tasks import TaskSet
    from hms_addons.upstream.cluster import Cluster
    from hms_addons.upstream.endpoint import Endpoint
    from hms_addons.upstream.health_probe import Verdict

    type Probe = Callable[[Cluster, Endpoint, HealthCheck], Coroutine[Any, Any, Verdict]]

logger = logging.getLogger(__name__)

MOST_AT_ONCE: Final = 32
"""Checks under way at the same time, whatever the number of endpoints."""


class _Checked:
    """An endpoint that is being checked: waiting for its time, for its turn, or for its answer."""

    __slots__ = ("cluster", "endpoint", "health", "settings", "task", "timer")

    def __init__(self, cluster: Cluster, endpoint: Endpoint, settings: HealthCheck) -> None:
        self.cluster = cluster
        self.endpoint = endpoint
        self.health = EndpointHealth()
        self.settings: HealthCheck | None = settings  # None: it has been let go
        self.timer: Timer | None = None
        self.task: asyncio.Task[Verdict] | None = None

    def stop(self) -> None:
        self.settings = None
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if self.task is not None:
            self.task.cancel()


class HealthChecker:
    """The health checks of all clusters.

    Args:
        clock, rng: time, and jitter.
        tasks: runs the checks.
        probe: makes one check.
    """

    def __init__(self, clock: Clock, rng: random.Random, tasks: TaskSet, probe: Probe) -> None:
        self._clock = clock
        self._rng = rng
        self._tasks = tasks
        self._probe = probe
        self._checked: dict[Cluster, dict[Endpoint, _Checked]] = {}
        self._due: deque[_Checked] = deque()
        self._running = 0

    def __repr__(self) -> str:
        endpoints = sum(map(len, self._checked.values()))
        return f"<HealthChecker endpoints={endpoints} running={self._running}>"

    # -- membership -----------------------------------------------------------------------------

    def follow(self, cluster: Cluster) -> None:
        """Check the members that `cluster` has now, as its configuration says, and no others."""
        settings = cluster.spec.health_check
        checked = self._checked.get(cluster)
        if settings is None:
            if checked is not None:
                self.forget(cluster)
            return
        if checked is None:
            checked = self._checked[cluster] = {}
        members = set(cluster.endpoints.values())
        for endpoint in [endpoint for endpoint in checked if endpoint not in members]:
            checked.pop(endpoint).stop()
        known = any(item.health.state is HealthState.HEALTHY for item in checked.values())
        for endpoint in cluster.endpoints.values():
            item = checked.get(endpoint)
            if item is None:
                item = checked[endpoint] = _Checked(cluster, endpoint, settings)
                endpoint.health = item.health
                endpoint.healthy = not known
                self._enqueue(item)
            elif item.settings != settings:
                item.settings = settings
                if item.timer is not None:  # what was waited for is no longer what is wanted
                    item.timer.cancel()
                    self._enqueue(item)

    def forget(self, cluster: Cluster) -> None:
        """Check none of its endpoints any more; those that are still members are in use again."""
        for endpoint, item in self._checked.pop(cluster, {}).items():
            item.stop()
            endpoint.health = None
            endpoint.healthy = True

    # -- one check after the other ----------------------------------------------------------------

    def _enqueue(self, item: _Checked) -> None:
        item.timer = None
        self._due.append(item)
        self._start()

    def _start(self) -> None:
        while self._due and self._running < MOST_AT_ONCE and not self._tasks.closed:
            item = self._due.popleft()
            if item.settings is None:
                continue
            self._running += 1
            probe = self._probe(item.cluster, item.endpoint, item.settings)
            item.task = self._tasks.start(probe, f"health check {item.endpoint.address}")
            item.task.add_done_callback(partial(self._ended, item))

    def _ended(self, item: _Checked, task: asyncio.Task[Verdict]) -> None:
        self._running -= 1
        item.task = None
        if item.settings is not None and not self._tasks.closed:
            if not task.cancelled() and task.exception() is None:  # the task set tells of those
                self._judge(item, item.settings, task.result())
            delay = item.settings.interval * (1 + item.settings.jitter * self._rng.random())
            item.timer = self._clock.call_later(delay, self._enqueue, item)
        self._start()

    def _judge(self, item: _Checked, settings: HealthCheck, verdict: Verdict) -> None:
        cluster, endpoint, health = item.cluster, item.endpoint, item.health
        if verdict.passed is None:
            logger.warning(
                "cluster %s: endpoint %s could not be checked: %s",
                cluster.name,
                endpoint.address,
                verdict.why,
            )
            return
        if not verdict.passed:
            if health.failed(settings, verdict.why):
                logger.warning(
                    "cluster %s: endpoint %s is unhealthy: %s",
                    cluster.name,
                    endpoint.address,
                    health.cause,
                )
                self._use(item, healthy=False)
            return
        if health.passed(settings):
            logger.info("cluster %s: endpoint %s is healthy", cluster.name, endpoint.address)
            self._use(item, healthy=True)
        if health.state is HealthState.HEALTHY:
            cluster.detector.health_check_passed(endpoint)

    @staticmethod
    def _use(item: _Checked, *, healthy: bool) -> None:
        if item.endpoint.healthy is not healthy:
            item.endpoint.healthy = healthy
            item.cluster.refresh()
