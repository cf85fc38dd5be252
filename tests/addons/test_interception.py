"""What becomes of intercepted calls; `routing` decides which are the mesh's (test_routing.py)."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from hms_addons.addons.interception import Interception
from hms_addons.addons.routing import Routing
from hms_addons.errors import ExchangeFailed, Flag
from tests.fakes.configs import snapshot_of
from tests.fakes.intercepted import THERE, caught, transparent

if TYPE_CHECKING:
    from hms_addons.config.snapshot import Snapshot
    from hms_addons.exchange import Exchange


class Upstream:
    def __init__(self, *own: tuple[str, int]) -> None:
        self.own = set(own)
        self.reached: list[tuple[str, tuple[str, int]]] = []
        self.asked = 0

    def is_own(self, address: tuple[str, int]) -> bool:
        self.asked += 1
        return address in self.own

    def reach(self, cluster: str, original: tuple[str, int]) -> None:
        self.reached.append((cluster, original))


def prepared(snapshot: Snapshot, host: str, *fields: tuple[str, str], **notes: Any) -> Exchange:
    exchange = caught(snapshot, host, "/", THERE, *fields)
    exchange.route = Routing(Random(1)).hms_route(exchange)
    exchange.notes |= notes
    for name, value in (
        (b"X-Forwarded-For", b"10.0.0.7"),
        (b"X-Forwarded-Proto", b"http"),
        (b"X-Policy-Version", b"1.3.4"),
        (b"X_Caller_Role", b"ADMIN"),
        (b"X-Request-ID", b"7f3c"),
        (b"Via", b"1.1 hms"),
    ):
        exchange.set_request_header(name, value)
    plugin = Interception()
    plugin.hms_configure(snapshot)
    plugin.hms_prepare(exchange)
    return exchange


def sent(exchange: Exchange) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in exchange.fields}


def test_what_is_passed_through_says_nothing_of_the_mesh() -> None:
    exchange = prepared(transparent("original"), "example.com", ("User-Agent", "app"))
    assert sent(exchange) == {
        "Host": "example.com",
        "User-Agent": "app",
        "X-Request-ID": "7f3c",
        "Via": "1.1 hms",
    }


def test_what_the_app_itself_has_said_stays() -> None:
    told = ("X-Forwarded-For", "192.0.2.1")
    exchange = prepared(transparent("original"), "example.com", told)
    assert [value for name, value in exchange.fields if name == b"X-Forwarded-For"] == [
        b"192.0.2.1"
    ]


@pytest.mark.parametrize(
    ("notes", "kept"), [({"identity_propagation": "attached"}, False), ({}, True)]
)
def test_a_callers_token_does_not_leave_the_mesh_but_the_apps_own_does(
    notes: dict[str, str], kept: bool
) -> None:
    token = ("Authorization", "Bearer x")
    exchange = prepared(transparent("original"), "example.com", token, **notes)
    assert ("Authorization" in sent(exchange)) is kept


def test_calls_of_the_mesh_carry_what_the_mesh_says() -> None:
    exchange = prepared(transparent("original"), "auth-svc.svc")
    assert sent(exchange)["X-Policy-Version"] == "1.3.4"


def test_a_passthrough_is_prepared_for_upstream() -> None:
    exchange = prepared(transparent("original"), "example.com")
    upstream = Upstream()
    assert Interception().hms_forward(exchange, upstream) is None
    assert upstream.reached == [("original:caught", THERE)]
    call = prepared(transparent("original"), "auth-svc.svc")
    Interception().hms_forward(call, upstream)
    assert len(upstream.reached) == 1


@pytest.mark.parametrize("original", [THERE, None])
@pytest.mark.parametrize("host", ["example.com", "auth-svc.svc"])
def test_what_the_sidecar_has_sent_itself_is_refused(
    host: str, original: tuple[str, int] | None
) -> None:
    exchange = prepared(transparent("original"), host)
    exchange.downstream.original = original
    upstream = Upstream(("127.0.0.1", 40000))
    with pytest.raises(ExchangeFailed, match="hms iptables up --uid") as failed:
        Interception().hms_forward(exchange, upstream)
    failure = failed.value.failure
    assert (failure.status, failure.flag) == (508, Flag.NR)
    meant = "this listener itself" if original is None else "203.0.113.9:80"
    assert meant in failure.detail
    assert upstream.reached == []


def test_that_is_looked_at_once_per_connection() -> None:
    exchange = prepared(transparent("original"), "auth-svc.svc")
    upstream = Upstream()
    for _ in range(3):
        Interception().hms_forward(exchange, upstream)
    assert upstream.asked == 1


def test_it_costs_nothing_where_nothing_is_intercepted() -> None:
    idle = Interception().hms_idle_hooks
    assert set(idle(snapshot_of("listeners: [{name: a, port: 1}]"))) == {
        "hms_prepare",
        "hms_forward",
    }
    assert idle(transparent("refuse")) == ("hms_prepare",)
    assert idle(transparent("original")) == ()


def test_other_listeners_of_the_same_sidecar_are_left_alone() -> None:
    snapshot = snapshot_of(
        "listeners: [{name: a, port: 1}, {name: b, port: 2, kind: transparent, unmatched: original}]"
    )
    exchange = prepared(snapshot, "example.com")
    upstream = Upstream(("127.0.0.1", 40000))
    Interception().hms_forward(exchange, upstream)
    assert upstream.asked == 0
