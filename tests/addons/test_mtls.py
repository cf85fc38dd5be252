from __future__ import annotations

import pytest

from hms_addons.addons.mtls import Mtls
from hms_addons.config.snapshot import Direction, HeaderNames, TlsMode
from hms_addons.errors import Flag
from tests.fakes.exchange import make_exchange, make_listener, make_snapshot, sent

PEER = "spiffe://mpsa.mil/svc/claims-svc"
XFCC = b"By=spiffe://mpsa.mil/svc/auth-svc;Hash=00ff;URI=spiffe://mpsa.mil/svc/claims-svc"


@pytest.mark.parametrize("mode", [TlsMode.STRICT, TlsMode.PERMISSIVE])
def test_the_verified_peer_becomes_the_caller(mode: TlsMode) -> None:
    exchange = make_exchange(listener=make_listener(tls=mode), peer=PEER)
    Mtls().hms_identify(exchange)
    assert exchange.peer == PEER
    assert exchange.failure is None


def test_a_strict_listener_refuses_whoever_shows_no_certificate() -> None:
    exchange = make_exchange(listener=make_listener(tls=TlsMode.STRICT))
    Mtls().hms_identify(exchange)
    assert exchange.peer is None
    assert exchange.failure is not None
    assert (exchange.failure.status, exchange.failure.flag) == (403, Flag.RBAC)
    assert exchange.failure.close
    assert "listener 'peers' is strict" in exchange.failure.detail


def test_a_strict_listener_refuses_a_request_that_came_by_no_connection_of_ours() -> None:
    exchange = make_exchange(listener=make_listener(tls=TlsMode.STRICT))
    exchange.downstream = None
    Mtls().hms_identify(exchange)
    assert exchange.failure is not None


@pytest.mark.parametrize("mode", [TlsMode.NONE, TlsMode.PERMISSIVE])
def test_elsewhere_a_caller_without_a_certificate_is_merely_unknown(mode: TlsMode) -> None:
    plugin = Mtls()
    exchange = make_exchange(listener=make_listener(tls=mode), headers=[("X-Caller-Service", PEER)])
    plugin.hms_identify(exchange)
    plugin.hms_prepare(exchange)
    assert exchange.failure is None
    assert exchange.peer is None
    assert sent(exchange, "X-Caller-Service") == []


def test_the_app_is_told_who_calls() -> None:
    plugin = Mtls()
    exchange = make_exchange(
        listener=make_listener(tls=TlsMode.STRICT),
        headers=[("X-Caller-Service", "spiffe://mpsa.mil/svc/forged"), ("Accept", "*/*")],
        peer=PEER,
        xfcc=XFCC,
    )
    plugin.hms_identify(exchange)
    plugin.hms_prepare(exchange)
    assert sent(exchange, "X-Caller-Service") == [PEER]
    assert sent(exchange, "X-Forwarded-Client-Cert") == [XFCC.decode()]
    assert sent(exchange, "Accept") == ["*/*"]


def test_the_header_has_the_configured_name() -> None:
    plugin = Mtls()
    snapshot = make_snapshot(headers=HeaderNames(service=b"X-Peer"))
    exchange = make_exchange(snapshot=snapshot, peer=PEER)
    plugin.hms_identify(exchange)
    plugin.hms_prepare(exchange)
    assert sent(exchange, "X-Peer") == [PEER]
    assert sent(exchange, "X-Caller-Service") == []
    assert sent(exchange, "X-Forwarded-Client-Cert") == []


def test_a_peer_that_another_plugin_has_verified_is_named_too() -> None:
    exchange = make_exchange()
    exchange.downstream = None
    exchange.peer = PEER
    Mtls().hms_prepare(exchange)
    assert sent(exchange, "X-Caller-Service") == [PEER]


def test_an_outbound_request_carries_no_caller_service() -> None:
    """The far sidecar sets it, from what it has verified itself."""
    plugin = Mtls()
    exchange = make_exchange(listener=make_listener(direction=Direction.OUTBOUND), peer=PEER)
    plugin.hms_identify(exchange)
    plugin.hms_prepare(exchange)
    assert sent(exchange, "X-Caller-Service") == []


def test_repr() -> None:
    assert repr(Mtls()) == "<Mtls>"
