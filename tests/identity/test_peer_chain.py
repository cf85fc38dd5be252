"""A peer's chain against the bundle as it is now."""

from __future__ import annotations

import ssl
import time
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from hms_addons.control.ca.authority import CertificateAuthority
from hms_addons.identity.identity_holder import Identity, SecretMaterial
from hms_addons.identity.peer_chain import NEVER, leaf_expiry, peer_chain, trusted_until
from hms_addons.identity.tls_context import client_context, server_context
from tests.fakes import pki

if TYPE_CHECKING:
    from cryptography import x509

    from hms_addons.identity.svid import Svid
    from hms_addons.identity.trust_bundle import TrustBundle

OTHER = CertificateAuthority.create(pki.TRUST_DOMAIN)
"""Another root of the same trust domain."""
SUBORDINATE = pki.ca().subordinate()
BOTH = pki.bundle().with_roots(OTHER.bundle.roots)


def chain_of(svid: Svid, *more: x509.Certificate) -> tuple[bytes, ...]:
    return tuple(cert.public_bytes(Encoding.DER) for cert in (*svid.certificates, *more))


def shake(client: Svid, *, server: Svid, bundle: TrustBundle = BOTH) -> list[ssl.SSLObject]:
    """Both ends of a finished handshake: the client's, the server's."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client_context(client, bundle).wrap_bio(to_client, to_server, server_side=False),
        server_context(server, bundle, require_peer=True).wrap_bio(
            to_server, to_client, server_side=True
        ),
    ]
    done = 0
    while done < len(ends):
        done = 0
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            done += 1
    return ends


def test_a_root_of_the_bundle_stands_behind_its_own_leaves() -> None:
    svid = pki.svid("claims-svc", lifetime=3600)
    assert trusted_until(chain_of(svid), pki.bundle()) == svid.not_after
    assert trusted_until(chain_of(svid), BOTH) == svid.not_after
    assert trusted_until(chain_of(svid), OTHER.bundle) == NEVER


def test_a_chain_by_way_of_an_intermediate_in_any_order() -> None:
    svid = pki.svid("claims-svc", authority=SUBORDINATE)
    assert len(svid.certificates) > 1
    chain = chain_of(svid, *OTHER.bundle.roots)
    assert trusted_until(chain, pki.bundle()) == svid.not_after
    assert trusted_until((chain[0], *reversed(chain[1:])), pki.bundle()) == svid.not_after
    assert trusted_until(chain[:1], pki.bundle()) == NEVER, "the link is missing"
    assert trusted_until(chain, OTHER.bundle) == NEVER, "what a peer shows is no root"


def test_a_leaf_signs_nothing() -> None:
    svid, other = pki.svid("claims-svc"), pki.svid("auth-svc")
    assert trusted_until(chain_of(other) + chain_of(svid), OTHER.bundle) == NEVER


@pytest.mark.parametrize("chain", [(), (b"no certificate",)])
def test_what_cannot_be_read_is_not_trusted(chain: tuple[bytes, ...]) -> None:
    assert trusted_until(chain, BOTH) == NEVER


@pytest.mark.parametrize("authority", [None, OTHER, SUBORDINATE])
def test_both_ends_see_the_others_whole_chain(authority: CertificateAuthority | None) -> None:
    svid = pki.svid("claims-svc", authority=authority)
    client, server = shake(svid, server=pki.svid("auth-svc"))
    # OpenSSL sends the root too.
    assert peer_chain(server)[: len(svid.certificates)] == chain_of(svid)
    assert peer_chain(client)[:1] == chain_of(pki.svid("auth-svc"))
    assert leaf_expiry(server) == svid.not_after


def test_who_shows_nothing_has_no_chain() -> None:
    fresh = client_context(pki.svid("auth-svc"), BOTH).wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO())
    assert peer_chain(fresh) == ()
    assert leaf_expiry(None) is None


def test_an_identity_still_trusts_or_no_longer() -> None:
    _, server = shake(pki.svid("claims-svc", authority=OTHER), server=pki.svid("auth-svc"))
    now = time.time()
    before = Identity.of(SecretMaterial(pki.svid("auth-svc"), BOTH), 1)
    after = Identity.of(SecretMaterial(pki.svid("auth-svc"), pki.bundle()), 2)
    assert before.still_trusts(server, now)
    assert not after.still_trusts(server, now)
    assert not before.still_trusts(server, now + 25 * 3600), "its certificate has expired"
