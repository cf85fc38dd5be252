from __future__ import annotations

import pytest

from hms_addons.config.installed import BALANCERS, Installed, Known, has_otel
from hms_addons.config.load import load
from hms_addons.upstream.balancers.built_in import BUILT_IN


def test_the_built_in_balancers_are_those_of_the_upstream() -> None:
    assert frozenset(BUILT_IN) == BALANCERS


def test_plugins_are_loaded_only_if_it_matters() -> None:
    asked = []

    def balancers() -> frozenset[str]:
        asked.append(1)
        return frozenset({"sticky"})

    known = Known(installed=Installed(frozenset(), balancers))
    assert load([("a", b"clusters: [{name: a, load_balancer: random}]")], known=known).snapshot
    assert not asked
    assert load([("a", b"clusters: [{name: a, load_balancer: sticky}]")], known=known).snapshot
    assert asked == [1]


def test_an_operator_is_warned_of_what_only_a_plugin_can_balance() -> None:
    text = [("a", b"clusters: [{name: a, load_balancer: least_requests}]")]
    (problem,) = load(text, control=True).problems
    assert str(problem) == (
        "a:1:37: warning: clusters[0].load_balancer: least_requests is no built-in balancer "
        "(ewma, least_request, maglev, random, ring_hash, round_robin); a plugin must provide it "
        "(did you mean least_request?)"
    )
    told = [p.path for p in load(text).problems]
    assert "clusters[0].load_balancer" not in told, "a sidecar knows what its plugins provide"


def test_a_route_falls_back_to_plugins_that_are_there() -> None:
    text = b"""\
listeners:
  - {name: out, port: 1, routes: [{match: {}, action: {cluster: a, fallback: {plugin: mene}}}]}
clusters: [{name: a, endpoints: ["127.0.0.1:1"]}]
"""
    installed = Installed(frozenset({"mine"}), frozenset)
    (problem,) = load([("a", text)], known=Known(installed=installed)).problems
    assert str(problem).partition(": ")[2] == (
        "listeners[0].routes[0].action.fallback[0].plugin: no plugin 'mene' is here (mine); "
        "install it (did you mean mine?)"
    )
    there = Installed(frozenset({"mene"}), frozenset)
    assert load([("a", text)], known=Known(installed=there)).problems == ()


@pytest.mark.parametrize("elsewhere", [False, True])
def test_spans_need_the_extra_where_they_are_made(elsewhere: bool) -> None:
    text = b"tracing: {otlp: 'http://127.0.0.1:4318'}"
    for otel in (True, False):
        known = Known(installed=Installed(frozenset(), frozenset, otel))
        loaded = load([("a.yaml", text)], control=elsewhere, known=known)
        told = [str(problem) for problem in loaded.problems if problem.severity == "error"]
        assert [line.partition(": tracing: ")[0] for line in told] == (
            [] if otel or elsewhere else ["a.yaml:1:1"]
        )
        assert all("install the extra (pip install 'hms-svc[otel]')" in line for line in told)


def test_the_extra_is_here_where_tests_run() -> None:
    assert has_otel()
