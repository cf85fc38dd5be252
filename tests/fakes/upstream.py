"""Upstreams without sockets: a transport, a connector that scripts its peers, and ready-made parts.

world = World(endpoints=3)                a manager with one cluster, on a FakeClock
world.connector.peer("10.0.0.1:80").say(OK)   what that endpoint answers, from now on
answer = await world.forward(world.exchange())
world.check_quiet()                       nothing is in use any more
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from typing import TYPE_CHECKING, Any, cast

from mitmproxy.http import Headers, HTTPFlow, Request
from mitmproxy.test.tflow import tclient_conn, tserver_conn

from hms_addons.addons.resilience import Resilience
from hms_addons.config.snapshot import (
    Cluster,
    Direction,
    EndpointSpec,
    Listener,
    RetryPolicy,
    Route,
    Snapshot,
    WeightedCluster,
)
from hms_addons.exchange import Exchange
from hms_addons.upstream.cluster_manager import ClusterManager
from hms_addons.upstream.outcome import Outcome, UpstreamError
from tests.fakes.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from hms_addons.http_message import Answer, BodyStream
    from hms_addons.upstream.cluster import Cluster as RunningCluster
    from hms_addons.upstream.connector import PeerTls
    from hms_addons.upstream.dns import Lookup
    from hms_addons.upstream.endpoint import Endpoint
    from hms_addons.upstream.http1_client import Http1Connection

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
UNAVAILABLE = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy"
REFUSED = UpstreamError(Outcome.CONNECT_FAILURE, "connection refused")

CLOSE = object()
"""In a peer's script: close the connection instead of answering."""
SILENCE = object()
"""In a peer's script: give no answer."""


async def settle(turns: int = 20) -> None:
    """Let everything that can run, run."""
    for _ in range(turns):
        await asyncio.sleep(0)


class FakeTransport(asyncio.Transport):
    """Keeps what is written; closes as asyncio's do, with `connection_lost` on a later turn."""

    def __init__(self, protocol: Any, on_write: Callable[[bytes], object]) -> None:
        super().__init__()
        self.protocol = protocol
        self.on_write = on_write
        self.written = bytearray()
        self.reading = True
        self.closing = False
        self.aborted = False
        self.eof_written = False
        self._lost = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.closing, "written after close"
        self.written += data
        self.on_write(bytes(data))

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        self.write(b"".join(list_of_data))

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.lose(None)

    def abort(self) -> None:
        self.aborted = True
        self.lose(None)

    def lose(self, error: Exception | None) -> None:
        """The connection goes, as when the peer resets it."""
        self.closing = True
        if not self._lost:
            self._lost = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, error)

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.eof_written = True

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default


class Peer:
    """One endpoint's behaviour. Each request takes the next line of the script, the last for ever.

    A line is bytes to send, CLOSE, SILENCE, or an exception to reset the connection with. A line of
    `refuse` meets a connection attempt: an `UpstreamError` to refuse it, None to accept it, SILENCE
    to let it hang. Health checks (requests for /health) take their lines from a script of their own.
    """

    def __init__(self) -> None:
        self.script: deque[Any] = deque([OK])
        self.connects: deque[Any] = deque([None])
        self.transports: list[FakeTransport] = []
        self.requests: list[bytes] = []
        self.check_script: deque[Any] = deque([OK])
        self.checks: list[bytes] = []

    def on_check(self, *lines: Any) -> None:
        self.check_script = deque(lines)

    def say(self, *lines: Any) -> None:
        self.script = deque(lines)

    def on_connect(self, *lines: Any) -> None:
        self.connects = deque(lines)

    @staticmethod
    def next_of(lines: deque[Any]) -> Any:
        return lines[0] if len(lines) == 1 else lines.popleft()

    def received(self, transport: FakeTransport, data: bytes) -> None:
        if b" HTTP/1.1\r\n" not in data:
            return  # more of a body
        is_check = b" /health" in data[:20]
        (self.checks if is_check else self.requests).append(data)
        line = self.next_of(self.check_script if is_check else self.script)
        loop = asyncio.get_running_loop()
        if line is CLOSE:
            loop.call_soon(transport.lose, None)
        elif isinstance(line, Exception):
            loop.call_soon(transport.lose, line)
        elif line is not SILENCE:
            loop.call_soon(self.send, transport, line)

    @staticmethod
    def send(transport: FakeTransport, data: bytes) -> None:
        if not transport.closing:
            transport.protocol.data_received(data)


class FakeConnector:
    """Implements `hms_addons.upstream.connector.Connector` over `Peer`s."""

    def __init__(self) -> None:
        self.peers: dict[str, Peer] = {}
        self.attempts: list[str] = []
        self.tls: list[PeerTls | None] = []

    def peer(self, address: str) -> Peer:
        return self.peers.setdefault(address, Peer())

    async def connect(
        self, endpoint: Endpoint, tls: PeerTls | None, factory: Callable[[], Http1Connection]
    ) -> Http1Connection:
        peer = self.peer(endpoint.address)
        self.attempts.append(endpoint.address)
        self.tls.append(tls)
        await asyncio.sleep(0)
        line = peer.next_of(peer.connects)
        if line is SILENCE:
            await asyncio.get_running_loop().create_future()
        if line is not None:
            raise line
        connection = factory()
        transport = FakeTransport(connection, lambda data: peer.received(transport, data))
        peer.transports.append(transport)
        connection.connection_made(transport)
        return connection

    @property
    def open(self) -> int:
        """Transports that are not closed."""
        peers = self.peers.values()
        return sum(not transport.closing for peer in peers for transport in peer.transports)


def specs(count: int, **options: Any) -> tuple[EndpointSpec, ...]:
    """Endpoints 10.0.0.1:80, 10.0.0.2:80, …"""
    return tuple(EndpointSpec(host=f"10.0.0.{n + 1}", port=80, **options) for n in range(count))


def other_specs(count: int) -> tuple[EndpointSpec, ...]:
    """Endpoints 10.0.1.1:80, 10.0.1.2:80, … of another cluster."""
    return tuple(EndpointSpec(host=f"10.0.1.{n + 1}", port=80) for n in range(count))


def make_cluster(name: str = "auth-svc", **options: Any) -> Cluster:
    options.setdefault("endpoints", specs(1))
    options.setdefault("service", name)
    return Cluster(name=name, **options)


def make_route(retry: RetryPolicy | None = None, **options: Any) -> Route:
    return Route(
        name="verify-id",
        listener="inbound_http",
        clusters=(WeightedCluster(cluster="auth-svc"),),
        service="auth-svc",
        retry=retry or RetryPolicy(),
        **options,
    )


LISTENER = Listener(
    name="inbound_http",
    host="127.0.0.1",
    port=15001,
    direction=Direction.OUTBOUND,
    routes=cast("Any", None),
)


def make_exchange(
    snapshot: Snapshot,
    route: Route,
    *,
    method: str = "GET",
    target: str = "/verify-id?id=7",
    fields: tuple[tuple[bytes, bytes], ...] = ((b"Host", b"auth-svc.svc"),),
    content: bytes = b"",
    body: BodyStream | None = None,
    trailers: Headers | None = None,
) -> Exchange:
    """An exchange as the chain hands it to `hms_forward`."""
    request = Request(
        host="auth-svc.svc",
        port=80,
        method=method.encode(),
        scheme=b"http",
        authority=b"",
        path=target.encode(),
        http_version=b"HTTP/1.1",
        headers=Headers(fields),
        content=None if body is not None else content,
        trailers=trailers,
        timestamp_start=0.0,
        timestamp_end=0.0,
    )
    flow = HTTPFlow(tclient_conn(), tserver_conn())
    flow.request = request
    exchange = Exchange(flow, snapshot, LISTENER, 0.0)
    exchange.head = {name.lower(): value for name, value in fields}
    exchange.route = route
    exchange.cluster = snapshot.clusters[route.clusters[0].cluster]
    exchange.body = body
    return exchange


class World:
    """One cluster behind a fake connector, on a clock that stands still."""

    def __init__(
        self,
        endpoints: int = 1,
        *,
        retry: RetryPolicy | None = None,
        route: dict[str, Any] | None = None,
        clock: FakeClock | None = None,
        lookup: Lookup | None = None,
        **cluster: Any,
    ) -> None:
        self.clock = clock or FakeClock()
        self.connector = FakeConnector()
        self.identities: dict[str, Any] = {}
        self.manager = ClusterManager(
            self.clock,
            random.Random(7),
            self.identities.get,
            self.connector,
            lookup=lookup,
        )
        cluster.setdefault("endpoints", specs(endpoints))
        self.route = make_route(retry, **(route or {}))
        self.apply(make_cluster(**cluster))

    def apply(self, *clusters: Cluster) -> None:
        """Swap in a snapshot with these clusters."""
        self.snapshot = Snapshot(
            version="1", source="test", clusters={cluster.name: cluster for cluster in clusters}
        )
        self.manager.apply(self.snapshot)

    @property
    def cluster(self) -> RunningCluster:
        cluster = self.manager.get("auth-svc")
        assert cluster is not None
        return cluster

    def endpoint(self, number: int = 1) -> Endpoint:
        return self.cluster.endpoints[f"10.0.0.{number}", 80]

    def peer(self, number: int = 1) -> Peer:
        return self.connector.peer(f"10.0.0.{number}:80")

    def exchange(self, **options: Any) -> Exchange:
        return make_exchange(self.snapshot, options.pop("route", self.route), **options)

    async def forward(self, exchange: Exchange | None = None) -> Answer:
        return await Resilience().hms_forward(exchange or self.exchange(), self.manager)

    async def get(self, count: int = 1) -> list[int]:
        """The statuses of a few requests, one after the other; streams are read to their end."""
        return [(await self.forward()).status for _ in range(count)]

    def check_quiet(self) -> None:
        """Nothing is in use: no slot, no probe, no request, no timer but those of idle connections."""
        clusters = self.manager._clusters.values()
        breakers = [cluster.breaker for cluster in clusters]
        for breaker in [*breakers, *self.manager._route_breakers.breakers]:
            assert breaker.idle, breaker
        endpoints = [endpoint for cluster in clusters for endpoint in cluster.endpoints.values()]
        for endpoint in endpoints:
            assert endpoint.active == 0, endpoint
            assert not endpoint.probing, endpoint
            assert endpoint.pool.active == 0, endpoint.pool
            assert endpoint.pool.connecting == 0, endpoint.pool
        pooled = sum(len(endpoint.pool.idle) for endpoint in endpoints)
        assert self.connector.open == pooled

    async def close(self) -> None:
        """End it, and see that nothing is left."""
        await self.manager.close()
        assert self.connector.open == 0
        assert len(self.manager._tasks) == 0
        assert self.clock.pending == 0
