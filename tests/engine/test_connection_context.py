"""What one connection's requests share."""

from __future__ import annotations

import pytest
from mitmproxy.connection import ConnectionState

from hms_addons.engine.connection_context import ConnectionContext
from hms_addons.engine.flow_builder import build_client


def make_context(*, tls: bool = False, ip: str = "192.0.2.7") -> ConnectionContext:
    return ConnectionContext(
        build_client((ip, 40000), ("127.0.0.1", 15001), None, tls=tls), tls=tls
    )


@pytest.mark.parametrize(
    ("host", "plain", "tls"),
    [
        (b"auth-svc.svc", ("auth-svc.svc", 80), ("auth-svc.svc", 443)),
        (b"auth-svc.svc:8080", ("auth-svc.svc", 8080), ("auth-svc.svc", 8080)),
        (b"auth-svc.svc:", ("auth-svc.svc:", 80), ("auth-svc.svc:", 443)),
        (b"[::1]:9001", ("::1", 9001), ("::1", 9001)),
        (b"[::1]", ("::1", 80), ("::1", 443)),
        (b"[2001:db8::80]", ("2001:db8::80", 80), ("2001:db8::80", 443)),
        (b"", ("", 80), ("", 443)),
    ],
)
def test_host_and_port(host: bytes, plain: tuple[str, int], tls: tuple[str, int]) -> None:
    assert make_context().host_and_port(host) == plain
    assert make_context(tls=True).host_and_port(host) == tls


def test_what_is_remembered_is_only_the_same_host() -> None:
    context = make_context()
    assert context.host_and_port(b"a.svc:1") == ("a.svc", 1)
    assert context.host_and_port(b"a.svc:1") is context.host_and_port(b"a.svc:1")
    assert context.host_and_port(b"b.svc") == ("b.svc", 80)
    assert context.host_and_port(b"a.svc:1") == ("a.svc", 1)


@pytest.mark.parametrize(("tls", "scheme"), [(False, b"http"), (True, b"https")])
def test_what_every_request_carries_on(tls: bool, scheme: bytes) -> None:
    context = make_context(tls=tls, ip="198.51.100.9")
    assert context.scheme == scheme
    own = dict(context.own)
    assert own[b"X-Forwarded-For"] == b"198.51.100.9"
    assert own[b"X-Forwarded-Proto"] == scheme
    assert b"Via" in own


def test_no_peer_is_known_unless_it_is_given() -> None:
    assert make_context().peer is None
    assert make_context(tls=True).xfcc is None


def test_closing_shows_on_the_flow_s_client() -> None:
    context = make_context()
    context.close(1234.5)
    assert context.client.state is ConnectionState.CLOSED
    assert context.client.timestamp_end == 1234.5
