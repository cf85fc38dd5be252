"""The routes of one listener or service, ready to be looked up.

The first route in order whose every condition holds wins, and 5,000 routes cost what one does:
routes are filed by exact host (or none), and within that by exact path, by prefix, or under "the
rest" (regexes and routes for any path). A request looks into the few drawers that can hold its
route, and in each only until something as early as the best find.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from hms_addons.config.route_match import RouteMatch, host_of
from hms_addons.config.snapshot import Route  # noqa: TC001 - a NamedTuple's annotations are looked at where it is compiled

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping


class PassedOver(NamedTuple):
    """What became of one route when a request was explained."""

    route: Route
    reason: str | None
    """Why it was not taken; None for the one that was."""


class _Entry(NamedTuple):
    order: int
    route: Route
    match: RouteMatch | None
    """What is left to ask after the look-up; None when nothing is."""


class _Drawer:
    """Routes for the same host, by path. Each list is in the order of the routes."""

    __slots__ = ("exact", "longest", "prefixes", "rest")

    def __init__(self) -> None:
        self.exact: dict[str, list[_Entry]] = {}
        self.prefixes: dict[str, list[_Entry]] = {}
        self.rest: list[_Entry] = []
        self.longest = 0
        """Characters of the longest prefix: no look-up beyond it can succeed."""

    def add(self, entry: _Entry, match: RouteMatch) -> None:
        if match.exact is not None:
            self.exact.setdefault(match.exact, []).append(entry)
        elif match.prefix is not None:
            self.prefixes.setdefault(match.prefix, []).append(entry)
            self.longest = max(self.longest, len(match.prefix))
        else:
            self.rest.append(entry)

    def candidates(self, path: str) -> Iterator[list[_Entry]]:
        """The lists that can hold a route for `path`."""
        if (found := self.exact.get(path)) is not None:
            yield found
        if prefixes := self.prefixes:
            longest = self.longest
            end = path.find("/", 1)
            while 0 < end <= longest:
                if (found := prefixes.get(path[:end])) is not None:
                    yield found
                end = path.find("/", end + 1)
            if end < 0 and len(path) <= longest and (found := prefixes.get(path)) is not None:
                yield found
        if self.rest:
            yield self.rest


class RouteTable:
    """Routes with their conditions, in order; immutable once made."""

    __slots__ = ("_any_host", "_by_host", "_routes")

    def __init__(self, routes: Iterable[tuple[RouteMatch, Route]] = ()) -> None:
        self._routes = tuple(routes)
        self._any_host = _Drawer()
        self._by_host: dict[str, _Drawer] = {}
        for order, (match, route) in enumerate(self._routes):
            entry = _Entry(order, route, match if match.has_rest else None)
            hosts = match.exact_hosts
            if hosts is None:
                self._any_host.add(entry, match)
            else:
                for host in dict.fromkeys(hosts):
                    self._by_host.setdefault(host, _Drawer()).add(entry, match)

    def __len__(self) -> int:
        return len(self._routes)

    def __iter__(self) -> Iterator[Route]:
        """The routes, in order."""
        return (route for _, route in self._routes)

    def __repr__(self) -> str:
        names = ", ".join(route.name for _, route in self._routes[:3])
        more = ", …" if len(self._routes) > 3 else ""  # noqa: PLR2004 - enough to recognise it
        return f"<RouteTable {len(self._routes)} routes: {names}{more}>"

    @property
    def entries(self) -> tuple[tuple[RouteMatch, Route], ...]:
        """Every route with its conditions, in order."""
        return self._routes

    def match(
        self, path: str, query: str, method: str, head: Mapping[bytes, bytes]
    ) -> Route | None:
        """The first route in order whose every condition holds, or None.

        Args:
            path: normalised (`request_target.normalise_path`), without query.
            query: as sent, without `?`.
            method: as sent; methods are case-sensitive (RFC 9110 section 9.1).
            head: field values by lower-cased name; `host` decides the host conditions.
        """
        best = self._first(self._any_host, path, query, method, head, None)
        if self._by_host:
            drawer = self._by_host.get(host_of(head))
            if drawer is not None:
                best = self._first(drawer, path, query, method, head, best)
        return None if best is None else best.route

    @staticmethod
    def _first(
        drawer: _Drawer,
        path: str,
        query: str,
        method: str,
        head: Mapping[bytes, bytes],
        best: _Entry | None,
    ) -> _Entry | None:
        for entries in drawer.candidates(path):
            for entry in entries:
                if best is not None and entry.order >= best.order:
                    break
                match = entry.match
                if match is None or match.rest_matches(path, query, method, head):
                    best = entry
                    break
        return best

    def explain(
        self, path: str, query: str, method: str, head: Mapping[bytes, bytes]
    ) -> Iterator[PassedOver]:
        """Every route in order, with the reason why it was not taken (None for the one that was).

        Decided without the index, so that it can be checked against `match`.
        """
        taken: Route | None = None
        for match, route in self._routes:
            if taken is not None:
                yield PassedOver(route, f"an earlier route, {taken.name}, had matched")
                continue
            reason = match.why_not(path, query, method, head)
            if reason is None:
                taken = route
            yield PassedOver(route, reason)
