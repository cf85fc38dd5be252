"""A canary's share, moved by hand: a snapshot like another, but for the weights of some routes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hms_addons.config.problems import closest
from hms_addons.config.route_table import RouteTable
from hms_addons.config.snapshot import Route, Snapshot, WeightedCluster
from hms_addons.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

_ALL = 100
"""Percent."""


def splits(snapshot: Snapshot) -> dict[str, list[str]]:
    """What can be moved: by route, and by cluster or service, the clusters that have a share."""
    found: dict[str, list[str]] = {}
    for route in _routes(snapshot):
        names = [item.cluster for item in route.clusters]
        if len(names) > 1:
            for where in (route.name, route.service, *names):
                known = found.setdefault(where, [])
                known.extend(name for name in names if name not in known)
    return found


def with_share(snapshot: Snapshot, where: str, subset: str, percent: int) -> Snapshot:
    """`snapshot` with `percent` of what `where` gets going to `subset`; the others keep their proportions.

    Args:
        snapshot: the one in force.
        where: a route's name, or a service's or cluster's: then every route that leads there.
        subset: the cluster whose share is moved.
        percent: 0 to 100.

    Raises:
        ConfigError: there is no such thing, or nothing would be left to send requests to.
    """
    known = splits(snapshot)
    if where not in known:
        message = f"no route splits the traffic of {where!r}"
        if not known:
            raise ConfigError(f"{message}: none has several clusters, or a canary (trafficPolicy)")
        guess = closest(where, known)
        raise ConfigError(
            f"{message}{f' (did you mean {guess}?)' if guess else ''}; there are: {', '.join(known)}"
        )
    if subset not in known[where]:
        guess = closest(subset, known[where])
        raise ConfigError(
            f"{where!r} has no share for {subset!r}{f' (did you mean {guess}?)' if guess else ''}; it has "
            f"{', '.join(known[where])}"
        )
    if not 0 <= percent <= _ALL:
        raise ConfigError(f"{percent} is no share: give a whole number of percent, 0 to 100")
    listeners = [
        replace(
            listener,
            routes=_moved(listener.routes, where, subset, percent),
            services={
                name: _moved(table, where, subset, percent)
                for name, table in listener.services.items()
            },
        )
        for listener in snapshot.listeners
    ]
    told = snapshot.source.partition(" | by hand: ")
    hand = [*filter(None, told[2].split(", ")), f"{subset} {percent}% of {where}"]
    mine = [part for part in hand[:-1] if not part.startswith(f"{subset} ")] + hand[-1:]
    return replace(
        snapshot, listeners=tuple(listeners), source=f"{told[0]} | by hand: {', '.join(mine)}"
    )


def _routes(snapshot: Snapshot) -> Iterator[Route]:
    for listener in snapshot.listeners:
        for table in (listener.routes, *listener.services.values()):
            yield from table


def _moved(table: RouteTable, where: str, subset: str, percent: int) -> RouteTable:
    return RouteTable(
        (match, _with(route, subset, percent) if _is_meant(route, where, subset) else route)
        for match, route in table.entries
    )


def _is_meant(route: Route, where: str, subset: str) -> bool:
    names = [item.cluster for item in route.clusters]
    return len(names) > 1 and subset in names and where in {route.name, route.service, *names}


def _with(route: Route, subset: str, percent: int) -> Route:
    others = [item for item in route.clusters if item.cluster != subset]
    total = sum(item.weight for item in others)
    if not total and percent < _ALL:
        # They had nothing; somebody must have what is left.
        others = [replace(others[0], weight=1), *others[1:]]
        total = 1
    scaled = {item.cluster: item.weight * (_ALL - percent) for item in others}
    scaled[subset] = percent * max(total, 1)
    return replace(
        route,
        clusters=tuple(
            WeightedCluster(cluster=item.cluster, weight=scaled[item.cluster])
            for item in route.clusters
        ),
    )
