from __future__ import annotations

from typing import Any

import pytest

from hms_addons.config.schema_routes import RetriesModel, RouteModel
from tests.fakes.configs import errors_of


def route(**parts: Any) -> RouteModel:
    return RouteModel.model_validate({"action": {"cluster": "c"}} | parts)


def route_errors(text: str) -> list[str]:
    """Errors of one route written on one line, without their place."""
    found = errors_of(
        f"listeners:\n- {{name: l, port: 1, routes: [{text}]}}\nclusters: [{{name: c}}]"
    )
    return [error.partition("routes[0]")[2] for error in found]


def test_a_route_without_conditions() -> None:
    assert route().match.given() == {}
    assert route(match=None).match.all_hosts == ()


def test_short_forms_are_the_long_ones() -> None:
    short = route(action={"cluster": "c", "retries": 2}, match={"headers": {"x": "1"}})
    long = route(
        action={"cluster": "c", "retries": {"attempts": 2}},
        match={"headers": {"x": {"exact": "1"}}},
    )
    assert short == long


def test_host_and_hosts() -> None:
    assert route(match={"host": "A.b"}).match.all_hosts == ("a.b",)
    assert route(match={"hosts": ["a", "*.b"]}).match.all_hosts == ("a", "*.b")


def test_given_leaves_out_what_was_not_written() -> None:
    model = RetriesModel.model_validate({"attempts": 1, "on": None, "per_try_timeout": "1s"})
    assert model.given() == {"attempts": 1, "per_try_timeout": 1.0}


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("{}", ": the key 'action' is missing"),
        ("{action: }", ".action: expected a mapping (keys and values), not nothing"),
        (
            "{action: {}}",
            ".action: needs `cluster` or `clusters`: where do these requests go?",
        ),
        (
            "{action: {cluster: c, clusters: [{name: c}]}}",
            ".action.clusters: give cluster or clusters, not both",
        ),
        ("{action: {clusters: []}}", ".action.clusters: must not be empty"),
        (
            "{action: {clusters: [{name: c}, {name: c}]}}",
            ".action.clusters[1].name: the cluster c is here twice",
        ),
        (
            "{action: {clusters: [{name: c, weight: 0}]}}",
            ".action.clusters: all weights are 0: nothing could be sent anywhere",
        ),
        (
            "{action: {clusters: [{name: c, weight: -1}]}}",
            ".action.clusters[0].weight: must be at least 0, not -1",
        ),
        (
            "{action: {cluster: c, retries: two}}",
            ".action.retries: expected a number of retries, or a mapping with attempts, not 'two'",
        ),
        (
            "{action: {cluster: c, retries: true}}",
            ".action.retries: expected a number of retries, or a mapping with attempts, not true",
        ),
        (
            "{action: {cluster: c, retries: -1}}",
            ".action.retries.attempts: must be at least 0, not -1",
        ),
        (
            "{action: {cluster: c, retries: {attempts: 1, on: [5xxx]}}}",
            (
                ".action.retries.on[0]: expected connect-failure or refused-stream or reset or "
                "reset-before-request or gateway-error or 5xx or retriable-4xx or "
                "retriable-status-codes, not '5xxx' (did you mean 5xx?)"
            ),
        ),
        (
            "{action: {cluster: c, retries: {attempts: 1, on: reset}}}",
            ".action.retries.on: expected a list, not 'reset' (did you mean [reset]?)",
        ),
        (
            "{action: {cluster: c, retries: {attempts: 1, on: [retriable-status-codes]}}}",
            ".action.retries.on: retriable-status-codes needs the list status_codes",
        ),
        (
            "{action: {cluster: c, retries: {attempts: 1, on: [reset], status_codes: [429]}}}",
            ".action.retries.status_codes: status_codes counts only with retriable-status-codes in `on`",
        ),
        (
            "{action: {cluster: c, timeout: 5}}",
            ".action.timeout: a duration needs a unit, as 5s or 5ms (did you mean 5s?)",
        ),
        (
            "{action: {cluster: c, circuit_breakers: {max_connections: 0}}}",
            ".action.circuit_breakers.max_connections: must be at least 1, not 0",
        ),
        (
            "{match: {prefix: /a, path: /b}, action: {cluster: c}}",
            ".match.path: give one of prefix and path, not both",
        ),
        (
            "{match: {host: a, hosts: [b]}, action: {cluster: c}}",
            ".match.hosts: give host or hosts, not both",
        ),
        (
            "{match: {methods: GET}, action: {cluster: c}}",
            ".match.methods: expected a list, not 'GET' (did you mean [GET]?)",
        ),
        (
            "{match: {methods: [get]}, action: {cluster: c}}",
            (
                ".match.methods[0]: methods are case-sensitive and 'get' is not one that clients send "
                "(did you mean GET?)"
            ),
        ),
        (
            "{match: {headers: {x-version: 2}}, action: {cluster: c}}",
            (
                ".match.headers.x-version: expected a text or a mapping with exact, regex or present, "
                'not 2 (did you mean "2"?)'
            ),
        ),
        (
            "{match: {query: {a: {exact: x, present: true}}}, action: {cluster: c}}",
            ".match.query.a: give exactly one of exact, regex and present",
        ),
        (
            "{match: {headers: {'a b': x}}, action: {cluster: c}}",
            ".match.headers.a b: 'a b' cannot be the name of a header field or a method",
        ),
        (
            "{match: {prefx: /a}, action: {cluster: c}}",
            ".match.prefx: unknown key 'prefx' (did you mean prefix?)",
        ),
        (
            "{action: {cluster: c, retries: {attempts: 1, backoff: {zap: 1s}}}}",
            ".action.retries.backoff.zap: unknown key 'zap'; known here: base, max",
        ),
    ],
)
def test_messages(text: str, error: str) -> None:
    assert route_errors(text) == [error]
