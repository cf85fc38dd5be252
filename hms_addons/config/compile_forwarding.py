"""Compiles failover chains, fallbacks, mirrors and hedges, and refuses what contradicts itself.

All of them send a request to a cluster other than the one it was routed to, while the policies have
judged it for the route's service. So that cluster must belong to the same service, as with `clusters:`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from hms_addons.config.part import ANY
from hms_addons.config.schema_forwarding import quantile
from hms_addons.config.snapshot import DEFAULT_TIMEOUT, Cluster, Route, WeightedCluster
from hms_addons.config.snapshot_forwarding import FallbackKind, FallbackStep, Hedge, Mirror
from hms_addons.errors import Flag
from hms_addons.http_message import get_field

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hms_addons.config.problems import Path, Report
    from hms_addons.config.schema import ClusterModel
    from hms_addons.config.schema_forwarding import (
        FallbackModel,
        FallbackResponseModel,
        ForwardedModel,
        HedgeModel,
    )

_FLAGS: Final = {
    "no-healthy-upstream": (Flag.UH,),
    "connect-failure": (Flag.UF,),
    "overflow": (Flag.UO,),
    "reset": (Flag.UC, Flag.UPE),
    "timeout": (Flag.UT,),
}
_STATUSES: Final = {"gateway-error": (502, 503, 504), "5xx": range(500, 600)}
_DEFAULT_ON: Final = (*_FLAGS, "gateway-error")


# -- failover --------------------------------------------------------------------------------------


def with_failover(
    models: Sequence[ClusterModel], clusters: Mapping[str, Cluster], report: Report
) -> dict[str, Cluster]:
    """`clusters` with their failover chains, in order; reports loops and other services' clusters."""
    nexts = {m.name: m.failover for m in models if m.failover is not None}
    told: set[str] = set()
    chains: dict[str, tuple[str, ...]] = {}
    for index, model in enumerate(models):
        if model.failover is None:
            continue
        path: Path = ("clusters", index, "failover")
        chain = [model.name]
        while (name := nexts.get(chain[-1])) is not None and name not in chain:
            chain.append(name)
        if name is not None:
            loop = [*chain[chain.index(name) :], name]
            if told.isdisjoint(loop) and all(item in clusters for item in loop):
                report.error(path, f"failover goes round in a loop: {' → '.join(loop)}")
            told.update(loop)
            continue
        _check_service(clusters, model.failover, clusters[model.name].service, path, report)
        chains[model.name] = tuple(item for item in chain[1:] if item in clusters)
    return {
        name: replace(cluster, failover=chains[name]) if name in chains else cluster
        for name, cluster in clusters.items()
    }


def _check_service(
    clusters: Mapping[str, Cluster], name: str, service: str, path: Path, report: Report
) -> None:
    cluster = clusters.get(name)
    if cluster is None or cluster.service == service:
        return
    if report.known("clusters", ANY, "service"):
        report.error(
            path,
            f"{name} belongs to the service {cluster.service}, and policies would have judged the "
            f"request as for {service}; if it is the same, give it `service: {service}`",
        )


# -- routes ----------------------------------------------------------------------------------------


def with_forwarding(
    route: Route,
    action: ForwardedModel,
    path: Path,
    clusters: Mapping[str, Cluster],
    report: Report,
) -> Route:
    """`route` with the action's fallbacks, mirrors and hedge; most have none.

    Args:
        route: otherwise complete.
        action: as written.
        path: of the route.
        clusters: all there are.
        report: takes the problems.
    """
    if not action.forwards_specially:
        return route
    where: Path = (*path, "action")
    own = {item.cluster for item in route.clusters if item.weight}
    named = [
        *(("fallback", index, item.cluster) for index, item in enumerate(action.fallback or ())),
        *(("mirror", index, item.cluster) for index, item in enumerate(action.mirror or ())),
    ]
    for key, index, name in named:
        if name is None:
            continue
        at: Path = (*where, key, index, "cluster")
        _check_service(clusters, name, route.service, at, report)
        if own == {name}:
            what = "a mirror of requests to itself" if key == "mirror" else "its own fallback"
            report.error(at, f"{name} is where the route leads: it would be {what}")
    after = None if action.hedge is None else action.hedge.after
    if isinstance(after, float) and route.timeout is not None and after >= route.timeout:
        report.error(
            (*where, "hedge", "after"),
            f"a second try after {after:g}s never begins: the route's timeout is {route.timeout:g}s",
        )
    return replace(
        route,
        fallback=tuple(_step(item, route) for item in action.fallback or ()),
        mirrors=tuple(
            Mirror(
                cluster=item.cluster,
                percent=100.0 if item.percent is None else float(item.percent),
                route=_beside(
                    route, item.cluster, item.timeout or route.timeout or DEFAULT_TIMEOUT, copy=True
                ),
            )
            for item in action.mirror or ()
        ),
        hedge=None if action.hedge is None else _hedge(action.hedge),
    )


def _beside(route: Route, cluster: str, timeout: float | None, *, copy: bool) -> Route:
    """The route of a request that goes to another cluster besides."""
    return Route(
        name=route.name,
        listener=route.listener,
        clusters=(WeightedCluster(cluster=cluster),),
        service=route.service,
        timeout=timeout,
        hash_on=route.hash_on,
        # The copy of a request must not come to where the request itself has gone.
        follows_failover=not copy,
    )


def _step(model: FallbackModel, route: Route) -> FallbackStep:
    on = model.on or _DEFAULT_ON
    flags = frozenset(str(flag) for condition in on for flag in _FLAGS.get(condition, ()))
    statuses = frozenset(status for condition in on for status in _STATUSES.get(condition, ()))
    if model.cluster is not None:
        return FallbackStep(
            kind=FallbackKind.CLUSTER,
            flags=flags,
            statuses=statuses,
            route=_beside(route, model.cluster, model.timeout or route.timeout, copy=False),
            own_timeout=model.timeout is not None,
        )
    if model.response is not None:
        return _fixed(model.response, flags, statuses)
    if model.stale is not None:
        return FallbackStep(
            kind=FallbackKind.STALE, flags=flags, statuses=statuses, max_age=model.stale
        )
    return FallbackStep(
        kind=FallbackKind.PLUGIN, flags=flags, statuses=statuses, plugin=model.plugin or ""
    )


def _fixed(
    model: FallbackResponseModel, flags: frozenset[str], statuses: frozenset[int]
) -> FallbackStep:
    fields = tuple((name.encode(), value.encode()) for name, value in (model.headers or {}).items())
    body = (model.body or "").encode("utf-8", "replace")
    if body and get_field(fields, b"content-type") is None:
        fields = ((b"Content-Type", b"text/plain; charset=utf-8"), *fields)
    return FallbackStep(
        kind=FallbackKind.RESPONSE,
        flags=flags,
        statuses=statuses,
        status=model.status or 200,
        fields=fields,
        body=body,
    )


def _hedge(model: HedgeModel) -> Hedge:
    after = "p95" if model.after is None else model.after
    most = model.max or 1
    if isinstance(after, str):
        return Hedge(after=None, quantile=quantile(after), most=most)
    return Hedge(after=after, most=most)
