"""Breakers of routes: one each, as long as it is needed, shown with the clusters it is on top of."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import TYPE_CHECKING

from hms_addons.config.snapshot import Route, Snapshot, Thresholds
from hms_addons.upstream.route_breakers import RouteBreakers
from tests.fakes.configs import snapshot_of
from tests.fakes.upstream import make_route

if TYPE_CHECKING:
    from collections.abc import Iterable

TEXT = """
listeners:
  - name: out
    port: 15001
    routes:
      - {name: limited, match: {prefix: /limited}, action: {clusters: [{name: a}, {name: b}],
         circuit_breakers: {max_requests: 2, max_retries: 1}}}
      - {name: free, action: {cluster: a}}
clusters: [{name: a, endpoints: ['10.0.0.1:80']}, {name: b, service: a, endpoints: ['10.0.0.1:80']}]
"""


def names(breakers: RouteBreakers) -> list[str]:
    return sorted(breaker.name for breaker in breakers.breakers)


def of(snapshot: Snapshot) -> RouteBreakers:
    breakers = RouteBreakers(random.Random(1))
    breakers.follow(snapshot)
    return breakers


def routes(snapshot: Snapshot) -> Iterable[Route]:
    return iter(snapshot.listeners[0].routes)


def test_each_route_with_thresholds_has_one_from_the_start() -> None:
    snapshot = snapshot_of(TEXT)
    breakers = of(snapshot)
    assert names(breakers) == ["route limited"]
    limited, free = routes(snapshot)
    assert breakers.get(limited) is breakers.breakers[0]
    assert breakers.get(free) is None
    assert repr(breakers) == "<RouteBreakers 1>"


def test_it_is_shown_with_every_cluster_it_is_on_top_of() -> None:
    snapshot = snapshot_of(TEXT)
    breakers = of(snapshot)
    for cluster in ("a", "b"):
        (shown,) = json.loads(json.dumps(breakers.describe(cluster)))
        assert (shown["listener"], shown["route"]) == ("out", "limited")
        assert shown["circuit_breakers"]["requests"] == {"in_use": 0, "max": 2}
        assert shown["circuit_breakers"]["retries"] == {"in_use": 0, "max": 1}
    assert breakers.describe("c") == []


def test_the_same_name_on_another_listener_is_another_route() -> None:
    breakers = RouteBreakers(random.Random(1))
    route = make_route(thresholds=Thresholds(max_requests=1))
    assert breakers.get(route) is breakers.get(route)
    assert breakers.get(route) is not breakers.get(replace(route, listener="other"))


def test_new_thresholds_move_the_breaker_that_is_in_use() -> None:
    breakers = of(snapshot_of(TEXT))
    (breaker,) = breakers.breakers
    breaker.begin_request()
    breakers.follow(snapshot_of(TEXT.replace("max_requests: 2", "max_requests: 7")))
    assert breakers.breakers == [breaker]
    assert (breaker.request_limit, breaker.requests) == (7, 1)


def test_a_removed_route_keeps_its_breaker_until_it_is_idle() -> None:
    breakers = of(snapshot_of(TEXT))
    (breaker,) = breakers.breakers
    breaker.begin_request()
    none = Snapshot(version="2", source="")
    breakers.follow(none)
    assert breakers.breakers == [breaker]
    assert breakers.describe("a") == []
    breaker.end_request()
    breakers.follow(none)
    assert breakers.breakers == []


def test_a_request_of_an_older_snapshot_gets_one_of_its_own() -> None:
    breakers = of(Snapshot(version="2", source=""))
    route = make_route(thresholds=Thresholds(max_requests=1))
    assert breakers.get(route) is not None
    assert names(breakers) == ["route verify-id"]
