"""Cluster: the running state behind a configured cluster: endpoints, balancer, breakers, pools."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hms_addons.config.snapshot_interception import ORIGINAL_DESTINATION
from hms_addons.errors import ExchangeFailed, Failure, Fault
from hms_addons.identity.peer_chain import leaf_expiry
from hms_addons.identity.spiffe_id import SpiffeIdError
from hms_addons.upstream.circuit_breaker import CircuitBreaker
from hms_addons.upstream.connector import PeerTls, peer_ids
from hms_addons.upstream.endpoint import Endpoint, EndpointState
from hms_addons.upstream.load_balancer import Timed
from hms_addons.upstream.outcome import Outcome, UpstreamError
from hms_addons.upstream.outlier_detection import OutlierDetector
from hms_addons.upstream.pool import Pool
from hms_addons.upstream.priority_levels import PriorityLevels
from hms_addons.upstream.slow_start import SlowStart

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from hms_addons.config.snapshot import Cluster as ClusterSpec
    from hms_addons.config.snapshot import EndpointSpec
    from hms_addons.exchange import Exchange
    from hms_addons.identity.identity_holder import Identity
    from hms_addons.upstream.cluster_manager import ClusterManager
    from hms_addons.upstream.http1_client import Http1Connection
    from hms_addons.upstream.load_balancer import LoadBalancer


class Cluster:
    """One cluster, running.

    Args:
        spec: its configuration; `apply` replaces it.
        manager: whose it is: clock, chance, connector, identities, and all open connections.

    Attributes:
        endpoints: members by (host, port), in order.
        candidates: those that may be used now.
        breaker: its thresholds.
        detector: its endpoints' breakers.
        attempt_ended: what wants to know how attempts went (`load_balancer.Learning`), else None.
    """

    __slots__ = (
        "_balancer_name",
        "_identity",
        "_levels",
        "_manager",
        "_pick",
        "_resolved",
        "_slow_start",
        "_tls",
        "attempt_ended",
        "breaker",
        "candidates",
        "detector",
        "endpoints",
        "name",
        "spec",
    )

    def __init__(self, spec: ClusterSpec, manager: ClusterManager) -> None:
        self.name = spec.name
        self.spec = spec
        self.endpoints: dict[tuple[str, int], Endpoint] = {}
        self.candidates: list[Endpoint] = []
        self.breaker = CircuitBreaker(f"cluster {spec.name}", spec.thresholds, manager.rng)
        self.detector = OutlierDetector(
            spec.name, spec.outlier_detection, self.endpoints, manager.clock, self.refresh
        )
        self._manager = manager
        self._resolved: dict[tuple[str, int], tuple[EndpointSpec, ...]] = {}
        self._identity: Identity | None = None
        self._tls: PeerTls | None = None
        self._balancer_name = spec.load_balancer
        self._levels = self._make_levels()
        self._pick: Callable[[Exchange], Endpoint] = self._levels.pick
        self.attempt_ended: Callable[[Endpoint, float, int], None] | None = None
        self._slow_start: SlowStart | None = None
        self._set_slow_start(spec.slow_start)
        self._set_members()

    def __repr__(self) -> str:
        return (
            f"<Cluster {self.name} endpoints={len(self.endpoints)} "
            f"usable={len(self.candidates)} {self.breaker!r}>"
        )

    # -- membership -----------------------------------------------------------------------------

    def apply(self, spec: ClusterSpec) -> None:
        """Take a new configuration; endpoints that stay keep pool, counts and breaker."""
        old, self.spec = self.spec, spec
        if spec.thresholds != old.thresholds:
            self.breaker.replace_thresholds(spec.thresholds)
        if spec.outlier_detection != old.outlier_detection:
            self.detector.replace_settings(spec.outlier_detection)
        if spec.load_balancer != self._balancer_name:
            self._balancer_name = spec.load_balancer
            self._levels.close()
            self._levels = self._make_levels()
        if spec.slow_start != old.slow_start:
            self._set_slow_start(spec.slow_start)
        if spec.tls != old.tls:
            self._identity = self._tls = None
            for endpoint in self.endpoints.values():
                endpoint.pool.rotate()
        names = {(dns.host, dns.port) for dns in spec.dns}
        self._resolved = {key: found for key, found in self._resolved.items() if key in names}
        for endpoint in self.endpoints.values():
            endpoint.pool.idle_timeout = spec.idle_timeout
        self._set_members()

    def set_resolved(self, dns: EndpointSpec, found: Iterable[EndpointSpec]) -> None:
        """What one of the cluster's `dns` names resolves to now."""
        self._resolved[dns.host, dns.port] = tuple(found)
        self._set_members()

    def forget_resolved(self, names: Iterable[tuple[str, int]]) -> None:
        """What these host names and ports have resolved to is no more."""
        for key in names:
            self._resolved.pop(key, None)
        self._set_members()

    def _set_members(self) -> None:
        wanted: dict[tuple[str, int], EndpointSpec] = {
            (spec.host, spec.port): spec for spec in self.spec.endpoints
        }
        for found in self._resolved.values():
            for spec in found:
                wanted.setdefault((spec.host, spec.port), spec)
        for key in [key for key in self.endpoints if key not in wanted]:
            self._drain(self.endpoints.pop(key))
        members = {}
        for key, spec in wanted.items():
            endpoint = self.endpoints.get(key)
            if endpoint is None:
                endpoint = self._make_endpoint(spec)
            endpoint.spec = spec
            endpoint.weight = float(spec.weight)
            members[key] = endpoint
        self.endpoints.clear()  # the detector looks at this very dict; it is put in order anew
        self.endpoints.update(members)
        self._manager.health_checker.follow(self)
        self.refresh()

    def _make_endpoint(self, spec: EndpointSpec) -> Endpoint:
        clock = self._manager.clock
        endpoint = Endpoint(spec, self.name, clock.monotonic())
        endpoint.pool = Pool(
            endpoint, self.breaker, clock, self.spec.idle_timeout, self._manager.connection_gone
        )
        return endpoint

    @staticmethod
    def _drain(endpoint: Endpoint) -> None:
        endpoint.drained = True
        endpoint.pool.close_idle()

    def drain(self) -> None:
        """The cluster is no more: idle connections close, others when they have finished."""
        self.detector.close()
        self._manager.health_checker.forget(self)
        self._set_slow_start(0.0)
        self._levels.close()
        for endpoint in self.endpoints.values():
            self._drain(endpoint)

    def _make_levels(self) -> PriorityLevels:
        return PriorityLevels(self.name, self._make_balancer, self._manager.rng)

    def _make_balancer(self) -> LoadBalancer:
        balancer = self._manager.balancer(self._balancer_name)
        if isinstance(balancer, Timed):
            balancer.use_clock(self._manager.clock)
        return balancer

    def _set_slow_start(self, window: float) -> None:
        if self._slow_start is not None:
            self._slow_start.close()
        self._slow_start = SlowStart(self._manager.clock, window, self.refresh) if window else None

    def refresh(self) -> None:
        """Work out anew who gets which share; on a change of membership, health or weight."""
        members = self.endpoints.values()
        usable = [
            endpoint
            for endpoint in members
            if endpoint.healthy
            and (
                endpoint.state is EndpointState.CLOSED
                or (endpoint.state is EndpointState.HALF_OPEN and not endpoint.probing)
            )
        ]
        if self._slow_start is not None:
            in_use = [endpoint for endpoint in usable if endpoint.state is EndpointState.CLOSED]
            self._slow_start.observe(members, in_use)
        levels = self._levels
        counted: list[Endpoint] = list(members)
        if any(endpoint.by_hand for endpoint in counted):
            # No panic brings back what a person has taken out.
            counted = [endpoint for endpoint in counted if not endpoint.by_hand]
        levels.update(counted, usable, self._manager.zone, self.spec.panic_threshold)
        self.candidates = levels.candidates
        self._pick = levels.picker
        self.attempt_ended = levels.learner

    # -- one attempt ----------------------------------------------------------------------------

    def pick(self, exchange: Exchange, tried: Collection[Endpoint]) -> Endpoint | None:
        """An endpoint for one attempt, if there is any: one not yet tried, where there is one."""
        candidates = self.candidates
        if not candidates:
            return None
        if self._manager.pick_endpoint is not None and self._balancer_name != ORIGINAL_DESTINATION:
            fresh = [endpoint for endpoint in candidates if endpoint not in tried] or candidates
            chosen = self._manager.pick_endpoint(exchange, fresh)
            if chosen is not None:
                return self._check_choice(chosen, fresh)
        endpoint = self._pick(exchange)
        return self._levels.pick_other(exchange, tried) if endpoint in tried else endpoint

    def _check_choice(self, chosen: Endpoint, among: Collection[Endpoint]) -> Endpoint:
        if chosen not in among:
            raise ExchangeFailed(
                Failure.of(
                    Fault.PLUGIN_ERROR,
                    f"cluster {self.name}: a plugin's hms_pick_endpoint chose {chosen!r}, which is "
                    "not among the candidates it was given; return one of them, or None",
                )
            )
        return chosen

    def has_other(self, tried: Collection[Endpoint]) -> bool:
        """True if an endpoint that has not been tried may be used."""
        return any(endpoint not in tried for endpoint in self.candidates)

    def check_identity(self) -> None:
        """Make sure that connections are of the current TLS identity; quick when nothing changed.

        Raises:
            ExchangeFailed: the cluster's secret is not there. It is never plain text instead.
        """
        tls = self.spec.tls
        if tls is None:
            return
        identity = self._manager.identities(tls.secret)
        if identity is self._identity and identity is not None:
            return
        if identity is None:
            raise self._insecure(
                f"secret {tls.secret!r} for mutual TLS has not been provided, and nothing is sent "
                "in plain text instead; see /certs"
            )
        try:
            peers = peer_ids(tls.peers, identity.trust_domain)
        except SpiffeIdError as error:
            raise self._insecure(f"tls peers: {error}") from error
        self._tls = PeerTls(identity, peers)
        self._identity = identity
        for endpoint in self.endpoints.values():
            endpoint.pool.rotate()

    def peer_tls(self) -> PeerTls | None:
        """How its connections are secured now; None: plain text.

        Raises:
            ExchangeFailed: see `check_identity`.
        """
        self.check_identity()
        return self._tls

    def secret_changed(self, secret: str) -> None:
        """Its identity is another: close what is idle, and what has a peer that may not stay."""
        if self.spec.tls is None or self.spec.tls.secret != secret:
            return
        try:
            self.check_identity()
        except ExchangeFailed:
            return  # told to whoever sends a request
        for endpoint in self.endpoints.values():
            for connection in tuple(endpoint.pool.connections):
                if not self._trusts(connection):
                    connection.retire()

    def _trusts(self, connection: Http1Connection) -> bool:
        """Whether the peer of a connection that exists would pass the handshake now."""
        ssl_object = connection.transport.get_extra_info("ssl_object")
        if self._identity is None or ssl_object is None:
            return True
        return self._identity.still_trusts(ssl_object, self._manager.clock.wall())

    def _insecure(self, detail: str) -> ExchangeFailed:
        return ExchangeFailed(Failure.of(Fault.CONNECT_FAILURE, f"cluster {self.name}: {detail}"))

    async def connect(self, endpoint: Endpoint, deadline: float | None) -> Http1Connection:
        """A new connection to `endpoint`, to be used at once.

        The caller holds a connection slot of `breaker`; idle connections make room if need be.

        Raises:
            UpstreamError: `CONNECT_FAILURE`; or `TIMEOUT` if `deadline` (monotonic seconds) came
                before the cluster's own connect timeout.
        """
        pool = endpoint.pool
        self._make_room()
        epoch = pool.epoch
        pool.connecting += 1
        try:
            connection = await self._manager.connect(
                endpoint, self._tls, self.spec.connect_timeout, deadline
            )
        finally:
            pool.connecting -= 1
        if epoch != pool.epoch and not self._trusts(connection):
            connection.abort()
            raise UpstreamError(
                Outcome.CONNECT_FAILURE,
                "its certificate is not acceptable: no root of the bundle, which has just changed, "
                "stands behind it",
            )
        pool.add(connection, epoch)
        if self._tls is not None:
            self._watch_expiry(connection)
        return connection

    def _watch_expiry(self, connection: Http1Connection) -> None:
        """Retire a connection when its peer's certificate expires."""
        clock = self._manager.clock
        expires = leaf_expiry(connection.transport.get_extra_info("ssl_object"))
        if expires is None or connection.closed:
            return
        left = expires - clock.wall()
        if left > 0:
            # A moment late rather than early; and once more, if the clock was set back meanwhile.
            connection.expiry = clock.call_later(left + 0.01, self._watch_expiry, connection)
        else:
            connection.retire()

    def _make_room(self) -> None:
        pools = [endpoint.pool for endpoint in self.endpoints.values()]
        idle = sum(len(pool.idle) for pool in pools)
        # `breaker.connections` counts the one about to be made.
        if idle and idle + self.breaker.connections > self.spec.thresholds.max_connections:
            max(pools, key=lambda pool: len(pool.idle)).close_oldest_idle()

    # -- by hand ----------------------------------------------------------------------------------

    def open_by_hand(self, address: str | None, seconds: float) -> list[str]:
        """Open the breaker of the endpoint at `address`, or of all that are there; their addresses."""
        found = [e for e in self.endpoints.values() if address is None or e.address == address]
        for endpoint in found:
            self.detector.open_by_hand(endpoint, seconds)
        return [endpoint.address for endpoint in found]

    def mend(self) -> list[str]:
        """Close what was opened by hand; the endpoints' addresses."""
        return [e.address for e in self.endpoints.values() if self.detector.mend(e)]

    def describe(self) -> dict[str, Any]:
        """Its state as JSON-ready types, for `/clusters`."""
        now = self._manager.clock.monotonic()
        retry_after = None if self.candidates else self.detector.retry_after()
        return {
            "name": self.name,
            "service": self.spec.service,
            # All endpoints open is the cluster's own breaker being open.
            "state": "closed" if self.candidates else "open" if self.endpoints else "empty",
            "retry_in_seconds": None if retry_after is None else round(retry_after, 3),
            "load_balancer": self._balancer_name,
            "hash_on": None if self.spec.hash_on is None else str(self.spec.hash_on),
            "slow_start_seconds": self.spec.slow_start,
            "panic": self._levels.panic,
            "levels": self._levels.describe(),
            "tls": self.spec.tls is not None,
            "circuit_breakers": self.breaker.describe(),
            "endpoints": [endpoint.describe(now) for endpoint in self.endpoints.values()],
        }
