"""Exchanges for tests of plugins: the real `Exchange` on a real mitmproxy flow, no sockets.

`make_exchange()` gives one as it is when the mesh has just taken a request over: its head indexed,
its path normalised, the mesh's own headers and hop-by-hop ones removed from what will be sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from mitmproxy.connection import Client, Server
from mitmproxy.http import HTTPFlow, Request

from hms_addons.config.request_target import parse_target
from hms_addons.config.route_table import RouteTable
from hms_addons.config.snapshot import (
    Direction,
    Listener,
    Route,
    Snapshot,
    TlsMode,
    WeightedCluster,
)
from hms_addons.exchange import Exchange
from hms_addons.http_message import without_fields

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hms_addons.http_message import Fields

REMOVED = frozenset({b"connection", b"x-forwarded-client-cert"})


class FakeDownstream(NamedTuple):
    """The part of the engine's connection that plugins read."""

    peer: str | None = None
    xfcc: bytes | None = None
    scheme: bytes = b"http"
    client: Any = None


def make_listener(**changes: Any) -> Listener:
    """An inbound plain-text listener without routes, but for `changes`."""
    settings: dict[str, Any] = {
        "name": "peers",
        "host": "127.0.0.1",
        "port": 15006,
        "direction": Direction.INBOUND,
        "tls": TlsMode.NONE,
        "routes": RouteTable(),
    }
    return Listener(**settings | changes)


def make_route(service: str = "auth-svc", **changes: Any) -> Route:
    """A route to `service`, whose one cluster has its name."""
    settings: dict[str, Any] = {
        "name": f"to-{service}",
        "listener": "peers",
        "clusters": (WeightedCluster(cluster=service),),
        "service": service,
    }
    return Route(**settings | changes)


def make_snapshot(**changes: Any) -> Snapshot:
    """An empty snapshot but for `changes`."""
    settings: dict[str, Any] = {"version": "1", "source": "test"}
    return Snapshot(**settings | changes)


def make_exchange(
    target: str = "/verify-id",
    *,
    method: str = "GET",
    headers: Iterable[tuple[str, str]] = (),
    snapshot: Snapshot | None = None,
    listener: Listener | None = None,
    route: Route | None = None,
    peer: str | None = None,
    xfcc: bytes | None = None,
) -> Exchange:
    """A request that the mesh has just taken over.

    Args:
        target, method, headers: the request, as the caller sent it.
        snapshot, listener, route: the configuration it meets; by default an empty snapshot, an
            inbound listener, and a route to `auth-svc`.
        peer, xfcc: what the engine has verified of the connection.
    """
    snapshot = snapshot or make_snapshot()
    fields: Fields = (
        (b"Host", b"auth-svc.svc"),
        *((name.encode("latin-1"), value.encode("latin-1")) for name, value in headers),
    )
    flow = HTTPFlow(
        Client(peername=("127.0.0.1", 40000), sockname=("127.0.0.1", 15006)), Server(address=None)
    )
    flow.request = Request.make(method, f"http://auth-svc.svc{target}")
    exchange = Exchange(flow, snapshot, listener or make_listener(), 1000.0)
    exchange.head = {name.lower(): value for name, value in fields}
    exchange.path, exchange.query, _ = parse_target(target.encode("latin-1"), method)
    owned = {name.lower() for name in snapshot.headers.all}
    flow.request.headers.fields = without_fields(fields, owned | REMOVED)
    exchange.downstream = FakeDownstream(peer, xfcc, client=flow.client_conn)
    exchange.route = route or make_route()
    exchange.request_id = "7f3c"
    exchange.traceparent = exchange.head.get(b"traceparent")
    return exchange


def sent(exchange: Exchange, name: str) -> list[str]:
    """Every value of the field `name` as it would go upstream."""
    return exchange.flow.request.headers.get_all(name)
