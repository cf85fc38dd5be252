"""Whether a peer would pass the handshake again: its chain, against the bundle as it is now.

OpenSSL looks at a peer once. A connection may live for long after, while a root is taken out of the
bundle because its key was stolen, or the peer's certificate runs out.
"""

from __future__ import annotations

import functools
import ssl
from typing import TYPE_CHECKING, Any, Final

from cryptography import x509

from hms_addons.identity.svid import MAX_CHAIN_LENGTH, SvidError, issued_by, peer_leaf, validate_ca

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hms_addons.identity.trust_bundle import TrustBundle

NEVER: Final = float("-inf")


def peer_chain(ssl_object: ssl.SSLObject) -> tuple[bytes, ...]:
    """What the peer has presented, in DER form, its leaf first; empty if it has presented nothing."""
    try:
        if hasattr(ssl_object, "get_unverified_chain"):
            return tuple(ssl_object.get_unverified_chain())
        # Python 3.12 has it on the inner object only.
        inner: Any = getattr(ssl_object, "_sslobj")  # noqa: B009 - typeshed does not know it
        return tuple(
            ssl.PEM_cert_to_DER_cert(certificate.public_bytes())
            for certificate in inner.get_unverified_chain() or ()
        )
    except ValueError:  # the handshake is not over, or the connection is
        return ()


@functools.lru_cache(maxsize=1024)
def trusted_until(chain: tuple[bytes, ...], bundle: TrustBundle) -> float:
    """Until when a root of `bundle` stands behind a peer's chain.

    Remembered, as many connections have the same peer.

    Args:
        chain: as presented, DER, leaf first; the others in any order.
        bundle: whom to trust.

    Returns:
        Seconds since the epoch; `NEVER` if none does, or the chain cannot be read.
    """
    try:
        leaf, *others = (x509.load_der_x509_certificate(der) for der in chain[:MAX_CHAIN_LENGTH])
    except (ValueError, x509.InvalidVersion):
        return NEVER
    return _until(leaf, [other for other in others if _may_sign(other)], bundle.roots)


def leaf_expiry(ssl_object: Any) -> float | None:
    """When the peer's own certificate runs out, in seconds since the epoch; None without one."""
    der = ssl_object.getpeercert(binary_form=True) if ssl_object is not None else None
    if not der:
        return None
    try:
        return peer_leaf(der).not_after
    except SvidError:
        return None


def _until(
    subject: x509.Certificate,
    issuers: Sequence[x509.Certificate],
    roots: Sequence[x509.Certificate],
) -> float:
    found = NEVER
    for root in roots:
        if root == subject or issued_by(subject, root):
            found = max(found, _end(root))
    for issuer in issuers:
        if issuer != subject and issued_by(subject, issuer):
            rest = [other for other in issuers if other != issuer]
            found = max(found, _until(issuer, rest, roots))
    return min(found, _end(subject))


def _may_sign(certificate: x509.Certificate) -> bool:
    try:
        validate_ca(certificate, certificate.not_valid_before_utc.timestamp())
    except SvidError:
        return False
    return True


def _end(certificate: x509.Certificate) -> float:
    return certificate.not_valid_after_utc.timestamp()
