"""Where does a request go? The built-in plugin of the route phase.

A request that names a service is looked up among the routes that lead there, any other among all
routes of its listener; the tables are ready in the snapshot. It runs after other plugins' route
hooks, so that theirs can take requests that no configured route takes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hms_addons.config.problems import closest, listing
from hms_addons.errors import Fault
from hms_addons.hookspecs import hookimpl
from hms_addons.request_hash import cluster_share, hash_by

if TYPE_CHECKING:
    from random import Random

    from hms_addons.config.snapshot import Listener, Route
    from hms_addons.exchange import Exchange

_SHOWN_SERVICES = 8
_COMPARED_SERVICES = 50
"""Services among which a close name is looked for: it takes 10 µs each, and callers can ask often."""
_SHOWN_LENGTH = 100
"""Characters of a caller's text that an answer repeats."""


class Routing:
    """Finds the route by the snapshot's tables, and the cluster by weight.

    Args:
        random: chooses among weighted clusters.
    """

    def __init__(self, random: Random) -> None:
        self._random = random.random

    @hookimpl(trylast=True)
    def hms_route(self, exchange: Exchange) -> Route | None:
        """The first matching route; sets `exchange.cluster`. Fails with 404 `NR` if there is none.

        An intercepted call that is not the mesh's goes on to its destination, or fails with 502 `NR`.
        """
        listener = exchange.listener
        service = exchange.service
        intercept = None
        if service is None:
            table = listener.routes
            if listener.intercept is not None and exchange.downstream.original is not None:
                intercept = listener.intercept
                table = intercept.routes
        else:
            found = listener.services.get(service)
            if found is None:
                exchange.fail(Fault.UNKNOWN_SERVICE, _unknown(service, listener))
                return None
            table = found
        route = table.match(exchange.path, exchange.query, exchange.method, exchange.head)
        if route is None and intercept is not None:
            route = intercept.passthrough
            if route is None:
                exchange.fail(Fault.NOT_OF_THE_MESH, _not_of_the_mesh(exchange))
                return None
        if route is None:
            exchange.fail(Fault.NO_ROUTE, _no_route(exchange))
            return None
        clusters = route.clusters
        if not clusters:
            return route  # it answers by itself
        name = clusters[0].cluster if len(clusters) == 1 else self._pick(exchange, route)
        exchange.cluster = exchange.snapshot.clusters[name]
        return route

    def _pick(self, exchange: Exchange, route: Route) -> str:
        """One of the route's clusters, each as often as its share of the weights.

        With `hash_on`, requests with the same key keep to the same cluster.
        """
        clusters, hash_on = route.clusters, route.hash_on
        hashed = None if hash_on is None else hash_by(exchange, hash_on)
        share = self._random() if hashed is None else cluster_share(hashed)
        point = share * sum([item.weight for item in clusters])
        for item in clusters:
            point -= item.weight
            if point < 0:
                return item.cluster
        # Rounding can leave the point on the very end: the last one that has a weight owns it.
        return next(item.cluster for item in reversed(clusters) if item.weight)


def _unknown(service: str, listener: Listener) -> str:
    few = len(listener.services) <= _COMPARED_SERVICES
    guess = closest(service, listener.services) if few else None
    hint = f" (did you mean {guess}.svc?)" if guess else ""
    return (
        f"the listener {listener.name} knows no service {_short(service)!r}{hint}; it leads to: "
        f"{listing(listener.services, _SHOWN_SERVICES)}. "
        "Add a cluster of that name to the configuration"
    )


def _no_route(exchange: Exchange) -> str:
    listener = exchange.listener
    host = exchange.header("host") or ""
    return (
        f"no route of the listener {listener.name} matches {_short(exchange.method)} "
        f"{_short(exchange.path)} for the host {_short(host)!r} ({len(listener.routes)} routes); "
        "`hms explain` says why each was passed over, and a service can be named by ?host=NAME.svc"
    )


def _not_of_the_mesh(exchange: Exchange) -> str:
    host, port = exchange.downstream.original
    named = _short(exchange.header("host") or "")
    return (
        f"the call was intercepted on its way to {host}:{port}, and {named!r} is no host of the mesh; the "
        f"listener {exchange.listener.name} refuses such calls. `unmatched: original` there sends them on, "
        f"a route with `match: {{host: …}}` takes some, and `hms iptables up --exclude {host}` leaves them alone"
    )


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN_LENGTH else f"{text[:_SHOWN_LENGTH]}…"
