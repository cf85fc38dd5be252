"""Who is at the other end: real handshakes in memory, then the check of the connection."""

from __future__ import annotations

import hashlib
import logging
import ssl
import time
import types
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from hms_addons.config.snapshot import TlsMode
from hms_addons.control.ca.authority import CertificateAuthority
from hms_addons.engine.peer import identify_connection, recheck_peers, watch_expiry
from hms_addons.identity.identity_holder import Identity, SecretMaterial
from hms_addons.identity.tls_context import client_context
from tests.fakes import pki
from tests.fakes.clock import FakeClock
from tests.fakes.exchange import make_listener
from tests.fakes.handshake import shake

if TYPE_CHECKING:
    from pathlib import Path

    from hms_addons.engine.connection_context import ConnectionContext

IDENTITY = Identity.of(SecretMaterial(pki.svid("auth-svc"), pki.bundle()), 1)


def anonymous() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=pki.bundle().to_pem().decode())
    return context


def identified(
    client: ssl.SSLContext | None,
    tls: TlsMode,
    *,
    identity: Identity | None = IDENTITY,
    now: float | None = None,
    watched: bool = False,
    permissive: bool | None = None,
) -> ConnectionContext | None:
    """The context of a connection over TLS by `client`, or of a plain one (None)."""
    require = tls is TlsMode.STRICT if permissive is None else not permissive
    server = IDENTITY.server_context(require_peer=require)
    ssl_object = shake(client, server).server if client else None
    connection: Any = types.SimpleNamespace(
        transport=types.SimpleNamespace(get_extra_info={"ssl_object": ssl_object}.get),
        peername=("192.0.2.7", 40000),
        sockname=("127.0.0.1", 15006),
    )
    listener = make_listener(tls=tls)
    moment = time.time() if now is None else now
    return identify_connection(connection, listener, identity, None, moment, watched=watched)


def claims() -> ssl.SSLContext:
    return client_context(pki.svid("claims-svc"), pki.bundle())


def test_a_plain_connection_has_no_peer() -> None:
    context = identified(None, TlsMode.NONE)
    assert context is not None
    assert (context.scheme, context.peer, context.xfcc) == (b"http", None, None)
    assert context.client.peername == ("192.0.2.7", 40000)
    assert not context.client.tls


@pytest.mark.parametrize("tls", [TlsMode.STRICT, TlsMode.PERMISSIVE])
def test_a_plain_connection_to_a_tls_listener_is_closed(tls: TlsMode) -> None:
    assert identified(None, tls) is None


@pytest.mark.parametrize("tls", [TlsMode.STRICT, TlsMode.PERMISSIVE])
def test_a_peer_of_the_mesh_is_known(tls: TlsMode) -> None:
    context = identified(claims(), tls)
    assert context is not None
    assert context.peer == "spiffe://mpsa.mil/svc/claims-svc"
    assert context.scheme == b"https"
    assert context.client.tls_established
    assert context.client.tls_version == "TLSv1.3"


def test_the_client_certificate_header_is_as_envoy_writes_it() -> None:
    context = identified(claims(), TlsMode.STRICT)
    assert context is not None
    der = pki.svid("claims-svc").certificates[0].public_bytes(Encoding.DER)
    assert (
        context.xfcc
        == (
            f"By=spiffe://mpsa.mil/svc/auth-svc;Hash={hashlib.sha256(der).hexdigest()};"
            "URI=spiffe://mpsa.mil/svc/claims-svc"
        ).encode()
    )


def test_the_certificate_is_shown_only_where_somebody_looks() -> None:
    unseen = identified(claims(), TlsMode.STRICT)
    seen = identified(claims(), TlsMode.STRICT, watched=True)
    assert unseen is not None
    assert seen is not None
    assert unseen.client.certificate_list == ()
    [certificate] = seen.client.certificate_list
    assert certificate.to_cryptography() == pki.svid("claims-svc").certificates[0]


def test_permissive_lets_a_caller_without_a_certificate_in_as_nobody() -> None:
    context = identified(anonymous(), TlsMode.PERMISSIVE)
    assert context is not None
    assert (context.scheme, context.peer, context.xfcc) == (b"https", None, None)


def test_strict_does_not_even_where_the_handshake_did(caplog: pytest.LogCaptureFixture) -> None:
    """The listener was made strict after the handshake had begun as permissive."""
    assert identified(anonymous(), TlsMode.STRICT, permissive=True) is None
    assert "peers: 192.0.2.7:40000 refused" in caplog.text
    assert "no certificate" in caplog.text


@pytest.mark.parametrize("tls", [TlsMode.STRICT, TlsMode.PERMISSIVE])
def test_a_peer_of_another_trust_domain_is_closed(
    tls: TlsMode, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its certificate is signed by a trusted CA, which is not enough."""
    bad = pki.context_presenting(pki.bad_svid("other_trust_domain"), tmp_path, server=False)
    with caplog.at_level(logging.WARNING):
        assert identified(bad, tls) is None
    assert "mpsa.mil" in caplog.text
    assert "other.example" in caplog.text


@pytest.mark.parametrize("kind", ["no_uri", "two_uris", "is_ca", "not_spiffe"])
def test_what_is_no_svid_is_closed_on_a_permissive_listener_too(kind: str, tmp_path: Path) -> None:
    bad = pki.context_presenting(pki.bad_svid(kind), tmp_path, server=False)
    assert identified(bad, TlsMode.PERMISSIVE) is None


def test_a_certificate_that_has_run_out_by_the_mesh_s_clock_is_closed() -> None:
    assert identified(claims(), TlsMode.STRICT, now=time.time() + 30 * 24 * 3600) is None


def test_without_an_identity_there_is_nobody_to_compare_with() -> None:
    assert identified(claims(), TlsMode.STRICT, identity=None) is None


class Live:
    """A connection that is up, by the handshake of some client; None: plain."""

    def __init__(self, client: ssl.SSLContext | None, server: Identity = IDENTITY) -> None:
        context = server.server_context(require_peer=False)
        ssl_object = shake(client, context).server if client else None
        self.transport = types.SimpleNamespace(get_extra_info={"ssl_object": ssl_object}.get)
        self.peername, self.sockname = ("192.0.2.7", 40000), ("127.0.0.1", 15006)
        self.retired = 0
        mode = TlsMode.PERMISSIVE if client else TlsMode.NONE
        self.context = identify_connection(
            self,  # type: ignore[arg-type] # as much of a connection as is looked at
            make_listener(tls=mode),
            server,
            None,
            time.time(),
            watched=False,
        )

    def retire(self) -> None:
        self.retired += 1


def test_peers_whose_root_or_time_is_gone_are_retired(caplog: pytest.LogCaptureFixture) -> None:
    other = CertificateAuthority.create(pki.TRUST_DOMAIN)
    both = pki.bundle().with_roots(other.bundle.roots)
    before = Identity.of(SecretMaterial(pki.svid("auth-svc"), both), 1)
    short = pki.svid("claims-svc", lifetime=60)
    leaving = Live(client_context(short, both), before)
    foreign = Live(client_context(pki.svid("claims-svc", authority=other), both), before)
    staying = [Live(claims()), Live(anonymous()), Live(None)]
    connections: list[Any] = [leaving, foreign, *staying]
    assert recheck_peers(connections, before, short.not_after) == 0
    caplog.set_level(logging.INFO)
    assert recheck_peers(connections, IDENTITY, short.not_after) == 1
    assert (leaving.retired, foreign.retired) == (0, 1)
    assert (
        "192.0.2.7:40000: spiffe://mpsa.mil/svc/claims-svc is not trusted any more" in caplog.text
    )
    assert recheck_peers(connections, before, short.not_after + 1) == 1
    assert leaving.retired == 1
    assert not any(connection.retired for connection in staying)


def test_a_handshake_begun_under_the_old_bundle_is_judged_by_the_new() -> None:
    other = CertificateAuthority.create(pki.TRUST_DOMAIN)
    both = pki.bundle().with_roots(other.bundle.roots)
    before = Identity.of(SecretMaterial(pki.svid("auth-svc"), both), 1)
    for authority, welcome in ((pki.ca(), True), (other, False)):
        svid = pki.svid("claims-svc", authority=authority)
        late: Any = Live(client_context(svid, both), before)
        assert late.context is not None
        context = identify_connection(
            late, make_listener(tls=TlsMode.STRICT), IDENTITY, None, time.time(), watched=False
        )
        assert (context is not None) is welcome


async def test_a_certificate_that_expires_retires_its_connection() -> None:
    clock = FakeClock(wall=time.time())
    live: Any = Live(client_context(pki.svid("claims-svc", lifetime=60), pki.bundle()))
    watch_expiry(live, clock)
    clock.step(-30)  # the clock is set back: there is more time than it seemed
    await clock.advance(61)
    assert live.retired == 0
    await clock.advance(30)
    assert live.retired == 1
    assert clock.pending == 0
    gone: Any = Live(claims())
    watch_expiry(gone, clock)
    assert clock.pending == 1
    gone.context.close(clock.wall())
    assert clock.pending == 0
    plain: Any = Live(None)
    watch_expiry(plain, clock)
    assert clock.pending == 0
