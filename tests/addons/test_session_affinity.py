"""The cookie that keeps a client with its endpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hms_addons.addons.session_affinity import SessionAffinity
from hms_addons.config.hash_on import HashKey, HashOn
from hms_addons.config.route_match import RouteMatch
from hms_addons.config.route_table import RouteTable
from hms_addons.http_message import Answer
from hms_addons.request_hash import made_cookie
from tests.fakes.exchange import make_exchange, make_listener, make_route, make_snapshot
from tests.fakes.upstream import make_cluster

if TYPE_CHECKING:
    from hms_addons.exchange import Exchange

MADE = HashOn(kind=HashKey.COOKIE, name="s", attributes="; Max-Age=60; Path=/; HttpOnly")
KEPT = HashOn(kind=HashKey.COOKIE, name="s")


def answered(hash_on: HashOn | None, **request: Any) -> Exchange:
    exchange = make_exchange(route=make_route(hash_on=hash_on), **request)
    exchange.endpoint = "10.0.0.1:80"
    exchange.answer = Answer(200, b"OK", fields=((b"Set-Cookie", b"own=1"),))
    SessionAffinity().hms_respond(exchange)
    return exchange


def fields_of(exchange: Exchange) -> Any:
    assert exchange.answer is not None
    return exchange.answer.fields


def test_a_request_without_the_cookie_gets_one_beside_the_apps_own() -> None:
    exchange = answered(MADE)
    value = b"s=" + made_cookie(exchange) + b"; Max-Age=60; Path=/; HttpOnly"
    assert fields_of(exchange) == ((b"Set-Cookie", b"own=1"), (b"Set-Cookie", value))


def test_a_request_that_has_it_keeps_it() -> None:
    assert len(fields_of(answered(MADE, headers=[("Cookie", "s=1")]))) == 1


def test_without_a_ttl_or_a_key_nothing_is_set() -> None:
    assert len(fields_of(answered(KEPT))) == 1
    assert len(fields_of(answered(None))) == 1


def test_an_answer_for_which_no_endpoint_was_chosen_sets_nothing() -> None:
    exchange = make_exchange(route=make_route(hash_on=MADE))
    SessionAffinity().hms_respond(exchange)
    assert exchange.answer is None
    exchange.answer = Answer(403, b"Forbidden", ())
    SessionAffinity().hms_respond(exchange)
    assert exchange.answer.fields == ()


def test_it_is_idle_unless_a_cluster_or_a_route_has_such_a_cookie() -> None:
    idle = SessionAffinity().hms_idle_hooks
    assert idle(make_snapshot()) == ("hms_respond",)
    assert idle(make_snapshot(clusters={"a": make_cluster("a", hash_on=KEPT)})) == ("hms_respond",)
    assert idle(make_snapshot(clusters={"a": make_cluster("a", hash_on=MADE)})) == ()
    table = RouteTable([(RouteMatch(), make_route(hash_on=MADE))])
    assert idle(make_snapshot(listeners=(make_listener(routes=table),))) == ()
    assert idle(make_snapshot(listeners=(make_listener(services={"a": table}),))) == ()
