"""Routes as users write them into route tables, and traffic policies into weights.

An outbound listener gets one table for requests that name no service, and one for each service that
can be named: the routes that lead there, in order, then a default route. A cluster whose name is not
its service's (`auth-svc-v2`) can be named too and then gets all of the request, whatever its share.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from hms_addons.config.compile_balancing import check_route, compile_hash_on, shared_hash_on
from hms_addons.config.compile_forwarding import with_forwarding
from hms_addons.config.compile_health import compile_thresholds
from hms_addons.config.compile_shaping import compile_shaping
from hms_addons.config.compile_values import compile_header_values, compile_values
from hms_addons.config.part import ANY
from hms_addons.config.request_target import SERVICE_SUFFIX
from hms_addons.config.route_match import RouteMatch, covers_host
from hms_addons.config.route_table import RouteTable
from hms_addons.config.safe_regex import compile_regex
from hms_addons.config.snapshot import (
    DEFAULT_TIMEOUT,
    RetryPolicy,
    Route,
    WeightedCluster,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hms_addons.config.problems import Path, Report
    from hms_addons.config.schema import ListenerModel
    from hms_addons.config.schema_routes import (
        ActionModel,
        MatchModel,
        RetriesModel,
        RouteModel,
    )
    from hms_addons.config.snapshot import Cluster

UNKNOWN_SERVICE = ""
"""Where a route leads whose cluster is not there."""
_MOST_ANSWERS = 1_000_000
"""Entries of services' tables that routes which answer by themselves may make: about a second's work."""
_RETRIABLE_STATUS_CODES = "retriable-status-codes"


@dataclass(frozen=True, slots=True)
class Traffic:
    """Which clusters there are, and which of them take a share of another's traffic."""

    clusters: Mapping[str, Cluster]
    canaries: Mapping[str, Sequence[tuple[str, int]]]
    """By base cluster: canary and percent. The percents of one base sum to at most 100."""
    bases: Mapping[str, Sequence[str]]
    """By service: the clusters its requests go to before any canary takes its share."""

    def split(self, written: Sequence[tuple[str, int]]) -> tuple[WeightedCluster, ...]:
        """Work the canaries' shares into a route's weights.

        A canary that the route itself names keeps the weight that is written there.
        """
        names = {name for name, _ in written}
        weights: dict[str, int] = {}
        for name, weight in written:
            left = 100
            for canary, percent in self.canaries.get(name, ()):
                if canary not in names:
                    weights.setdefault(name, 0)
                    weights[canary] = weights.get(canary, 0) + weight * percent
                    left -= percent
            weights[name] = weights.get(name, 0) + weight * left
        divisor = math.gcd(*weights.values()) or 1
        return tuple(
            WeightedCluster(cluster=name, weight=weight // divisor)
            for name, weight in weights.items()
        )


@dataclass(frozen=True, slots=True)
class _Written:
    """A compiled route, and the clusters that were written in it."""

    match: RouteMatch
    route: Route
    clusters: tuple[str, ...]


def compile_outbound(
    listener: ListenerModel, path: Path, traffic: Traffic, report: Report
) -> tuple[RouteTable, dict[str, RouteTable]]:
    """The tables of an outbound listener: its own, and that of each service by lower-case name."""
    written = _compile_all(listener, path, traffic, None, report)
    answering = sum(item.route.answers for item in written)
    if answering * len(traffic.clusters) > _MOST_ANSWERS:
        message = (
            f"{answering} routes answer by themselves, each of which is looked at for every one of the "
            f"{len(traffic.clusters)} clusters that can be named: more than {_MOST_ANSWERS} in all; "
            "join redirects by `match.prefix`, or put them on a listener of their own"
        )
        report.error((*path, "routes"), message)
        return RouteTable(), {}
    table = RouteTable((item.match, item.route) for item in written)
    return table, _service_tables(listener, written, traffic)


def compile_inbound(
    listener: ListenerModel,
    path: Path,
    traffic: Traffic,
    app: Cluster | None,
    report: Report,
    *,
    own: str,
) -> RouteTable:
    """The table of an inbound listener; what no route takes goes to the app, if there is one.

    A route that answers by itself counts as the service's `own`: its policies guard it, too.
    """
    if app is not None:
        traffic = replace(traffic, clusters={**traffic.clusters, app.name: app})
    written = _compile_all(listener, path, traffic, app, report)
    entries = [
        (item.match, replace(item.route, service=own) if item.route.answers else item.route)
        for item in written
    ]
    if app is not None:
        default = _default_route(listener, "app", app.service, (WeightedCluster(cluster=app.name),))
        entries.append((RouteMatch(), replace(default, timeout=None)))
    return RouteTable(entries)


def _compile_all(
    listener: ListenerModel, path: Path, traffic: Traffic, app: Cluster | None, report: Report
) -> list[_Written]:
    names: dict[str, int] = {}
    compiled = []
    for index, model in enumerate(listener.routes):
        here = (*path, "routes", index)
        name = model.name or _derived_name(model.match, index, names)
        if name in names and report.known(*here, "name"):
            first = names[name]
            report.error(
                (*here, "name"), f"the name {name!r} is here twice; first in routes[{first}]"
            )
        names[name] = index
        compiled.append(_compile_one(model, here, (listener, name), traffic, app, report))
    return compiled


def _derived_name(match: MatchModel, index: int, taken: Mapping[str, int]) -> str:
    """Colons keep these apart from written names, which have none."""
    name = "any:"
    for kind in ("prefix", "path", "regex"):
        if (value := getattr(match, kind)) is not None:
            name = f"{kind}:{value}"
    return name if name not in taken else f"{name}#{index}"


def _compile_one(
    model: RouteModel,
    path: Path,
    place: tuple[ListenerModel, str],
    traffic: Traffic,
    app: Cluster | None,
    report: Report,
) -> _Written:
    listener, name = place
    action = model.action
    written = _destinations(action, app)
    # An unknown name is reported already; the route is looked at all the same, but never used.
    there = [traffic.clusters[name] for name, _ in written if name in traffic.clusters]
    services = list(dict.fromkeys(cluster.service for cluster in there))
    if len(services) > 1 and report.known("clusters", ANY, "service"):
        message = (
            f"the clusters belong to different services ({', '.join(services)}), and policies "
            "would judge all requests as for the first; give them the same `service:`"
        )
        report.error((*path, "action", "clusters"), message)
    inbound = listener.direction == "inbound"
    clusters = traffic.split(written)
    route = Route(
        name=name,
        listener=listener.name,
        clusters=clusters,
        service=services[0] if services else UNKNOWN_SERVICE,
        timeout=_timeout(action, inbound=inbound),
        retry=compile_retries(action.retries),
        thresholds=(
            None if action.circuit_breakers is None else compile_thresholds(action.circuit_breakers)
        ),
        shaping=compile_shaping(listener, name, model),
        hash_on=compile_hash_on(action.hash_on) or shared_hash_on(clusters, traffic.clusters),
    )
    if action.hash_on is not None:
        check_route(route, traffic.clusters, (*path, "action", "hash_on"), report)
    route = with_forwarding(route, action, path, traffic.clusters, report)
    return _Written(compile_match(model.match), route, tuple(cluster for cluster, _ in written))


def _destinations(action: ActionModel, app: Cluster | None) -> list[tuple[str, int]]:
    if action.clusters is not None:
        return [(item.name, item.weight) for item in action.clusters]
    if action.cluster is not None:
        return [(action.cluster, 1)]
    return [] if app is None or action.answers else [(app.name, 1)]


def _timeout(action: ActionModel, *, inbound: bool) -> float | None:
    if action.timeout is not None:
        return action.timeout or None
    # Inbound, the caller's sidecar holds the clock: a second, shorter one here would cut its
    # requests off behind its back (Istio's inbound routes have none either).
    return None if inbound else DEFAULT_TIMEOUT


def compile_retries(model: RetriesModel | None) -> RetryPolicy:
    """The retry policy of a route; none written means no retries."""
    if model is None:
        return RetryPolicy()
    values: dict[str, Any] = model.given()
    backoff = values.pop("backoff", None)
    if backoff is not None:
        values |= {f"backoff_{key}": value for key, value in backoff.given().items()}
    if model.status_codes:
        values["status_codes"] = frozenset(model.status_codes)
        values.setdefault("on", RetryPolicy().on | {_RETRIABLE_STATUS_CODES})
    else:
        values.pop("status_codes", None)
    if "on" in values:
        values["on"] = frozenset(values["on"])
    return RetryPolicy(**values)


def compile_match(model: MatchModel) -> RouteMatch:
    """The conditions of a route, ready to be asked."""
    prefix = None if model.prefix is None else model.prefix.rstrip("/")
    return RouteMatch(
        exact=model.path,
        prefix=prefix or None,
        regex=None if model.regex is None else compile_regex(model.regex),
        hosts=() if "*" in model.all_hosts else model.all_hosts,
        methods=frozenset(model.methods or ()),
        headers=compile_header_values(model.headers or {}),
        query=compile_values(model.query or {}),
    )


def _service_tables(
    listener: ListenerModel, written: Sequence[_Written], traffic: Traffic
) -> dict[str, RouteTable]:
    """A route that answers by itself leads nowhere else either, so it is in every table.

    What it keeps from being forwarded, naming a service does not get past it.
    """
    answering: list[_Placed] = []
    by_service: dict[str, list[_Placed]] = {}
    by_cluster: dict[str, list[_Placed]] = {}
    for place, item in enumerate(written):
        placed = (place, item.match, item.route)
        if item.route.answers:
            answering.append(placed)
            continue
        by_service.setdefault(item.route.service, []).append(placed)
        name = next(iter(item.clusters), "")
        if len(item.clusters) == 1 and name not in traffic.bases:
            alone = replace(item.route, clusters=(WeightedCluster(cluster=name),))
            by_cluster.setdefault(name, []).append((place, item.match, alone))
    tables: dict[str, RouteTable] = {}
    for service, bases in traffic.bases.items():
        clusters = traffic.split([(base, 1) for base in bases])
        default = replace(
            _default_route(listener, service, service, clusters),
            hash_on=shared_hash_on(clusters, traffic.clusters),
        )
        entries = _in_order(by_service.get(service, []), answering)
        tables[service.lower()] = _narrowed(service, entries, default)
    for name, cluster in traffic.clusters.items():
        if name.lower() not in tables:
            clusters = (WeightedCluster(cluster=name),)
            default = _default_route(listener, name, cluster.service, clusters)
            entries = _in_order(by_cluster.get(name, []), answering)
            tables[name.lower()] = _narrowed(name, entries, default)
    return tables


type _Placed = tuple[int, RouteMatch, Route]
"""A route and its place among all of its listener."""


def _in_order(some: list[_Placed], others: list[_Placed]) -> list[tuple[RouteMatch, Route]]:
    placed = some if not others else sorted([*some, *others], key=lambda item: item[0])
    return [(match, route) for _, match, route in placed]


def _narrowed(name: str, entries: Sequence[tuple[RouteMatch, Route]], default: Route) -> RouteTable:
    """The routes for requests that name `name`: a condition on that very host is then met."""
    host = name.lower() + SERVICE_SUFFIX
    met = [
        (replace(match, hosts=()), route)
        if any(covers_host(pattern, host) for pattern in match.hosts)
        else (match, route)
        for match, route in entries
    ]
    return RouteTable([*met, (RouteMatch(), default)])


def _default_route(
    listener: ListenerModel, name: str, service: str, clusters: tuple[WeightedCluster, ...]
) -> Route:
    """The route for a named destination that no written route takes."""
    return Route(
        name=f"default:{name}",
        listener=listener.name,
        clusters=clusters,
        service=service,
        default=True,
        shaping=compile_shaping(listener, f"default:{name}", None),
    )
