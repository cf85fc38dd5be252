from __future__ import annotations

from typing import Any

import pytest

from hms_addons.addons.header_rules import HeaderRules
from hms_addons.config.header_edits import HeaderEdits
from hms_addons.config.shaping import ClusterEdits, Shaping
from hms_addons.config.snapshot import Cluster
from hms_addons.http_message import Answer
from tests.fakes.configs import snapshot_of
from tests.fakes.exchange import make_exchange, make_route, sent

ROUTE = HeaderEdits(set=((b"X-Rule", b"route"),), add=((b"X-List", b"2"),), remove=(b"X-Gone",))
LISTENER = HeaderEdits(add=((b"X-List", b"3"),))
CLUSTER = HeaderEdits(set=((b"X-Rule", b"cluster"),), add=((b"X-List", b"1"),))


def shaped(**parts: Any) -> Any:
    return make_route(shaping=Shaping(**parts))


def test_a_request_is_edited_by_cluster_route_and_listener_in_that_order() -> None:
    route = shaped(
        request_headers=(ROUTE, LISTENER), by_cluster={"auth-svc": ClusterEdits(request=CLUSTER)}
    )
    exchange = make_exchange(headers=[("x-gone", "a"), ("X-List", "0")], route=route)
    exchange.cluster = Cluster(name="auth-svc", service="auth-svc")
    exchange.vouched = exchange.fields
    HeaderRules().hms_prepare(exchange)
    assert sent(exchange, "x-rule") == ["route"]
    assert sent(exchange, "x-list") == ["0", "1", "2", "3"]
    assert sent(exchange, "x-gone") == []
    assert exchange.vouched is exchange.fields


def test_rules_of_another_cluster_do_not_count() -> None:
    route = shaped(by_cluster={"other": ClusterEdits(request=CLUSTER, response=CLUSTER)})
    exchange = make_exchange(route=route)
    exchange.cluster = Cluster(name="auth-svc", service="auth-svc")
    exchange.answer = Answer(200, b"OK", ())
    rules = HeaderRules()
    rules.hms_prepare(exchange)
    rules.hms_respond(exchange)
    assert sent(exchange, "x-rule") == []
    assert exchange.answer.fields == ()


def test_an_answer_is_edited_whoever_gave_it() -> None:
    route = shaped(
        response_headers=(ROUTE, LISTENER), by_cluster={"auth-svc": ClusterEdits(response=CLUSTER)}
    )
    for local in (False, True):
        exchange = make_exchange(route=route)
        exchange.cluster = Cluster(name="auth-svc", service="auth-svc")
        exchange.answer = Answer(503, b"", ((b"X-Gone", b"a"), (b"X-Rule", b"b")), local=local)
        HeaderRules().hms_respond(exchange)
        assert exchange.answer.fields == (
            (b"X-List", b"1"),
            (b"X-Rule", b"route"),
            (b"X-List", b"2"),
            (b"X-List", b"3"),
        )


def test_without_rules_or_without_a_route_nothing_changes() -> None:
    rules = HeaderRules()
    for route in (make_route(), shaped()):
        exchange = make_exchange(route=route)
        exchange.answer = Answer(200, b"OK", ((b"A", b"1"),))
        before, fields = exchange.fields, exchange.answer.fields
        rules.hms_prepare(exchange)
        rules.hms_respond(exchange)
        assert exchange.fields is before
        assert exchange.answer.fields is fields
    exchange.route = None
    rules.hms_prepare(exchange)
    rules.hms_respond(exchange)


@pytest.mark.parametrize(
    ("action", "idle"),
    [
        ("{cluster: c}", {"hms_prepare", "hms_respond"}),
        ("{cluster: c, request_headers: {remove: [A]}}", {"hms_respond"}),
        ("{cluster: c, response_headers: {remove: [A]}}", {"hms_prepare"}),
        ("{clusters: [{name: c, response_headers: {remove: [A]}}]}", {"hms_prepare"}),
        ("{clusters: [{name: c, request_headers: {remove: [A]}}]}", {"hms_respond"}),
    ],
)
def test_what_nobody_has_asked_for_is_idle(action: str, idle: set[str]) -> None:
    snapshot = snapshot_of(
        f"""
        listeners: [{{name: l, port: 1, routes: [{{action: {action}}}]}}]
        clusters: [{{name: c}}]
        """
    )
    assert set(HeaderRules().hms_idle_hooks(snapshot)) == idle
