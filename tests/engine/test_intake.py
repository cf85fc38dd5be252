"""Where a request becomes the mesh's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from mitmproxy.connection import Client

from hms_addons.config.snapshot import Direction
from hms_addons.engine.connection_context import ConnectionContext
from hms_addons.engine.framing import index_fields
from hms_addons.engine.hygiene import Hygiene
from hms_addons.engine.intake import take_over
from tests.fakes.exchange import make_exchange, make_listener

if TYPE_CHECKING:
    from hms_addons.exchange import Exchange


def taken(
    target: bytes,
    *fields: tuple[bytes, bytes],
    direction: Direction = Direction.OUTBOUND,
    original: tuple[str, int] | None = None,
) -> Exchange:
    exchange = make_exchange(listener=make_listener(direction=direction))
    data: Any = exchange.flow.request.data
    data.path = target
    data.headers.fields = fields or ((b"Host", b"localhost:15001"),)
    client = Client(peername=("127.0.0.1", 4), sockname=("127.0.0.1", 15001))
    context = ConnectionContext(client, tls=False)
    context.original = original
    head = index_fields(data.headers.fields)
    take_over(exchange, head, context, Hygiene(exchange.snapshot.headers.all))
    return exchange


def test_the_service_in_the_query_is_the_meshs_own() -> None:
    exchange = taken(b"/verify-id?a=1&host=auth-svc.svc&b=2")
    assert exchange.service == "auth-svc"
    assert exchange.query == "a=1&b=2"
    assert exchange.flow.request.path == "/verify-id?a=1&b=2"
    assert exchange.flow.request.headers["Host"] == "auth-svc.svc"
    assert exchange.flow.request.headers["X-Forwarded-Host"] == "localhost:15001"


def test_two_services_in_the_query_are_a_bad_request() -> None:
    exchange = taken(b"/x?host=a.svc&hos%74=B.svc", (b"Host", b"c.svc"))
    assert exchange.failure is not None
    assert (exchange.failure.status, exchange.failure.flag) == (400, "DPE")
    assert "two services, 'a' and 'b'" in exchange.failure.detail
    assert not exchange.failure.close, "the request itself is well-formed"
    assert taken(b"/x?host=a.svc&y=1&host=A.svc").flow.request.path == "/x?y=1"


def test_the_query_of_an_intercepted_call_is_for_whom_its_host_names() -> None:
    there = ("203.0.113.9", 80)
    exchange = taken(b"/x?host=auth-svc.svc", (b"Host", b"example.com"), original=there)
    assert exchange.service is None
    assert exchange.flow.request.path == "/x?host=auth-svc.svc"
    assert exchange.flow.request.headers["Host"] == "example.com"
    named = taken(b"/x?host=pay.svc&host=b.svc", (b"Host", b"auth-svc.svc"), original=there)
    assert named.service == "auth-svc"
    assert named.failure is None
    assert named.query == "host=pay.svc&host=b.svc"


def test_a_host_that_is_no_service_is_the_apps() -> None:
    exchange = taken(b"/x?host=example.com")
    assert exchange.service is None
    assert exchange.flow.request.path == "/x?host=example.com"


def test_the_service_in_the_host_header() -> None:
    exchange = taken(b"/x", (b"Host", b"Auth-SVC.svc:15001"))
    assert exchange.service == "auth-svc"


def test_inbound_names_no_service() -> None:
    exchange = taken(b"/x?host=other.svc", (b"Host", b"auth-svc.svc"), direction=Direction.INBOUND)
    assert exchange.service is None
    assert exchange.query == "host=other.svc"


def test_what_is_matched_is_what_is_sent() -> None:
    exchange = taken(b"/a//b/../%61dmin?q=%2F")
    assert exchange.path == "/a/admin"
    assert exchange.flow.request.data.path == b"/a/admin?q=%2F"


def test_the_authority_of_an_absolute_target_replaces_host() -> None:
    exchange = taken(b"http://pay-svc.svc/refund", (b"Host", b"auth-svc.svc"))
    assert exchange.service == "pay-svc"
    assert exchange.flow.request.headers.get_all("Host") == ["pay-svc.svc"]
    assert exchange.flow.request.path == "/refund"


@pytest.mark.parametrize("direction", Direction)
@pytest.mark.parametrize("forged", [(), ((b"X-Forwarded-Host", b"forged"),)])
def test_what_came_without_host_is_sent_with_an_empty_one(
    direction: Direction, forged: tuple[tuple[bytes, bytes], ...]
) -> None:
    """Only HTTP/1.0 may; what is sent is HTTP/1.1 (RFC 9112 section 3.2)."""
    exchange = taken(b"/x?a=1", (b"Accept", b"*/*"), *forged, direction=direction)
    assert exchange.failure is None
    assert exchange.fields[:2] == ((b"Host", b""), (b"Accept", b"*/*"))
    assert exchange.head[b"host"] == b""
    assert "X-Forwarded-Host" not in exchange.flow.request.headers


@pytest.mark.parametrize("target", [b"/x?host=Auth-SVC.svc", b"http://auth-svc.svc/x"])
def test_what_came_without_host_but_names_a_service_is_sent_with_its_name(target: bytes) -> None:
    exchange = taken(target, (b"Accept", b"*/*"))
    assert exchange.service == "auth-svc"
    assert exchange.flow.request.headers.get_all("Host") == ["auth-svc.svc"]
    assert exchange.head[b"host"] == b"auth-svc.svc"


@pytest.mark.parametrize("target", [b"/a%2Fb", b"/a%00", b"/%zz", b"/a\\b", b"ftp://x/", b"*"])
def test_a_bad_target_is_the_failure(target: bytes) -> None:
    exchange = taken(target)
    assert exchange.failure is not None
    assert exchange.failure.status == 400
    assert exchange.failure.close


def test_the_request_id_is_the_callers_or_the_flows() -> None:
    exchange = taken(b"/", (b"Host", b"a"), (b"X-Request-ID", b"r-1"))
    assert exchange.request_id == "r-1"
    exchange = taken(b"/")
    assert exchange.request_id == exchange.flow.id
    assert exchange.flow.request.headers["X-Request-ID"] == exchange.flow.id
