"""The CA's second look: what it has signed is checked before it is handed out.

As in SPIRE's `credvalidator`: the code that judges knows nothing of the code that builds, so a
mistake in a template or a CSR check becomes an error here and not a certificate out there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hms_addons.errors import MeshError
from hms_addons.identity.svid import (
    SvidError,
    same_public_key,
    validate_ca,
    validate_chain,
    validate_leaf,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

    from hms_addons.identity.spiffe_id import SpiffeId
    from hms_addons.identity.trust_bundle import TrustBundle


class CredentialError(MeshError, RuntimeError):
    """The CA signed something that it must not hand out: a defect of the CA itself."""


def validate_svid(
    chain: Sequence[x509.Certificate],
    spiffe_id: SpiffeId,
    public_key: CertificatePublicKeyTypes,
    bundle: TrustBundle,
    now: float,
) -> None:
    """Check a freshly signed SVID chain (leaf first) against what was asked for.

    Raises:
        CredentialError: it is not a valid SVID, not for that ID or key, or no root stands behind.
    """
    leaf = chain[0]
    try:
        found = validate_leaf(leaf, now, bundle.trust_domain)
        validate_chain(chain, bundle.roots, now)
    except SvidError as error:
        message = f"signed an invalid SVID for {spiffe_id}, which is withheld: {error}"
        raise CredentialError(message) from error
    if found != spiffe_id:
        message = f"signed an SVID for {found} where {spiffe_id} was asked for; it is withheld"
        raise CredentialError(message)
    if not same_public_key(leaf.public_key(), public_key):
        message = f"signed an SVID for {spiffe_id} with another key than asked; it is withheld"
        raise CredentialError(message)


def validate_authority(chain: Sequence[x509.Certificate], bundle: TrustBundle, now: float) -> None:
    """Check a CA's own certificate chain (signing certificate first).

    Raises:
        CredentialError: it may not sign SVIDs, or no root of the bundle stands behind it.
    """
    try:
        validate_ca(chain[0], now)
        validate_chain(chain, bundle.roots, now)
    except SvidError as error:
        message = f"the CA certificate of {bundle.trust_domain} is not usable: {error}"
        raise CredentialError(message) from error
