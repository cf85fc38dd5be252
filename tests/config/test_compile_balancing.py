"""From `load_balancer`, `hash_on`, `slow_start`, `panic_threshold` to the snapshot, and contradictions."""

from __future__ import annotations

import pytest

from hms_addons.config.hash_on import HashKey, HashOn
from hms_addons.config.load import Loaded, load

ROUTE = (
    "listeners: [{name: o, port: 1, routes: [{match: {prefix: /}, action: {%s}}]}]\nclusters: [%s]"
)


def loaded(text: str) -> Loaded:
    return load([("a.yaml", text.encode())], control=True, service="x")


def told(text: str) -> list[str]:
    return [str(problem) for problem in loaded(text).problems]


def cluster(options: str, name: str = "a") -> str:
    return f"{{name: {name}, endpoints: ['h:1', 'h:2'], {options}}}"


def hash_on_of(options: str) -> HashOn | None:
    snapshot = loaded(f"clusters: [{cluster(options)}]").snapshot
    assert snapshot is not None
    return snapshot.clusters["a"].hash_on


def test_defaults_are_off() -> None:
    snapshot = loaded(f"zone: z\nclusters: [{cluster('dns: []')}]").snapshot
    assert snapshot is not None
    found = snapshot.clusters["a"]
    assert (found.load_balancer, found.hash_on) == ("round_robin", None)
    assert (found.slow_start, found.panic_threshold) == (0, 0)
    assert snapshot.zone == "z"


def test_what_is_written_arrives() -> None:
    text = cluster("load_balancer: ewma, slow_start: 30s, panic_threshold: 40")
    snapshot = loaded(f"clusters: [{text}]").snapshot
    assert snapshot is not None
    found = snapshot.clusters["a"]
    assert (found.load_balancer, found.slow_start, found.panic_threshold) == ("ewma", 30.0, 40)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("{header: X-User}", HashOn(kind=HashKey.HEADER, name="x-user")),
        ("{query: User}", HashOn(kind=HashKey.QUERY, name="User")),
        ("{source: true}", HashOn(kind=HashKey.SOURCE)),
        ("{cookie: s}", HashOn(kind=HashKey.COOKIE, name="s")),
        (
            "{cookie: s, ttl: 1h, path: /app, secure: true, same_site: lax}",
            HashOn(
                kind=HashKey.COOKIE,
                name="s",
                attributes="; Max-Age=3600; Path=/app; Secure; SameSite=Lax; HttpOnly",
            ),
        ),
        ("{cookie: s, ttl: 0}", HashOn(kind=HashKey.COOKIE, name="s", attributes="; HttpOnly")),
    ],
)
def test_keys(written: str, expected: HashOn) -> None:
    assert hash_on_of(f"hash_on: {written}") == expected


def test_a_cluster_that_says_what_to_hash_on_has_a_ring() -> None:
    snapshot = loaded(f"clusters: [{cluster('hash_on: {header: u}')}]").snapshot
    assert snapshot is not None
    assert snapshot.clusters["a"].load_balancer == "ring_hash"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            "load_balancer: round_robin, hash_on: {header: u}",
            "clusters[0].hash_on: round_robin does not look at it; use load_balancer: ring_hash or maglev",
        ),
        (
            "load_balancer: maglev, hash_on: {header: u}, slow_start: 10s",
            (
                "clusters[0].slow_start: maglev cannot: a weight that grows would move requests from "
                "endpoint to endpoint all the while"
            ),
        ),
        (
            "hash_on: {header: u}, slow_start: 10s",
            (
                "clusters[0].slow_start: ring_hash cannot: a weight that grows would move requests from "
                "endpoint to endpoint all the while"
            ),
        ),
        (
            "load_balancer: maglev",
            (
                "warning: clusters[0].load_balancer: maglev without `hash_on` chooses at random; add what "
                "to hash on"
            ),
        ),
    ],
)
def test_contradictions_of_a_cluster(options: str, message: str) -> None:
    found = told(f"clusters: [{cluster(options)}]")
    assert [line for line in found if message in line], found
    assert loaded(f"clusters: [{cluster(options)}]").snapshot is None or "warning" in message


def test_a_plugins_balancer_may_look_at_hash_on() -> None:
    assert hash_on_of("load_balancer: sticky, hash_on: {header: u}") is not None


def test_a_routes_hash_on_that_would_do_nothing_is_refused() -> None:
    (error,) = told(ROUTE % ("cluster: a, hash_on: {header: u}", cluster("dns: []")))
    assert error.endswith(
        "routes[0].action.hash_on: does nothing: a chooses by round_robin; give that cluster "
        "load_balancer: ring_hash or maglev"
    )


def test_a_routes_hash_on_for_the_local_app_is_refused() -> None:
    text = "listeners: [{name: p, port: 1, direction: inbound, app: 'h:1', routes: [{action: {hash_on: {source: true}}}]}]"
    (error,) = told(text)
    assert error.endswith("hash_on: does nothing: the local app is one endpoint")


def test_a_routes_hash_on_that_keeps_the_cluster_only_is_told() -> None:
    two = f"{cluster('dns: []')}, {cluster('service: a', 'b')}"
    text = ROUTE % ("clusters: [{name: a}, {name: b}], hash_on: {header: u}", two)
    (warning,) = told(text)
    assert "requests keep to one of a and b, but not to one endpoint there" in warning


def test_a_routes_hash_on_serves_a_hashing_cluster() -> None:
    text = ROUTE % ("cluster: a, hash_on: {header: u}", cluster("load_balancer: maglev"))
    found = loaded(text)
    assert not found.problems
    assert found.snapshot is not None
    (route,) = found.snapshot.listeners[0].routes
    assert route.hash_on == HashOn(kind=HashKey.HEADER, name="u")


def test_a_canary_takes_the_same_users_all_the_time() -> None:
    """The clusters' own key also chooses among them, where a route has none."""
    two = f"{cluster('hash_on: {header: u}')}, {{name: a-v2, endpoints: ['h:3'], trafficPolicy: weight=10}}"
    found = loaded(ROUTE % ("cluster: a", two))
    assert found.snapshot is not None
    (listener,) = found.snapshot.listeners
    for route in (*listener.routes, *listener.services["a"]):
        assert route.hash_on == HashOn(kind=HashKey.HEADER, name="u"), route.name
    (direct,) = listener.services["a-v2"]
    assert direct.hash_on is None


def test_clusters_that_disagree_leave_the_choice_to_chance() -> None:
    two = f"{cluster('hash_on: {header: u}')}, {cluster('service: a, hash_on: {header: v}', 'b')}"
    found = loaded(ROUTE % ("clusters: [{name: a}, {name: b}]", two))
    assert found.snapshot is not None
    assert [route.hash_on for route in found.snapshot.listeners[0].routes] == [None]
