from __future__ import annotations

from collections import Counter
from random import Random
from typing import TYPE_CHECKING

import pytest

from hms_addons.addons.routing import Routing
from hms_addons.hookspecs import PROJECT
from tests.fakes.configs import snapshot_of
from tests.fakes.exchange import make_exchange
from tests.fakes.intercepted import caught, transparent

if TYPE_CHECKING:
    from hms_addons.config.snapshot import Snapshot
    from hms_addons.exchange import Exchange

SNAPSHOT = snapshot_of(
    """\
    listeners:
      - name: out
        port: 1
        routes:
          - {name: verify, match: {prefix: /verify-id, methods: [GET]}, action: {cluster: auth-svc}}
          - {name: pay, match: {path: /pay, query: {dry: {present: true}}}, action: {cluster: pay}}
    clusters:
      - {name: auth-svc}
      - {name: auth-svc-v2, trafficPolicy: weight=10}
      - {name: pay}
    """
)


class NoRandom(Random):
    """A route to one cluster needs no choice."""

    def random(self) -> float:
        raise AssertionError


def routed(
    target: str = "/",
    service: str | None = None,
    method: str = "GET",
    *,
    random: Random | None = None,
    snapshot: Snapshot = SNAPSHOT,
) -> tuple[str | None, Exchange]:
    exchange = make_exchange(
        target, method=method, snapshot=snapshot, listener=snapshot.listeners[0]
    )
    exchange.service = service
    exchange.route = None
    route = Routing(random or Random(1)).hms_route(exchange)
    return (None if route is None else route.name), exchange


def test_the_first_matching_route_and_its_cluster() -> None:
    name, exchange = routed("/pay?dry", random=NoRandom())
    assert name == "pay"
    assert exchange.cluster is SNAPSHOT.clusters["pay"]
    assert exchange.failure is None


def test_a_named_service_narrows_the_routes() -> None:
    assert routed("/verify-id", "auth-svc")[0] == "verify"
    assert routed("/verify-id", "pay")[0] == "default:pay"
    assert routed("/anything", "auth-svc")[0] == "default:auth-svc"


@pytest.mark.parametrize(
    ("target", "method"),
    [("/", "GET"), ("/verify-id", "POST"), ("/verify-identity", "GET"), ("/pay", "GET")],
)
def test_no_route(target: str, method: str) -> None:
    name, exchange = routed(target, method=method)
    assert name is None
    assert exchange.cluster is None
    assert exchange.failure is not None
    assert (exchange.failure.status, exchange.failure.flag) == (404, "NR")
    assert f"no route of the listener out matches {method} {target}" in exchange.failure.detail
    assert "(2 routes)" in exchange.failure.detail


def test_an_unknown_service_is_never_forwarded_to() -> None:
    name, exchange = routed("/verify-id", "auth-scv")
    assert name is None
    assert exchange.failure is not None
    assert (exchange.failure.status, exchange.failure.flag) == (404, "NR")
    assert exchange.failure.detail == (
        "the listener out knows no service 'auth-scv' (did you mean auth-svc.svc?); it leads to: "
        "auth-svc, auth-svc-v2, pay. Add a cluster of that name to the configuration"
    )


def test_long_texts_of_a_caller_are_cut() -> None:
    _, exchange = routed("/" + "a" * 5000)
    assert exchange.failure is not None
    assert len(exchange.failure.detail) < 500
    _, exchange = routed("/", "a" * 5000)
    assert exchange.failure is not None
    assert len(exchange.failure.detail) < 500


def test_clusters_are_chosen_by_weight() -> None:
    random = Random(7)
    counts = Counter(routed("/verify-id", random=random)[1].cluster.name for _ in range(5000))  # type: ignore[union-attr]
    assert set(counts) == {"auth-svc", "auth-svc-v2"}
    assert 420 < counts["auth-svc-v2"] < 580


class Fixed(Random):
    """Always the same point."""

    def __init__(self, point: float) -> None:
        super().__init__()
        self._point = point

    def random(self) -> float:
        return self._point


WEIGHTS = snapshot_of(
    """\
    listeners:
      - name: out
        port: 1
        routes:
          - action:
              clusters:
                - {name: a-v1, weight: 0}
                - {name: a-v2, weight: 1}
                - {name: a-v3, weight: 3}
                - {name: a-v4, weight: 0}
    clusters: [{name: a-v1}, {name: a-v2}, {name: a-v3}, {name: a-v4}]
    """
)


@pytest.mark.parametrize(
    ("point", "cluster"),
    [(0.0, "a-v2"), (0.2499, "a-v2"), (0.25, "a-v3"), (0.9999999999999999, "a-v3"), (1.0, "a-v3")],
)
def test_the_edges_of_the_weights(point: float, cluster: str) -> None:
    _, exchange = routed(random=Fixed(point), snapshot=WEIGHTS)
    assert exchange.cluster is not None
    assert exchange.cluster.name == cluster


def test_other_plugins_route_first() -> None:
    """`Routing` fails what it does not know, so it must be asked last."""
    assert getattr(Routing.hms_route, f"{PROJECT}_impl")["trylast"] is True


def test_a_route_that_answers_by_itself_has_no_cluster() -> None:
    snapshot = snapshot_of(
        "listeners: [{name: out, port: 1, routes: [{name: moved, action: {redirect: {}}}]}]"
    )
    name, exchange = routed("/x", snapshot=snapshot, random=NoRandom())
    assert name == "moved"
    assert exchange.cluster is None
    assert exchange.failure is None


HASHED = snapshot_of(
    """\
    listeners:
      - name: out
        port: 1
        routes:
          - match: {prefix: /}
            action:
              clusters: [{name: a, weight: 3}, {name: b, weight: 1}]
              hash_on: {header: X-User}
    clusters:
      - {name: a, load_balancer: maglev}
      - {name: b, service: a, load_balancer: maglev}
    """
)


def clusters_of(user: str, times: int = 1) -> Counter[str]:
    routing, chosen = Routing(Random(1)), Counter[str]()
    exchange = make_exchange(
        headers=[("X-User", user)], snapshot=HASHED, listener=HASHED.listeners[0]
    )
    for _ in range(times):
        assert routing.hms_route(exchange) is not None
        assert exchange.cluster is not None
        chosen[exchange.cluster.name] += 1
    return chosen


def test_with_hash_on_requests_with_the_same_key_keep_to_a_cluster() -> None:
    assert all(len(clusters_of(f"user-{n}", 20)) == 1 for n in range(20))


def test_and_the_keys_are_shared_by_weight() -> None:
    chosen = sum((clusters_of(f"user-{n}") for n in range(1000)), Counter[str]())
    assert abs(chosen["a"] - 750) < 60


def test_without_the_key_the_weights_decide_each_time() -> None:
    assert abs(clusters_of("", 1000)["a"] - 750) < 60


# -- what was meant for somebody else --------------------------------------------------------------


def taken(unmatched: str, host: str, *rest: object) -> tuple[str | None, Exchange]:
    exchange = caught(transparent(unmatched), host, *rest)  # type: ignore[arg-type]
    route = Routing(NoRandom()).hms_route(exchange)
    return (None if route is None else route.name), exchange


@pytest.mark.parametrize("unmatched", ["refuse", "original"])
def test_an_intercepted_call_goes_to_the_service_or_the_host_that_it_names(unmatched: str) -> None:
    assert taken(unmatched, "auth-svc.svc")[0] == "default:auth-svc"
    assert taken(unmatched, "auth-svc.svc:80", "/verify-id")[0] == "any"
    assert taken(unmatched, "api.partner.example", "/verify-id")[0] == "named"


def test_the_path_alone_does_not_make_it_the_meshs() -> None:
    assert taken("original", "example.com", "/verify-id")[0] == "original:caught"
    name, exchange = taken("refuse", "example.com", "/verify-id")
    assert name is None
    assert exchange.failure is not None
    assert (exchange.failure.status, exchange.failure.flag) == (502, "NR")
    for word in (
        "203.0.113.9:80",
        "'example.com'",
        "`unmatched: original`",
        "--exclude 203.0.113.9",
    ):
        assert word in exchange.failure.detail


def test_an_unknown_service_is_never_passed_on() -> None:
    name, exchange = taken("original", "claim-svc.svc")
    assert name is None
    assert exchange.failure is not None
    assert exchange.failure.status == 404


def test_who_calls_a_transparent_listener_itself_meets_an_outbound_one() -> None:
    assert taken("original", "127.0.0.1:15001", "/verify-id", None)[0] == "any"
    name, exchange = taken("original", "127.0.0.1:15001", "/other", None)
    assert name is None
    assert exchange.failure is not None
    assert exchange.failure.status == 404
