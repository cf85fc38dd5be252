"""The circuit breakers of routes that have thresholds of their own, on top of their cluster's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hms_addons.upstream.circuit_breaker import CircuitBreaker

if TYPE_CHECKING:
    import random

    from hms_addons.config.snapshot import Route, Snapshot


class RouteBreakers:
    """Breakers by listener and route.

    Args:
        rng: chance, for the breakers' adaptive limits.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._breakers: dict[tuple[str, str], CircuitBreaker] = {}
        self._clusters: dict[tuple[str, str], set[str]] = {}

    def __repr__(self) -> str:
        return f"<RouteBreakers {len(self._breakers)}>"

    def follow(self, snapshot: Snapshot) -> None:
        """Have a breaker for each of its routes with thresholds; of others only those in use stay."""
        routes = [
            route
            for listener in snapshot.listeners
            for table in (listener.routes, *listener.services.values())
            for route in table
            if route.thresholds is not None
        ]
        wanted = {(route.listener, route.name) for route in routes}
        self._breakers = {
            key: breaker
            for key, breaker in self._breakers.items()
            if key in wanted or not breaker.idle
        }
        for route in routes:
            self.get(route)
        clusters: dict[tuple[str, str], set[str]] = {}
        for route in routes:
            found = clusters.setdefault((route.listener, route.name), set())
            found.update(item.cluster for item in route.clusters)
        self._clusters = clusters

    def get(self, route: Route) -> CircuitBreaker | None:
        """The breaker of a route; None if it has no thresholds."""
        thresholds = route.thresholds
        if thresholds is None:
            return None
        key = (route.listener, route.name)
        breaker = self._breakers.get(key)
        if breaker is None:
            breaker = CircuitBreaker(f"route {route.name}", thresholds, self._rng)
            self._breakers[key] = breaker
        elif breaker.thresholds is not thresholds:
            breaker.replace_thresholds(thresholds)
        return breaker

    def describe(self, cluster: str) -> list[dict[str, Any]]:
        """The breakers of the routes that lead to `cluster`, as JSON-ready types, for `/clusters`."""
        return [
            {
                "listener": key[0],
                "route": key[1],
                "circuit_breakers": self._breakers[key].describe(),
            }
            for key, clusters in self._clusters.items()
            if cluster in clusters
        ]

    @property
    def breakers(self) -> list[CircuitBreaker]:
        """All of them."""
        return list(self._breakers.values())
