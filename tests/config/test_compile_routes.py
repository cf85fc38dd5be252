from __future__ import annotations

from random import Random
from textwrap import indent
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hms_addons.config.compile_routes import Traffic
from hms_addons.config.snapshot import RetryPolicy, Thresholds
from tests.fakes.configs import errors_of, snapshot_of

if TYPE_CHECKING:
    from hms_addons.config.snapshot import Route, Snapshot


def weights(route: Route | None) -> dict[str, int]:
    assert route is not None
    return {item.cluster: item.weight for item in route.clusters}


def find(snapshot: Snapshot, path: str, service: str | None = None, host: str = "") -> Route | None:
    listener = snapshot.listeners[0]
    table = listener.routes if service is None else listener.services[service]
    return table.match(path, "", "GET", {b"host": host.encode()})


CANARY = """\
    listeners:
      - name: out
        port: 1
        routes:
          - match: {prefix: /verify-id}
            action: {cluster: auth-svc, timeout: 1s, retries: 2}
          - match: {prefix: /mixed}
            action: {clusters: [{name: auth-svc, weight: 3}, {name: auth-svc-v3, weight: 1}]}
          - match: {prefix: /beta}
            action: {cluster: auth-svc-v2}
          - match: {prefix: /pay}
            action: {cluster: pay}
    clusters:
      - {name: auth-svc}
      - {name: auth-svc-v2, trafficPolicy: weight=10}
      - {name: auth-svc-v3, trafficPolicy: {weight: 5}}
      - {name: pay}
    """


def test_canaries_take_their_share_of_the_base() -> None:
    snapshot = snapshot_of(CANARY)
    split = {"auth-svc": 17, "auth-svc-v2": 2, "auth-svc-v3": 1}
    assert weights(find(snapshot, "/verify-id")) == split
    assert weights(find(snapshot, "/verify-id", "auth-svc")) == split
    assert weights(find(snapshot, "/other", "auth-svc")) == split
    assert weights(find(snapshot, "/pay")) == {"pay": 1}


def test_a_canary_that_a_route_names_keeps_the_weight_written_there() -> None:
    # 3 parts for auth-svc, of which 10% go to v2; 1 part for v3, and nothing on top.
    found = weights(find(snapshot_of(CANARY), "/mixed"))
    assert found == {"auth-svc": 27, "auth-svc-v2": 3, "auth-svc-v3": 10}
    assert weights(find(snapshot_of(CANARY), "/beta")) == {"auth-svc-v2": 1}


def test_a_cluster_that_is_named_gets_all_of_the_request() -> None:
    snapshot = snapshot_of(CANARY)
    assert weights(find(snapshot, "/verify-id", "auth-svc-v2")) == {"auth-svc-v2": 1}
    beta = find(snapshot, "/beta", "auth-svc-v2")
    assert beta is not None
    assert (beta.name, weights(beta)) == ("prefix:/beta", {"auth-svc-v2": 1})


def test_a_service_narrows_the_routes_to_those_that_lead_to_it() -> None:
    snapshot = snapshot_of(CANARY)
    verify = find(snapshot, "/verify-id", "auth-svc")
    assert verify is not None
    assert (verify.timeout, verify.retry.attempts, verify.default) == (1.0, 2, False)
    elsewhere = find(snapshot, "/verify-id", "pay")
    assert elsewhere is not None
    assert (elsewhere.name, elsewhere.service, elsewhere.default) == ("default:pay", "pay", True)
    assert (elsewhere.timeout, elsewhere.retry) == (15.0, RetryPolicy())
    assert set(snapshot.listeners[0].services) == {"auth-svc", "auth-svc-v2", "auth-svc-v3", "pay"}


def test_routes_that_answer_by_themselves_are_in_every_service_s_table_in_their_place() -> None:
    (listener,) = snapshot_of(
        """
        listeners:
          - name: out
            port: 1
            routes:
              - {name: a, match: {prefix: /x/y}, action: {cluster: one}}
              - {name: closed, match: {prefix: /x}, action: {direct_response: {status: 403}}}
              - {name: b, match: {prefix: /x/z}, action: {cluster: one}}
              - {name: c, match: {prefix: /w}, action: {cluster: two}}
              - {name: moved, match: {host: two.svc, prefix: /w}, action: {redirect: {port: 1}}}
        clusters: [{name: one}, {name: one-v2}, {name: two}]
        """
    ).listeners
    names = {
        service: [route.name for route in table] for service, table in listener.services.items()
    }
    assert names == {
        "one": ["a", "closed", "b", "moved", "default:one"],
        "one-v2": ["closed", "moved", "default:one-v2"],
        "two": ["closed", "c", "moved", "default:two"],
    }
    head = {b"host": b"elsewhere"}
    taken = listener.services["one"].match("/x/z", "", "GET", head)
    assert taken is not None
    assert (taken.name, taken.clusters, taken.service) == ("closed", (), "")


def test_routes_that_answer_are_not_copied_into_a_million_tables() -> None:
    routes = "".join(
        f"\n- {{name: r{n}, match: {{path: /{n}}}, action: {{redirect: {{}}}}}}"
        for n in range(1001)
    )
    clusters = "".join(f"\n- {{name: c{n}}}" for n in range(1000))
    (error,) = errors_of(
        f"listeners:\n- name: out\n  port: 1\n  routes:{indent(routes, '  ')}\nclusters:{clusters}"
    )
    assert "1001 routes answer by themselves" in error


def test_the_base_is_the_service_that_is_written() -> None:
    snapshot = snapshot_of(
        """\
        listeners: [{name: out, port: 1, routes: [{action: {cluster: blue}}]}]
        clusters:
          - {name: blue, service: shop}
          - {name: green, service: shop, trafficPolicy: weight=25}
        """
    )
    assert weights(find(snapshot, "/")) == {"blue": 3, "green": 1}
    assert weights(find(snapshot, "/", "shop")) == {"blue": 3, "green": 1}
    assert weights(find(snapshot, "/", "green")) == {"green": 1}


def test_versions_without_a_policy_share_their_service() -> None:
    snapshot = snapshot_of(
        """\
        listeners: [{name: out, port: 1}]
        clusters: [{name: a-v1}, {name: a-v2}, {name: a-v3, trafficPolicy: weight=50}]
        """
    )
    assert weights(find(snapshot, "/", "a")) == {"a-v1": 1, "a-v2": 1, "a-v3": 2}


def test_a_service_s_own_host_is_met_when_it_is_named() -> None:
    """`?host=a.svc` comes with `Host: localhost`; the route for that host must still apply."""
    snapshot = snapshot_of(
        """\
        listeners:
          - name: out
            port: 1
            routes:
              - {name: mine, match: {host: a.svc, prefix: /x}, action: {cluster: a}}
              - {name: wild, match: {host: "*.svc", prefix: /y}, action: {cluster: a}}
              - {name: other, match: {host: b.org}, action: {cluster: a}}
        clusters: [{name: a}]
        """
    )
    for path, host, name in [
        ("/x", "localhost", "mine"),
        ("/y", "localhost", "wild"),
        ("/z", "b.org", "other"),
        ("/z", "localhost", "default:a"),
    ]:
        found = find(snapshot, path, "a", host)
        assert found is not None
        assert found.name == name
    assert find(snapshot, "/x", host="localhost") is None


def test_names_are_written_or_made_from_the_match() -> None:
    snapshot = snapshot_of(
        """\
        listeners:
          - name: out
            port: 1
            routes:
              - {match: {prefix: /a}, action: {cluster: a}}
              - {match: {prefix: /a, methods: [PUT]}, action: {cluster: a}}
              - {match: {path: /b}, action: {cluster: a}}
              - {match: {regex: /c.*}, action: {cluster: a}}
              - {name: last, action: {cluster: a}}
        clusters: [{name: a}]
        """
    )
    assert [route.name for route in snapshot.listeners[0].routes] == [
        "prefix:/a",
        "prefix:/a#1",
        "path:/b",
        "regex:/c.*",
        "last",
    ]


def test_faults_of_routes() -> None:
    errors = errors_of(
        """\
        listeners:
          - name: out
            port: 1
            routes:
              - {name: r, match: {path: /a}, action: {cluster: a}}
              - {name: r, match: {path: /b}, action: {cluster: a}}
              - {action: {clusters: [{name: a}, {name: b}]}}
        clusters: [{name: a}, {name: b}]
        """
    )
    assert errors == [
        "1.yaml:6:16: listeners[0].routes[1].name: the name 'r' is here twice; first in routes[0]",
        (
            "1.yaml:7:29: listeners[0].routes[2].action.clusters: the clusters belong to different "
            "services (a, b), and policies would judge all requests as for the first; give them the "
            "same `service:`"
        ),
    ]


def test_actions_in_full() -> None:
    snapshot = snapshot_of(
        """\
        listeners:
          - name: out
            port: 1
            routes:
              - action:
                  cluster: a
                  timeout: 0
                  circuit_breakers: {max_connections: 5, max_retries: 0}
                  retries:
                    attempts: 3
                    per_try_timeout: 100ms
                    status_codes: [429]
                    backoff: {base: 10ms, max: 1s}
                    retry_non_idempotent: true
              - {match: {path: /on}, action: {cluster: a, retries: {attempts: 1, on: [5xx]}}}
        clusters: [{name: a}]
        """
    )
    first, second = snapshot.listeners[0].routes
    assert first.timeout is None
    assert first.thresholds == Thresholds(max_connections=5, max_retries=0)
    assert first.retry == RetryPolicy(
        attempts=3,
        per_try_timeout=0.1,
        on=RetryPolicy().on | {"retriable-status-codes"},
        status_codes=frozenset({429}),
        backoff_base=0.01,
        backoff_max=1.0,
        retry_non_idempotent=True,
    )
    assert second.retry == RetryPolicy(attempts=1, on=frozenset({"5xx"}))


def test_inbound_routes_go_to_the_app_and_then_all_the_rest() -> None:
    snapshot = snapshot_of(
        """\
        service: auth-svc
        listeners:
          - name: peers
            port: 1
            direction: inbound
            app: http://127.0.0.1:8080
            routes:
              - {match: {prefix: /slow}, action: {timeout: 5m}}
              - {match: {prefix: /half}, action: {retries: 1}}
              - {match: {prefix: /away}, action: {cluster: other}}
        clusters: [{name: other}]
        """
    )
    listener = snapshot.listeners[0]
    assert [
        (route.name, route.service, route.timeout, weights(route), route.default)
        for route in listener.routes
    ] == [
        ("prefix:/slow", "auth-svc", 300.0, {"app:peers": 1}, False),
        ("prefix:/half", "auth-svc", None, {"app:peers": 1}, False),
        ("prefix:/away", "other", None, {"other": 1}, False),
        ("default:app", "auth-svc", None, {"app:peers": 1}, True),
    ]
    assert listener.services == {}


shares = st.lists(st.integers(0, 100), max_size=4).filter(lambda found: sum(found) <= 100)


@given(shares, st.integers(1, 1000))
def test_a_split_takes_exactly_the_percents(percents: list[int], weight: int) -> None:
    canaries = [(f"a-v{n}", percent) for n, percent in enumerate(percents, 2)]
    traffic = Traffic({}, {"a": canaries}, {})
    found = {item.cluster: item.weight for item in traffic.split([("a", weight), ("b", weight)])}
    total = sum(found.values())
    for name, percent in canaries:
        assert found[name] * 200 == percent * total
    assert found["a"] * 200 == (100 - sum(percents)) * total
    assert found["b"] * 2 == total


@pytest.mark.parametrize("seed", range(3))
def test_five_thousand_routes_compile_and_are_found(seed: int) -> None:
    lines = ["listeners:", "- name: out", "  port: 1", "  routes:"]
    lines += [
        f"  - {{match: {{prefix: /r{n}}}, action: {{cluster: c{n % 7}}}}}" for n in range(5000)
    ]
    lines += ["clusters:", *(f"- name: c{n}" for n in range(7))]
    snapshot = snapshot_of("\n".join(lines))
    for n in Random(seed).sample(range(5000), 20):
        found = find(snapshot, f"/r{n}/x")
        assert found is not None
        assert weights(found) == {f"c{n % 7}": 1}
