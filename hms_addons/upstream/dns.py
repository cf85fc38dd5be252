"""`dns:` endpoints: host names looked up again and again, off the request path.

`getaddrinfo` does not tell the TTL of what it found, so names are looked up every five seconds, the
floor, with some jitter; the system's own resolver caches for as long as the TTL says. When a name
cannot be resolved the last good answer stays: DNS that is away must not take a service down.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from dataclasses import replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable, Iterable

    from hms_addons.clock import Clock
    from hms_addons.config.snapshot import EndpointSpec
    from hms_addons.tasks import TaskSet
    from hms_addons.upstream.cluster import Cluster

logger = logging.getLogger(__name__)

INTERVAL: Final = 5.0
"""Seconds between look-ups of a name."""

type Lookup = Callable[[str, int], Awaitable[list[str]]]
"""Resolves (host, port) to addresses; raises `OSError` when it cannot."""


async def system_lookup(host: str, port: int) -> list[str]:
    """The addresses the system's resolver gives, in its order.

    Raises:
        OSError: there are none, or the resolver is away (`socket.gaierror`).
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    # A link-local IPv6 address without its scope would not be reachable: keep it.
    return list(dict.fromkeys(_address(info[4]) for info in found))


def _address(sockaddr: tuple[object, ...]) -> str:
    host = str(sockaddr[0])
    scope = sockaddr[3] if len(sockaddr) > 3 else 0  # noqa: PLR2004 - IPv6's have four parts
    return f"{host}%{scope}" if scope and "%" not in host else host


class Resolver:
    """Follows the `dns` names of all clusters, one task each.

    Args:
        clock, rng: time, and jitter.
        tasks: runs the look-ups.
        lookup: resolves one name.
    """

    def __init__(
        self, clock: Clock, rng: random.Random, tasks: TaskSet, lookup: Lookup | None = None
    ) -> None:
        self._clock = clock
        self._rng = rng
        self._tasks = tasks
        self._lookup = lookup or system_lookup
        self._followed: dict[tuple[str, EndpointSpec], asyncio.Task[None]] = {}
        self._pending: set[tuple[str, EndpointSpec]] = set()
        self._settled: asyncio.Event | None = None

    def __repr__(self) -> str:
        return f"<Resolver names={len(self._followed)} unresolved={len(self._pending)}>"

    def follow(self, clusters: Iterable[Cluster]) -> None:
        """Look up the names of these clusters from now on, and no others."""
        wanted = {(cluster.name, dns): cluster for cluster in clusters for dns in cluster.spec.dns}
        for key in [key for key in self._followed if key not in wanted]:
            self._followed.pop(key).cancel()
            self._settle(key)
        for key, cluster in wanted.items():
            if key not in self._followed:
                self._pending.add(key)
                name = f"dns {key[1].address}"
                self._followed[key] = self._tasks.start(self._repeat(cluster, key), name)

    async def first_round(self) -> None:
        """Wait until every name has been looked up once, successfully or not."""
        while self._pending:
            self._settled = asyncio.Event()
            await self._settled.wait()

    async def _repeat(self, cluster: Cluster, key: tuple[str, EndpointSpec]) -> None:
        dns = key[1]
        trouble: str | None = None
        found: list[str] = []
        while True:
            try:
                answer = sorted(await self._lookup(dns.host, dns.port))
            except OSError as error:
                reason = error.strerror or str(error)
                if reason != trouble:
                    kept = f"; going on with {', '.join(found)}" if found else ""
                    logger.warning(
                        "cluster %s: cannot resolve %s: %s%s", cluster.name, dns.host, reason, kept
                    )
                trouble = reason
            else:
                if answer != found or trouble is not None:
                    logger.info(
                        "cluster %s: %s is %s",
                        cluster.name,
                        dns.host,
                        ", ".join(answer) or "nobody",
                    )
                trouble = None
                if answer and answer != found:
                    found = answer
                    cluster.set_resolved(dns, [replace(dns, host=address) for address in found])
            self._settle(key)
            await self._clock.sleep(INTERVAL * (1 + 0.1 * self._rng.random()))

    def _settle(self, key: tuple[str, EndpointSpec]) -> None:
        self._pending.discard(key)
        if self._settled is not None and not self._pending:
            self._settled.set()
