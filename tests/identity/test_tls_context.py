"""Real handshakes, through memory: what OpenSSL refuses, and what `verify_peer` must."""

from __future__ import annotations

import ssl
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hms_addons.identity import tls_context
from hms_addons.identity.spiffe_id import SpiffeId
from hms_addons.identity.tls_context import (
    PeerIdentityError,
    client_context,
    server_context,
    verify_peer,
)
from tests.fakes import pki
from tests.fakes.handshake import shake

if TYPE_CHECKING:
    from hms_addons.identity.trust_bundle import TrustBundle

TD = pki.TRUST_DOMAIN
AUTH = SpiffeId.for_service(TD, "auth-svc")
CLAIMS = SpiffeId.for_service(TD, "claims-svc")


def client_of(service: str = "claims-svc", trusts: TrustBundle | None = None) -> ssl.SSLContext:
    return client_context(pki.svid(service), trusts or pki.bundle())


def server_of(service: str = "auth-svc", *, strict: bool = True) -> ssl.SSLContext:
    return server_context(pki.svid(service), pki.bundle(), require_peer=strict)


def without_certificate() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=pki.bundle().to_pem().decode())
    return context


def test_both_ends_know_each_other() -> None:
    ends = shake(client_of(), server_of())
    assert verify_peer(ends.client, AUTH, TD) == AUTH
    assert verify_peer(ends.server, None, TD) == CLAIMS
    assert verify_peer(ends.server, frozenset({AUTH, CLAIMS}), TD) == CLAIMS
    assert ends.client.version() == ends.server.version() == "TLSv1.3"
    assert ends.client.selected_alpn_protocol() == "http/1.1"


def test_tls_1_2_is_accepted_with_forward_secrecy() -> None:
    client = client_of()
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    ends = shake(client, server_of())
    assert ends.client.version() == "TLSv1.2"
    assert str(ends.client.cipher()[0]).startswith("ECDHE-")  # type: ignore[index]
    assert verify_peer(ends.server, CLAIMS, TD) == CLAIMS


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
def test_older_tls_is_refused() -> None:
    client = client_of()
    client.minimum_version = client.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError):
        shake(client, server_of())


def test_chains_through_an_intermediate_verify() -> None:
    intermediate = pki.ca().subordinate()
    server = server_context(
        pki.svid("auth-svc", authority=intermediate), pki.bundle(), require_peer=True
    )
    client = client_context(pki.svid("claims-svc", authority=intermediate), pki.bundle())
    ends = shake(client, server)
    assert verify_peer(ends.client, AUTH, TD) == AUTH
    assert verify_peer(ends.server, CLAIMS, TD) == CLAIMS


def test_a_root_is_replaced_without_a_gap() -> None:
    """Old and new SVIDs meet while both roots are trusted; then the old root goes."""
    old, new = pki.ca(), type(pki.ca()).create(TD)
    both = old.bundle.with_roots(new.bundle.roots)
    before = client_context(pki.svid("claims-svc"), both)
    after = server_context(pki.svid("auth-svc", authority=new), both, require_peer=True)
    ends = shake(before, after)
    assert verify_peer(ends.client, AUTH, TD) == AUTH
    only_new = server_context(pki.svid("auth-svc", authority=new), new.bundle, require_peer=True)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(before, only_new)


def test_strict_needs_a_certificate() -> None:
    with pytest.raises(ssl.SSLError, match=r"(?i)peer did not return a certificate"):
        shake(without_certificate(), server_of())


def test_permissive_does_without_but_then_nobody_is_there() -> None:
    ends = shake(without_certificate(), server_of(strict=False))
    assert ends.server.getpeercert(binary_form=True) is None
    with pytest.raises(PeerIdentityError, match="found no certificate"):
        verify_peer(ends.server, None, TD)


def test_permissive_knows_who_shows_a_certificate() -> None:
    ends = shake(client_of(), server_of(strict=False))
    assert verify_peer(ends.server, None, TD) == CLAIMS


REFUSED_BY_OPENSSL = {
    ("expired", "client"),
    ("expired", "server"),
    ("not_yet_valid", "client"),
    ("not_yet_valid", "server"),
    ("client_only", "server"),
    ("server_only", "client"),
}


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("kind", pki.BAD_KINDS)
def test_a_bad_client_is_refused(kind: str, strict: bool, tmp_path: Path) -> None:
    bad = pki.context_presenting(pki.bad_svid(kind), tmp_path, server=False)
    try:
        ends = shake(bad, server_of(strict=strict))
    except ssl.SSLError:
        return
    assert (kind, "client") not in REFUSED_BY_OPENSSL
    with pytest.raises(PeerIdentityError, match=r"expected a workload of .*mpsa\.mil, found"):
        verify_peer(ends.server, None, TD)


@pytest.mark.parametrize("kind", pki.BAD_KINDS)
def test_a_bad_server_is_refused(kind: str, tmp_path: Path) -> None:
    bad = pki.context_presenting(pki.bad_svid(kind), tmp_path, server=True)
    try:
        ends = shake(client_of(), bad)
    except ssl.SSLError:
        return
    assert (kind, "server") not in REFUSED_BY_OPENSSL
    with pytest.raises(PeerIdentityError):
        verify_peer(ends.client, None, TD)


@pytest.mark.parametrize(("kind", "end"), sorted(REFUSED_BY_OPENSSL))
def test_refused_in_the_handshake(kind: str, end: str, tmp_path: Path) -> None:
    bad = pki.context_presenting(pki.bad_svid(kind), tmp_path, server=end == "server")
    client, server = (client_of(), bad) if end == "server" else (bad, server_of())
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(client, server)


def test_another_ca_is_refused_in_the_handshake() -> None:
    stranger = pki.svid("auth-svc", "other.example")
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(client_of(), server_context(stranger, pki.bundle(), require_peer=True))
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(client_context(stranger, pki.bundle()), server_of())


def test_another_trust_domain_is_refused_even_when_its_ca_is_trusted() -> None:
    stranger = pki.svid("auth-svc", "other.example")
    both = pki.bundle().with_roots(pki.bundle("other.example").roots)
    ends = shake(client_of(trusts=both), server_context(stranger, pki.bundle(), require_peer=True))
    with pytest.raises(PeerIdentityError) as caught:
        verify_peer(ends.client, None, TD)
    assert caught.value.found == "spiffe://other.example/svc/auth-svc"


def test_the_right_domain_but_the_wrong_workload() -> None:
    ends = shake(client_of(), server_of("gov-svc"))
    with pytest.raises(PeerIdentityError) as caught:
        verify_peer(ends.client, AUTH, TD)
    assert str(caught.value) == f"expected {AUTH}, found spiffe://mpsa.mil/svc/gov-svc"
    with pytest.raises(PeerIdentityError, match=f"expected {AUTH} or {CLAIMS}, found"):
        verify_peer(ends.client, frozenset({CLAIMS, AUTH}), TD)
    with pytest.raises(PeerIdentityError, match="expected nobody"):
        verify_peer(ends.client, frozenset(), TD)


def test_dates_are_compared_again_after_the_handshake() -> None:
    ends = shake(client_of(), server_of())
    late = pki.svid("auth-svc").not_after + 1
    with pytest.raises(PeerIdentityError, match=r"found spiffe://mpsa\.mil/svc/auth-svc with"):
        verify_peer(ends.client, AUTH, TD, now=late)
    assert verify_peer(ends.client, AUTH, TD, now=late - 2) == AUTH


def test_no_session_outlives_its_connection() -> None:
    ends = shake(client_of(), server_of())
    ends.server.write(b"x")
    assert ends.client.read(1) == b"x"
    session = ends.client.session
    assert session is None or not session.has_ticket


def open_descriptors() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def test_the_key_is_left_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    before = open_descriptors()
    client_of()
    assert list(tmp_path.iterdir()) == []
    assert open_descriptors() == before


def test_without_proc_the_key_is_in_a_private_file_for_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls_context, "_DESCRIPTORS", tmp_path / "no-such-folder")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with tls_context._private_file(b"secret") as path:
        assert Path(path).parent == tmp_path
        assert Path(path).stat().st_mode & 0o777 == 0o600
        assert Path(path).read_bytes() == b"secret"
    assert list(tmp_path.iterdir()) == []
    ends = shake(client_of(), server_of())
    assert verify_peer(ends.client, AUTH, TD, now=time.time()) == AUTH
    assert list(tmp_path.iterdir()) == []
