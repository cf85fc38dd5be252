"""Transparent and DNS listeners as users write them, into the snapshot's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from hms_addons.config.compile_shaping import compile_shaping
from hms_addons.config.request_target import SERVICE_SUFFIX
from hms_addons.config.route_table import RouteTable
from hms_addons.config.schema_base import parse_address
from hms_addons.config.snapshot import Cluster, Route, WeightedCluster
from hms_addons.config.snapshot_interception import (
    LOOPBACK,
    MESH_ADDRESS,
    ORIGINAL_DESTINATION,
    DnsListener,
    Intercept,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hms_addons.config.schema import ListenerModel
    from hms_addons.config.snapshot import Listener

ORIGINAL_PREFIX: Final = "original:"
"""Begins the name of the cluster of whatever a transparent listener passes through."""
_DNS_NAME: Final = "dns"


def original_cluster(model: ListenerModel) -> Cluster | None:
    """The cluster for what is passed through; None if nothing is.

    It has no outlier detection: that somebody outside fails says nothing about the others.
    """
    if model.kind != "transparent" or model.unmatched != "original":
        return None
    return Cluster(
        name=f"{ORIGINAL_PREFIX}{model.name}",
        service="",
        load_balancer=ORIGINAL_DESTINATION,
        outlier_detection=None,
    )


def compile_intercept(
    model: ListenerModel, routes: RouteTable, original: Cluster | None
) -> Intercept | None:
    """What a transparent listener does with intercepted calls; None for any other.

    Args:
        model: the listener.
        routes: all its routes.
        original: see `original_cluster`.
    """
    if model.kind != "transparent":
        return None
    named = RouteTable((match, route) for match, route in routes.entries if match.hosts)
    if original is None:
        return Intercept(routes=named)
    name = original.name
    passthrough = Route(
        name=name,
        listener=model.name,
        clusters=(WeightedCluster(cluster=name),),
        service="",
        # As if nobody stood between: the app has its own patience.
        timeout=None,
        default=True,
        shaping=compile_shaping(model, name, None),
    )
    return Intercept(routes=named, passthrough=passthrough)


def compile_dns(
    models: Iterable[ListenerModel], listeners: Iterable[Listener]
) -> tuple[DnsListener, ...]:
    """The DNS listeners among `models`; they know the names of `listeners`."""
    listeners = tuple(listeners)
    return tuple(_dns(model, listeners) for model in models if model.kind == "dns")


def default_dns(listeners: Iterable[Listener]) -> DnsListener:
    """What is answered where DNS is somebody else's port and nothing was written about it."""
    return _of(tuple(listeners), {"name": _DNS_NAME, "host": LOOPBACK, "port": 0})


def _dns(model: ListenerModel, listeners: tuple[Listener, ...]) -> DnsListener:
    settings: dict[str, Any] = {
        "name": model.name,
        "host": model.host or LOOPBACK,
        "port": model.port,
        "forwards": model.unmatched != "refuse",
    }
    names: list[str] = []
    if (dns := model.dns) is not None:
        names = dns.names or []
        if dns.addresses is not None:
            settings["addresses"] = tuple(dns.addresses)
        if dns.resolvers is not None:
            settings["resolvers"] = tuple(map(parse_address, dns.resolvers))
        if dns.ttl is not None:
            settings["ttl"] = dns.ttl
    return _of(listeners, settings, names)


def _of(
    listeners: tuple[Listener, ...], settings: dict[str, Any], names: Iterable[str] = ()
) -> DnsListener:
    if "addresses" not in settings and any(item.intercept is not None for item in listeners):
        settings["addresses"] = (MESH_ADDRESS,)
    hosts = {
        host
        for listener in listeners
        if listener.direction == "outbound"
        for match, _ in listener.routes.entries
        for host in match.hosts
    }
    known = {host.lower() for host in (*hosts, *names) if not host.endswith(SERVICE_SUFFIX)}
    return DnsListener(
        services=frozenset(service for listener in listeners for service in listener.services),
        names=frozenset(name for name in known if not name.startswith("*")),
        suffixes=tuple(sorted(name[1:] for name in known if name.startswith("*"))),
        **settings,
    )
