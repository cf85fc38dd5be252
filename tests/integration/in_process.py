"""A sidecar in this process, on real sockets and a loop of its own, whose inside can be looked at."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

from hms_addons.bootstrap import build_plugins
from hms_addons.sidecar import Sidecar
from tests.fakes.configs import snapshot_of
from tests.integration.basics import Closing, until
from tests.integration.servers import LoopThread

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hms_addons.upstream.circuit_breaker import CircuitBreaker
    from hms_addons.upstream.cluster import Cluster


def in_use(sidecar: Sidecar) -> list[str]:
    """All of a sidecar that is in use or open, in words; idle upstream connections are not."""
    found = []
    for lane in sidecar.lanes.values():
        found += [f"connection {connection!r}" for connection in lane.connections]
        if lane.in_flight:
            found.append(f"{lane.in_flight} requests in flight")
    manager = sidecar.upstream
    breakers: list[CircuitBreaker] = list(manager._route_breakers.breakers)
    idle = 0
    for cluster in manager._clusters.values():
        breakers.append(cluster.breaker)
        for endpoint in cluster.endpoints.values():
            pool = endpoint.pool
            idle += len(pool.idle)
            if endpoint.active or pool.active or pool.connecting or endpoint.probing:
                found.append(f"endpoint {endpoint!r} active={endpoint.active} {pool!r}")
    found += [f"breaker {breaker!r}" for breaker in breakers if not breaker.idle]
    if len(manager.connections) != idle:
        found.append(f"{idle} idle of the upstream connections {manager.connections!r}")
    if len(manager._tasks):
        found.append(f"upstream tasks {manager._tasks!r}")
    return found


async def _in_use(sidecar: Sidecar) -> list[str]:
    return in_use(sidecar)


class InProcess(Closing):
    """A running sidecar.

    Args:
        text: its configuration; listeners say `port: 0`.
        seed: for its chance.
        plugins: further ones, by name.
    """

    def __init__(self, text: str, seed: int = 1, plugins: Mapping[str, Any] | None = None) -> None:
        self._thread = LoopThread()
        self.sidecar: Sidecar = self._thread.run(self._start(text, seed, plugins or {}))
        self._tasks_at_rest = self._tasks()

    async def _start(self, text: str, seed: int, plugins: Mapping[str, Any]) -> Sidecar:
        rng = random.Random(seed)
        registered = build_plugins(None, rng)
        for name, plugin in plugins.items():
            registered.register(plugin, name)
        sidecar = Sidecar(registered, rng=rng)
        await sidecar.start(snapshot_of(text))
        return sidecar

    def close(self) -> None:
        """Stop it; fails if a task of its loop outlives it."""
        if self._thread.loop.is_closed():
            return
        self._thread.run(self.sidecar.stop())
        left = self._tasks()
        self._thread.close()
        assert left <= 0, f"{left} tasks outlive the sidecar"

    def apply(self, text: str) -> None:
        """Change the configuration."""
        self._thread.run(self.sidecar.apply(snapshot_of(text)))

    @property
    def port(self) -> int:
        """Of its first listener."""
        port = self.sidecar.port_of(next(iter(self.sidecar.lanes)))
        assert port is not None
        assert port.address is not None
        return port.address[1]

    def cluster(self, name: str) -> Cluster:
        """A running cluster."""
        found = self.sidecar.upstream.get(name)
        assert found is not None
        return found

    # -- what is left over ----------------------------------------------------------------------

    def _tasks(self) -> int:
        async def count() -> int:
            return len(asyncio.all_tasks()) - 1  # this one

        return self._thread.run(count())

    def left_over(self) -> list[str]:
        """What is still in use: idle upstream connections are not."""
        found = self._thread.run(_in_use(self.sidecar))
        tasks = self._tasks() - self._tasks_at_rest
        if tasks > 0:
            found.append(f"{tasks} tasks more than at rest")
        return found

    def wait_quiet(self, timeout: float = 10.0) -> None:
        """Wait until nothing is in use any more; says what is, if that does not come."""
        try:
            until(lambda: not self.left_over(), "nothing in use", timeout)
        except AssertionError as error:
            raise AssertionError("\n".join(self.left_over()) or str(error)) from None

    def idle_connections(self) -> int:
        """Upstream connections that are kept for later."""
        clusters = self.sidecar.upstream._clusters.values()
        return sum(len(e.pool.idle) for c in clusters for e in c.endpoints.values())

    def armed_timers(self) -> int:
        """Timers that the event loop still holds, not counting cancelled ones."""

        async def count() -> int:
            scheduled = self._thread.loop._scheduled  # type: ignore[attr-defined]
            return sum(not handle.cancelled() for handle in scheduled)

        return self._thread.run(count())
