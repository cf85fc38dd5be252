from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hms_addons.config.snapshot_forwarding import FallbackKind, Hedge
from tests.fakes.configs import errors_of, snapshot_of, warnings_of

BASE = """\
listeners:
  - name: out
    port: 1
    routes:
      - match: {{prefix: /verify-id}}
        action: {{cluster: auth-svc, timeout: 2s, {action}}}
clusters:
  - {{name: auth-svc, {failover}}}
  - {{name: auth-svc-dr, service: auth-svc, {failover_dr}}}
  - {{name: auth-svc-v2, {failover_v2}}}
  - {{name: pay}}
"""


def text(action: str = "", failover: str = "", failover_dr: str = "", failover_v2: str = "") -> str:
    return BASE.format(
        action=action, failover=failover, failover_dr=failover_dr, failover_v2=failover_v2
    )


# -- failover --------------------------------------------------------------------------------------


def test_a_chain_is_compiled_whole() -> None:
    snapshot = snapshot_of(
        text(failover="failover: auth-svc-dr", failover_dr="failover: auth-svc-v2")
    )
    assert snapshot.clusters["auth-svc"].failover == ("auth-svc-dr", "auth-svc-v2")
    assert snapshot.clusters["auth-svc-dr"].failover == ("auth-svc-v2",)
    assert snapshot.clusters["auth-svc-v2"].failover == ()


def test_a_loop_is_refused_and_named_once() -> None:
    (error,) = errors_of(
        text(
            failover="failover: auth-svc-dr",
            failover_dr="failover: auth-svc-v2",
            failover_v2="failover: auth-svc",
        )
    )
    assert error == (
        "1.yaml:8:32: clusters[0].failover: failover goes round in a loop: "
        "auth-svc → auth-svc-dr → auth-svc-v2 → auth-svc"
    )


def test_a_cluster_cannot_be_its_own_failover() -> None:
    (error,) = errors_of(text(failover="failover: auth-svc"))
    assert error.endswith("failover goes round in a loop: auth-svc → auth-svc")


def test_a_loop_further_down_the_chain_is_named_without_its_lead() -> None:
    (error,) = errors_of(
        text(
            failover="failover: auth-svc-dr",
            failover_dr="failover: auth-svc-v2",
            failover_v2="failover: auth-svc-dr",
        )
    )
    assert error.endswith("in a loop: auth-svc-dr → auth-svc-v2 → auth-svc-dr")


@given(st.lists(st.integers(0, 5) | st.none(), min_size=6, max_size=6))
def test_any_failovers_end_or_are_refused(nexts: list[int | None]) -> None:
    clusters = ", ".join(
        f"{{name: c{n}, service: s{'' if to is None else f', failover: c{to}'}}}"
        for n, to in enumerate(nexts)
    )
    document = f"clusters: [{clusters}]"

    def loops(n: int) -> bool:
        seen: set[int] = set()
        at: int | None = n
        while at is not None and at not in seen:
            seen.add(at)
            at = nexts[at]
        return at is not None

    if any(loops(n) for n in range(6)):
        assert all("loop" in error for error in errors_of(document))
        assert errors_of(document)
        return
    for cluster in snapshot_of(document).clusters.values():
        assert cluster.name not in cluster.failover
        assert len(set(cluster.failover)) == len(cluster.failover)


def test_an_unknown_failover_gets_a_guess() -> None:
    (error,) = errors_of(text(failover="failover: auth-svc-rd"))
    assert error.endswith(
        "clusters[0].failover: there is no cluster 'auth-svc-rd' (did you mean auth-svc-dr?)"
    )


@pytest.mark.parametrize(
    ("where", "written"),
    [
        ("clusters[0].failover", {"failover": "failover: pay"}),
        ("action.fallback[0].cluster", {"action": "fallback: {cluster: pay}"}),
        ("action.mirror[0].cluster", {"action": "mirror: {cluster: pay}"}),
    ],
)
def test_what_was_judged_for_one_service_does_not_go_to_another(
    where: str, written: dict[str, str]
) -> None:
    (error,) = errors_of(text(**written))
    assert where in error
    assert error.endswith(
        "pay belongs to the service pay, and policies would have judged the request as for "
        "auth-svc; if it is the same, give it `service: auth-svc`"
    )


def test_clusters_that_are_named_only_here_are_not_unused() -> None:
    action = "fallback: {cluster: auth-svc-dr}, mirror: {cluster: auth-svc-v2}"
    assert not [
        line for line in warnings_of(text(action)) if "unused: no route leads to auth" in line
    ]


# -- routes ----------------------------------------------------------------------------------------


def test_a_route_without_any_of_it_has_nothing() -> None:
    route = next(iter(snapshot_of(text()).listeners[0].routes))
    assert (route.fallback, route.mirrors, route.hedge) == ((), (), None)


def test_fallbacks_are_compiled_in_order() -> None:
    action = (
        "fallback: [{cluster: auth-svc-dr}, {stale: 60s, on: [timeout]}, {response: {body: hi}, "
        "on: [5xx]}, {plugin: mine}, {cluster: auth-svc-v2, timeout: 1s}]"
    )
    route = next(iter(snapshot_of(text(action)).listeners[0].routes))
    other, stale, fixed, plugin, timed = route.fallback
    assert other.flags == {"UH", "UF", "UO", "UC", "UPE", "UT"}
    assert other.statuses == {502, 503, 504}, "a 500 is the service's own answer"
    assert other.route is not None
    assert [item.cluster for item in other.route.clusters] == ["auth-svc-dr"]
    assert (other.route.timeout, other.own_timeout, other.route.retry.attempts) == (2.0, False, 0)
    assert (stale.kind, stale.max_age, stale.flags) == (FallbackKind.STALE, 60.0, frozenset({"UT"}))
    assert stale.statuses == set()
    assert (fixed.status, fixed.body, fixed.flags) == (200, b"hi", frozenset())
    assert fixed.fields == ((b"Content-Type", b"text/plain; charset=utf-8"),)
    assert fixed.statuses == set(range(500, 600))
    assert plugin.plugin == "mine"
    assert timed.route is not None
    assert (timed.route.timeout, timed.own_timeout) == (1.0, True)


def test_a_mirror_has_a_route_of_its_own_that_follows_no_failover() -> None:
    action = "mirror: [{cluster: auth-svc-dr, percent: 10}, {cluster: auth-svc-v2, timeout: 1s}]"
    route = next(iter(snapshot_of(text(action)).listeners[0].routes))
    one, other = route.mirrors
    assert (one.percent, other.percent) == (10.0, 100.0)
    assert (one.route.timeout, other.route.timeout) == (2.0, 1.0)
    assert not one.route.follows_failover
    assert (one.route.mirrors, one.route.retry.attempts) == ((), 0)


@pytest.mark.parametrize(
    ("action", "what"),
    [
        ("mirror: {cluster: auth-svc}", "a mirror of requests to itself"),
        ("fallback: {cluster: auth-svc}", "its own fallback"),
    ],
)
def test_what_leads_back_to_the_route_is_refused(action: str, what: str) -> None:
    (error,) = errors_of(text(action))
    assert error.endswith(f"auth-svc is where the route leads: it would be {what}")


def test_one_of_several_destinations_may_be_mirrored_to() -> None:
    action = "mirror: {cluster: auth-svc-v2}"
    written = text(action).replace(
        "cluster: auth-svc, timeout", "clusters: [{name: auth-svc}, {name: auth-svc-v2}], timeout"
    )
    assert errors_of(written) == []


def test_hedges() -> None:
    def hedge(written: str) -> Hedge | None:
        return next(iter(snapshot_of(text(written)).listeners[0].routes)).hedge

    assert hedge("hedge: {}") == Hedge(after=None, quantile=0.95, most=1)
    assert hedge("hedge: {after: p99, max: 2}") == Hedge(after=None, quantile=0.99, most=2)
    assert hedge("hedge: {after: 50ms}") == Hedge(after=0.05)


def test_a_hedge_that_the_timeout_always_forestalls_is_refused() -> None:
    (error,) = errors_of(text("hedge: {after: 2s}"))
    assert error.endswith("a second try after 2s never begins: the route's timeout is 2s")
    assert errors_of(text("hedge: {after: 1s}")) == []


@pytest.mark.parametrize(
    ("percent", "told"),
    [
        ('"10%"', "expected a number, not '10%' (did you mean 10, without quotes?)"),
        ("some", "expected a number, not 'some'"),
        ("true", "expected a number, not true"),
    ],
)
def test_a_share_that_is_no_number_is_told_of_once_and_in_words(percent: str, told: str) -> None:
    (error,) = errors_of(text(f"mirror: {{cluster: auth-svc-v2, percent: {percent}}}"))
    assert error.endswith(f"action.mirror[0].percent: {told}")


def test_a_cluster_with_a_failover_need_not_have_endpoints() -> None:
    assert not [
        line
        for line in warnings_of(text(failover="failover: pay, service: pay"))
        if "auth-svc has no endpoints" in line
    ]
