"""How endpoints are chosen: from what users write to the snapshot, and what cannot work together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hms_addons.config.hash_on import HashKey, HashOn
from hms_addons.config.installed import BALANCERS, HASHING
from hms_addons.config.part import ANY

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from hms_addons.config.problems import Path, Report
    from hms_addons.config.schema import ClusterModel, Config
    from hms_addons.config.schema_balancing import HashOnModel
    from hms_addons.config.snapshot import Cluster, Route, WeightedCluster

DEFAULT_HASHING = "ring_hash"
"""The balancer of a cluster that says what to hash on, and not how."""


def compile_balancing(model: ClusterModel) -> dict[str, Any]:
    """What a `snapshot.Cluster` is told of balancing; what was left out has its default there."""
    given: dict[str, Any] = {
        key: value
        for key in ("load_balancer", "slow_start", "panic_threshold")
        if (value := getattr(model, key)) is not None
    }
    if model.hash_on is not None:
        given["hash_on"] = compile_hash_on(model.hash_on)
        given.setdefault("load_balancer", DEFAULT_HASHING)
    return given


def compile_hash_on(model: HashOnModel | None) -> HashOn | None:
    """A `hash_on`, ready to be asked."""
    if model is None:
        return None
    if model.header is not None:
        return HashOn(kind=HashKey.HEADER, name=model.header.lower())
    if model.query is not None:
        return HashOn(kind=HashKey.QUERY, name=model.query)
    if model.cookie is None:
        return HashOn(kind=HashKey.SOURCE)
    return HashOn(kind=HashKey.COOKIE, name=model.cookie, attributes=_attributes(model))


def _attributes(model: HashOnModel) -> str | None:
    """What follows a made cookie's value. Like Envoy's it is out of scripts' reach (`HttpOnly`)."""
    if model.ttl is None:
        return None
    parts = [f"Max-Age={max(1, round(model.ttl))}"] if model.ttl else []
    if model.path is not None:
        parts.append(f"Path={model.path}")
    if model.secure:
        parts.append("Secure")
    if model.same_site is not None:
        parts.append(f"SameSite={model.same_site.capitalize()}")
    return "".join(f"; {part}" for part in [*parts, "HttpOnly"])


def shared_hash_on(
    among: Sequence[WeightedCluster], clusters: Mapping[str, Cluster]
) -> HashOn | None:
    """What a route without a `hash_on` of its own chooses by among several clusters.

    It is the clusters' own, if there is but one: else requests would keep to an endpoint, and not to
    the cluster that it belongs to.
    """
    if len(among) == 1:
        return None
    found = {
        hash_on
        for item in among
        if item.cluster in clusters and (hash_on := clusters[item.cluster].hash_on) is not None
    }
    return found.pop() if len(found) == 1 else None


def check_clusters(models: Iterable[ClusterModel], report: Report) -> None:
    """Refuse what a cluster's balancer cannot do."""
    for index, model in enumerate(models):
        name, path = model.load_balancer, ("clusters", index)
        if not report.known(*path, "load_balancer"):
            continue
        if name in BALANCERS - HASHING and model.hash_on is not None:
            message = f"{name} does not look at it; use load_balancer: ring_hash or maglev"
            report.error((*path, "hash_on"), message)
        hashing = name in HASHING or (name is None and model.hash_on is not None)
        if model.slow_start and hashing and report.known(*path, "hash_on"):
            message = (
                f"{name or DEFAULT_HASHING} cannot: a weight that grows would move requests from "
                "endpoint to endpoint all the while"
            )
            report.error((*path, "slow_start"), message)


def check_route(route: Route, clusters: Mapping[str, Cluster], path: Path, report: Report) -> None:
    """Refuse a route's `hash_on`, at `path`, that would do nothing."""
    there = [clusters[item.cluster] for item in route.clusters if item.cluster in clusters]
    keys = ("load_balancer", "hash_on", "name")
    if not there or not all(report.known("clusters", ANY, key) for key in keys):
        return
    deaf = [c for c in there if c.load_balancer in BALANCERS - HASHING]
    if len(deaf) < len(there):
        return
    names = " and ".join(cluster.name for cluster in deaf)
    if len(there) > 1:
        message = (
            f"requests keep to one of {names}, but not to one endpoint there; for that give these "
            "clusters load_balancer: ring_hash or maglev"
        )
        report.warning(path, message)
    elif deaf[0].name.startswith("app:"):
        report.error(path, "does nothing: the local app is one endpoint")
    else:
        message = (
            f"does nothing: {names} chooses by {deaf[0].load_balancer}; give that cluster "
            "load_balancer: ring_hash or maglev"
        )
        report.error(path, message)


def warn_of_keyless(config: Config, clusters: Mapping[str, Cluster], report: Report) -> None:
    """Warn of balancers that hash on nothing: they choose at random."""
    routes: Path = ("listeners", ANY, "routes", ANY, "action")
    if not report.whole or not all(
        report.known(*routes, key) for key in ("cluster", "clusters", "hash_on")
    ):
        return
    keyed: set[str] = set()
    for listener in config.listeners:
        for route in listener.routes:
            action = route.action
            if action.hash_on is not None:
                keyed.update(item.name for item in action.clusters or ())
                keyed.update([action.cluster] if action.cluster is not None else [])
    services = {clusters[name].service for name in keyed if name in clusters}
    for index, model in enumerate(config.clusters):
        path: Path = ("clusters", index, "load_balancer")
        if (
            model.load_balancer in HASHING
            and model.hash_on is None
            and model.name not in keyed
            and not (model.trafficPolicy is not None and clusters[model.name].service in services)
            and report.known("clusters", index, "hash_on")
        ):
            message = (
                f"{model.load_balancer} without `hash_on` chooses at random; add what to hash on"
            )
            report.warning(path, message)
