"""Objects built quickly are the objects that mitmproxy's constructors make, attribute by attribute."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from mitmproxy.connection import Client, ConnectionState, Server
from mitmproxy.flow import Error, Flow
from mitmproxy.http import Headers, HTTPFlow, Request, Response
from mitmproxy.proxy.mode_specs import ProxyMode

from hms_addons.engine import flow_builder
from hms_addons.engine.identifiers import new_id
from tests.fakes import pki

if TYPE_CHECKING:
    import ssl

    from hms_addons.http_message import Fields

NOW = 1_800_000_000.25
FIELDS: Fields = ((b"Host", b"auth-svc.svc:81"), (b"x-a", b"1"), (b"X-A", b"2"))


def client() -> Client:
    return flow_builder.build_client(("192.0.2.7", 40000), ("127.0.0.1", 15001), None, tls=False)


def built_flow(content: bytes | None = b"body", minor: int = 1) -> HTTPFlow:
    return flow_builder.build_flow(
        client(),
        flow_builder.unconnected_server(),
        flow_id=new_id(),
        method=b"POST",
        target=b"/verify-id?id=7",
        minor=minor,
        fields=FIELDS,
        content=content,
        host="auth-svc.svc",
        port=81,
        scheme=b"http",
        now=NOW,
    )


def mitmproxys_flow(like: HTTPFlow, content: bytes | None = b"body", minor: int = 1) -> HTTPFlow:
    flow = HTTPFlow(like.client_conn, like.server_conn, live=True)
    flow.request = Request(
        host="auth-svc.svc",
        port=81,
        method=b"POST",
        scheme=b"http",
        authority=b"",
        path=b"/verify-id?id=7",
        http_version=b"HTTP/1.%d" % minor,
        headers=Headers(FIELDS),
        content=content,
        trailers=None,
        timestamp_start=NOW,
        timestamp_end=NOW,
    )
    return flow


@pytest.mark.parametrize("content", [b"body", b"", None])
@pytest.mark.parametrize("minor", [0, 1])
def test_a_flow_is_as_mitmproxy_makes_it(content: bytes | None, minor: int) -> None:
    ours = built_flow(content, minor)
    theirs = mitmproxys_flow(ours, content, minor)
    ours_attributes, their_attributes = dict(vars(ours)), dict(vars(theirs))
    for attributes in (ours_attributes, their_attributes):
        for own_to_each in ("id", "timestamp_created", "request"):
            attributes.pop(own_to_each)
    assert ours_attributes == their_attributes
    assert vars(ours).keys() == vars(theirs).keys()
    assert vars(ours.request).keys() == vars(theirs.request).keys()
    assert vars(ours.request.data) == vars(theirs.request.data)
    assert vars(ours.request.headers) == vars(theirs.request.headers)
    assert type(ours.request.data) is type(theirs.request.data)
    assert ours.timestamp_created == NOW


def test_what_a_flow_does_not_hold_falls_back_to_mitmproxys_defaults() -> None:
    ours = built_flow()
    for name in ("response", "error", "websocket"):
        assert getattr(ours, name) is None
    assert ours.request.stream is False
    assert ours.killable
    assert ours.request.pretty_url == "http://auth-svc.svc:81/verify-id?id=7"


@pytest.mark.parametrize("content", [b"body", b"", None])
@pytest.mark.parametrize("trailers", [(), ((b"X-Sum", b"7"),)])
def test_a_response_is_as_mitmproxy_makes_it(content: bytes | None, trailers: Fields) -> None:
    ours = flow_builder.build_response(418, b"I'm a teapot", FIELDS, content, trailers, NOW)
    theirs = Response(
        http_version=b"HTTP/1.1",
        status_code=418,
        reason=b"I'm a teapot",
        headers=Headers(FIELDS),
        content=content,
        trailers=Headers(trailers) if trailers else None,
        timestamp_start=NOW,
        timestamp_end=NOW,
    )
    assert vars(ours).keys() == vars(theirs).keys()
    assert vars(ours.data) == vars(theirs.data)
    assert type(ours.data) is type(theirs.data)
    assert ours.stream is False


def test_a_flow_survives_being_saved_and_loaded() -> None:
    ours = built_flow()
    ours.response = flow_builder.build_response(200, b"OK", FIELDS, b"yes", ((b"T", b"1"),), NOW)
    ours.comment = "seen"
    loaded: Any = Flow.from_state(ours.get_state())
    assert loaded.get_state() == ours.get_state()
    assert loaded.id == ours.id
    assert loaded.request.data == ours.request.data
    assert loaded.response.data == ours.response.data


def test_a_copy_is_another_flow_of_the_same_content() -> None:
    ours = built_flow()
    other = ours.copy()
    assert other.id != ours.id
    assert not other.live
    assert other.request.data == ours.request.data
    other.request.headers["X-New"] = "1"
    other.request.path = "/elsewhere"
    assert ours.request.headers.fields == FIELDS
    assert ours.request.path == "/verify-id?id=7"


def test_a_persons_edits_can_be_reverted() -> None:
    ours = built_flow()
    ours.backup()
    ours.request.text = "changed"
    assert ours.modified()
    ours.revert()
    assert ours.request.content == b"body"


def test_flows_share_no_state() -> None:
    first, second = built_flow(), built_flow()
    first.metadata["hms"] = {}
    first.request.headers["X"] = "1"
    assert second.metadata == {}
    assert "X" not in second.request.headers


def test_a_client_over_tls_shows_its_certificate() -> None:
    mode = ProxyMode.parse("regular@15006")
    der = pki.svid("claims-svc").certificates[0].public_bytes(Encoding.DER)
    ours = flow_builder.build_client(
        ("192.0.2.7", 40000),
        ("127.0.0.1", 15006),
        mode,
        tls=True,
        certificate=der,
        tls_version="TLSv1.3",
        cipher="TLS_AES_256_GCM_SHA384",
    )
    assert vars(ours).keys() == vars(Client(peername=("a", 1), sockname=("b", 2))).keys()
    assert ours.proxy_mode is mode
    assert ours.tls_established
    assert ours.connected
    assert (ours.tls_version, ours.alpn) == ("TLSv1.3", b"http/1.1")
    assert [
        cert.to_cryptography().public_bytes(Encoding.DER) for cert in ours.certificate_list
    ] == [der]
    flow_builder.mark_closed(ours, NOW)
    assert ours.state is ConnectionState.CLOSED
    assert ours.timestamp_end == NOW


def test_a_plain_client_says_nothing_of_tls() -> None:
    plain = client()
    assert not plain.tls
    assert not plain.tls_established
    assert plain.tls_version is None


class Transport:
    """The part of a transport that is looked at."""

    def __init__(self, ssl_object: ssl.SSLObject | None = None) -> None:
        self.info = {
            "peername": ("2001:db8::1", 443, 0, 0),
            "sockname": ("2001:db8::2", 50000, 0, 0),
            "ssl_object": ssl_object,
        }

    def get_extra_info(self, name: str) -> Any:
        return self.info.get(name)


def test_a_server_before_and_after_it_is_connected() -> None:
    server = flow_builder.build_server("auth-svc", 9001, NOW)
    assert vars(server).keys() == vars(Server(address=("auth-svc", 9001))).keys()
    assert server.address == ("auth-svc", 9001)
    assert not server.connected
    transport: Any = Transport()
    flow_builder.mark_connected(server, transport, NOW + 1, watched=True)
    assert server.connected
    assert server.peername == ("2001:db8::1", 443)
    assert server.sockname == ("2001:db8::2", 50000)
    assert (server.timestamp_start, server.timestamp_tcp_setup) == (NOW, NOW + 1)
    assert not server.tls_established
    assert Server.from_state(copy.deepcopy(server.get_state())).get_state() == server.get_state()


def test_a_killed_flow_is_told_from_a_failed_one() -> None:
    flow = built_flow()
    assert not flow_builder.was_killed(flow)
    flow.error = flow_builder.flow_error("the upstream reset")
    assert isinstance(flow.error, Error)
    assert flow.error.msg == "the upstream reset"
    assert not flow_builder.was_killed(flow)
    flow.error = None
    flow.kill()
    assert flow_builder.was_killed(flow)
