"""All clusters, running: what `hms_forward` is given as `upstream`."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

from hms_addons.config.places import located
from hms_addons.config.problems import closest
from hms_addons.config.snapshot_interception import ORIGINAL_DESTINATION
from hms_addons.tasks import TaskSet
from hms_addons.upstream.balancers.built_in import BUILT_IN
from hms_addons.upstream.balancers.original_destination import OriginalDestination
from hms_addons.upstream.cluster import Cluster
from hms_addons.upstream.connector import SocketConnector
from hms_addons.upstream.dns import Resolver
from hms_addons.upstream.health_check import HealthChecker
from hms_addons.upstream.health_probe import HealthProbe
from hms_addons.upstream.http1_client import Http1Connection
from hms_addons.upstream.latency_quantile import LatencyQuantile
from hms_addons.upstream.mirroring import Mirrors
from hms_addons.upstream.original_destinations import OriginalDestinations
from hms_addons.upstream.outcome import Outcome, UpstreamError
from hms_addons.upstream.route_breakers import RouteBreakers

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Mapping, Sequence

    from hms_addons.clock import Clock
    from hms_addons.config.snapshot import Route, Snapshot
    from hms_addons.exchange import Exchange
    from hms_addons.identity.identity_holder import Identity
    from hms_addons.upstream.circuit_breaker import CircuitBreaker
    from hms_addons.upstream.connector import ConnectionObserver, Connector, PeerTls
    from hms_addons.upstream.dns import Lookup
    from hms_addons.upstream.endpoint import Endpoint
    from hms_addons.upstream.http1_exchange import ConnectionOwner
    from hms_addons.upstream.load_balancer import LoadBalancer


class ClusterManager:
    """Clusters by name, their connections, and what they share.

    Args:
        clock: time.
        rng: chance, for balancers and backoff.
        identities: the current identity of a secret, None if it has none (yet).
        connector: makes connections.
        balancers: by the name clusters use; `BUILT_IN` and what plugins add.
        lookup: resolves host names; `getaddrinfo` unless a test says otherwise.

    Attributes:
        pick_endpoint: set when a plugin wants to choose endpoints: is given the exchange and the
            candidates, returns one of them or None.
        observer: told of connections, if set.
        told_zone: where this sidecar is, over what the configuration says; set before `apply`.
        zone: where it is by both; "" where nothing says so.
        connections: all whose transports are there, in whatever cluster.
        health_checker: checks the endpoints of clusters that ask for it.
        mirrors: sends copies of requests.
    """

    def __init__(
        self,
        clock: Clock,
        rng: random.Random,
        identities: Callable[[str], Identity | None],
        connector: Connector | None = None,
        *,
        balancers: Mapping[str, type[LoadBalancer]] | None = None,
        lookup: Lookup | None = None,
    ) -> None:
        self.clock = clock
        self.rng = rng
        self.identities = identities
        self.balancers: dict[str, type[LoadBalancer]] = {
            **BUILT_IN,
            **(balancers or {}),
        }
        self.pick_endpoint: Callable[[Exchange, Sequence[Endpoint]], Endpoint | None] | None = None
        self.told_zone = self.zone = ""
        self.observer: ConnectionObserver | None = None
        self.connections: set[Http1Connection] = set()
        self._connector: Connector = connector or SocketConnector()
        self._clusters: dict[str, Cluster] = {}
        self._route_breakers = RouteBreakers(rng)
        self._tasks = TaskSet("upstream")
        self.health_checker = HealthChecker(clock, rng, self._tasks, HealthProbe(self))
        self.mirrors = Mirrors(self, self._tasks, rng)
        self._resolver = Resolver(clock, rng, self._tasks, lookup)
        self._gone: asyncio.Event | None = None
        self._latencies: dict[tuple[str, str], LatencyQuantile] = {}
        self._failovers: Counter[tuple[str, str]] = Counter()
        self._originals = OriginalDestinations()

    def __repr__(self) -> str:
        return (
            f"<ClusterManager clusters={len(self._clusters)} connections={len(self.connections)} "
            f"tasks={len(self._tasks)}>"
        )

    # -- configuration --------------------------------------------------------------------------

    def apply(self, snapshot: Snapshot) -> None:
        """Bring the clusters into line with a snapshot; must run inside the event loop.

        Raises:
            KeyError: a cluster's `load_balancer` is not known (see `check`).
        """
        for name in [name for name in self._clusters if name not in snapshot.clusters]:
            self._clusters.pop(name).drain()
            self.mirrors.forget(name)
            for pair in [pair for pair in self._failovers if name in pair]:
                del self._failovers[pair]
        zone = self.told_zone or snapshot.zone
        moved, self.zone = zone != self.zone, zone
        for name, spec in snapshot.clusters.items():
            cluster = self._clusters.get(name)
            if cluster is None:
                self._clusters[name] = Cluster(spec, self)
            elif cluster.spec is not spec and cluster.spec != spec:
                cluster.apply(spec)
            elif moved:
                cluster.refresh()
        self._resolver.follow(self._clusters.values())
        self._route_breakers.follow(snapshot)
        if self._latencies:
            hedged = {
                (route.listener, route.name)
                for listener in snapshot.listeners
                for table in (listener.routes, *listener.services.values())
                for route in table
                if route.hedge is not None
            }
            self._latencies = {k: found for k, found in self._latencies.items() if k in hedged}

    def unknown_balancers(self, snapshot: Snapshot) -> list[str]:
        """What in `snapshot` nobody can balance: one message per cluster, for `ConfigError`."""
        known = ", ".join(sorted(self.balancers))
        there = {*self.balancers, ORIGINAL_DESTINATION}
        return [
            located(
                snapshot,
                f"clusters.{spec.name}.load_balancer",
                f"{spec.load_balancer!r} is not known; use {known}",
                closest(spec.load_balancer, self.balancers),
            )
            for spec in snapshot.clusters.values()
            if spec.load_balancer not in there
        ]

    def get(self, name: str) -> Cluster | None:
        """The running cluster of that name."""
        return self._clusters.get(name)

    def balancer(self, name: str) -> LoadBalancer:
        """A new balancer of that name.

        Raises:
            KeyError: there is none.
        """
        if name == ORIGINAL_DESTINATION:  # which no configuration can name
            return OriginalDestination(self.rng)
        return self.balancers[name](self.rng)

    def reach(self, cluster: str, original: tuple[str, int]) -> None:
        """Make sure that a cluster of original destinations has this one.

        Raises:
            ExchangeFailed: it has no room; see `OriginalDestinations`.
        """
        running = self._clusters.get(cluster)
        if running is not None:  # else it has just been removed, which forwarding tells
            self._originals.reach(running, original)

    def is_own(self, address: tuple[str, int]) -> bool:
        """Whether `address` is this sidecar's end of one of its connections to endpoints."""
        return any(
            (connection.transport.get_extra_info("sockname") or ())[:2] == address
            for connection in self.connections
        )

    def secret_changed(self, secret: str) -> None:
        """The identity of `secret` is another than before."""
        for cluster in self._clusters.values():
            cluster.secret_changed(secret)

    def route_breaker(self, route: Route) -> CircuitBreaker | None:
        """The breaker of a route that has thresholds of its own."""
        return self._route_breakers.get(route)

    @property
    def tasks(self) -> TaskSet:
        """For what runs beside a request; ended by `close`."""
        return self._tasks

    def latency(self, route: Route) -> LatencyQuantile:
        """How long a hedged route's answers take."""
        return self._latencies.setdefault((route.listener, route.name), LatencyQuantile())

    def count_failover(self, cluster: str, other: str) -> None:
        """A request for `cluster` goes to `other`."""
        self._failovers[cluster, other] += 1

    async def first_resolution(self) -> None:
        """Wait until every `dns` name has been looked up once, successfully or not."""
        await self._resolver.first_round()

    # -- connections ----------------------------------------------------------------------------

    async def connect(
        self, endpoint: Endpoint, tls: PeerTls | None, within: float, deadline: float | None
    ) -> Http1Connection:
        """Make a connection within `within` seconds, and by `deadline` (monotonic seconds).

        Raises:
            UpstreamError: see `Cluster.connect`.
        """
        remaining = within
        late = UpstreamError(Outcome.CONNECT_FAILURE, f"no connection within {within:g}s")
        if deadline is not None and deadline - self.clock.monotonic() < within:
            remaining = max(0.0, deadline - self.clock.monotonic())
            late = UpstreamError(Outcome.TIMEOUT, "no connection in time")
        # A task of its own, so that the timer can end it and a cancellation from above too.
        task: asyncio.Task[Http1Connection | UpstreamError]
        task = self._tasks.start(self._connect(endpoint, tls), f"connect {endpoint.address}")
        expired = False

        def expire() -> None:
            nonlocal expired
            expired = True
            task.cancel()

        timer = self.clock.call_later(remaining, expire)
        try:
            made = await task
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if not (caller is not None and caller.cancelling()):
                # The connecting task was: by the timer, or because everything is being closed.
                if not expired:
                    late = UpstreamError(Outcome.LOCAL, "this sidecar is stopping")
                raise late from None
            # The caller was cancelled, perhaps in the very moment in which the connection was made.
            if task.done() and not task.cancelled():
                _give_up(task.result())
            raise
        finally:
            timer.cancel()
        if isinstance(made, UpstreamError):
            raise made
        return made

    async def _connect(
        self, endpoint: Endpoint, tls: PeerTls | None
    ) -> Http1Connection | UpstreamError:
        observer = self.observer
        if observer is None:
            try:
                return await self._open(endpoint, tls)
            except UpstreamError as error:
                return error
        try:
            handle = await observer.connecting(endpoint)
        except Exception as error:  # noqa: BLE001 - an addon's refusal, whatever its type
            return UpstreamError(Outcome.LOCAL, f"refused by an addon: {error}")
        try:
            connection = await self._open(endpoint, tls)
        except UpstreamError as error:
            await observer.failed(handle, error.detail)
            return error
        connection.handle = handle
        try:
            await observer.connected(handle, connection)
        except Exception as error:  # noqa: BLE001 - as above
            connection.abort()
            return UpstreamError(Outcome.LOCAL, f"refused by an addon: {error}")
        except BaseException:
            connection.abort()
            raise
        return connection

    async def _open(self, endpoint: Endpoint, tls: PeerTls | None) -> Http1Connection:
        return await self.open_for(endpoint.pool, endpoint, tls)

    async def open_for(
        self, owner: ConnectionOwner[Http1Connection], endpoint: Endpoint, tls: PeerTls | None
    ) -> Http1Connection:
        """A new connection, which nobody is told of; cancelling it leaves nothing behind.

        Args:
            owner: told of its end; must tell `connection_gone`.
            endpoint, tls: see `Connector.connect`.

        Raises:
            UpstreamError: see `Connector.connect`.
        """
        clock, tasks = self.clock, self._tasks
        connection = await self._connector.connect(
            endpoint, tls, lambda: Http1Connection(owner, clock, tasks)
        )
        self.connections.add(connection)
        return connection

    def connection_gone(self, connection: Http1Connection) -> None:
        """The transport of a pool's connection is gone."""
        self.connections.discard(connection)
        if connection.expiry is not None:
            connection.expiry.cancel()
            connection.expiry = None
        if connection.handle is not None and self.observer is not None:
            self.observer.disconnected(connection.handle)
        if self._gone is not None:
            self._gone.set()

    # -- the end --------------------------------------------------------------------------------

    def describe(self) -> list[dict[str, Any]]:
        """Live state of every cluster as JSON-ready types, for `/clusters`."""
        return [
            cluster.describe()
            | {
                "routes": self._route_breakers.describe(cluster.name),
                "failover": self._describe_failover(cluster),
                "mirrored": self.mirrors.describe(cluster.name),
            }
            for cluster in self._clusters.values()
        ]

    def _describe_failover(self, cluster: Cluster) -> dict[str, Any] | None:
        chain = cluster.spec.failover
        if not chain:
            return None
        usable = [name for name in chain if (c := self._clusters.get(name)) and c.candidates]
        return {
            "to": list(chain),
            "now": None if cluster.candidates or not usable else usable[0],
            "requests_total": {name: self._failovers[cluster.name, name] for name in chain},
        }

    async def close(self) -> None:
        """Close every connection and end every task, whatever is in flight. Idempotent."""
        for cluster in self._clusters.values():
            cluster.drain()
        await self._tasks.close()
        for connection in tuple(self.connections):
            connection.abort()
            connection.transport.abort()  # also of those that were closing in good order
        while self.connections:
            self._gone = asyncio.Event()
            await self._gone.wait()


def _give_up(made: Http1Connection | UpstreamError) -> None:
    if isinstance(made, Http1Connection):
        made.abort()
