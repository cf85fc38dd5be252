"""Trust bundles: the roots that a trust domain's SVIDs are checked against.

A bundle may hold several roots, so that a root can be replaced without a gap: first everyone trusts
both, then the CA signs with the new one, then the old one is dropped. Two forms are read and
written: PEM, and the JWK set of the SPIFFE "Trust Domain and Bundle" standard §4.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from hms_addons.errors import MeshError
from hms_addons.identity.spiffe_id import SpiffeIdError, validate_trust_domain

if TYPE_CHECKING:
    from collections.abc import Iterable

_X509_SVID_USE = "x509-svid"

# What cryptography raises for extensions that are missing or malformed.
_UNREADABLE = (
    ValueError,
    x509.ExtensionNotFound,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)


class TrustBundleError(MeshError, ValueError):
    """A trust bundle cannot be read; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class TrustBundle:
    """The roots of one trust domain, in the order given, without repetitions.

    Raises:
        TrustBundleError: no roots, one that is not a CA certificate, or a bad trust domain.
    """

    trust_domain: str
    roots: tuple[x509.Certificate, ...]

    def __post_init__(self) -> None:
        """Check what any later use relies upon."""
        try:
            validate_trust_domain(self.trust_domain)
        except SpiffeIdError as error:
            raise TrustBundleError(str(error)) from error
        if not self.roots:
            message = f"the bundle of {self.trust_domain} holds no root certificate"
            raise TrustBundleError(message)
        for root in self.roots:
            if not _is_ca(root):
                message = (
                    f"certificate {root.subject.rfc4514_string()!r} (serial "
                    f"{root.serial_number:x}) in the bundle is not a CA: a bundle holds roots only"
                )
                raise TrustBundleError(message)
        object.__setattr__(self, "roots", tuple(dict.fromkeys(self.roots)))

    @classmethod
    def from_pem(cls, trust_domain: str, pem: bytes) -> TrustBundle:
        """Read the CERTIFICATE blocks of a PEM file.

        Raises:
            TrustBundleError: unreadable, empty, or not CA certificates.
        """
        try:
            roots = x509.load_pem_x509_certificates(pem)
        except (ValueError, x509.InvalidVersion) as error:
            message = f"not a PEM trust bundle: {error}"
            raise TrustBundleError(message) from error
        return cls(trust_domain, tuple(roots))

    @classmethod
    def from_spiffe_json(cls, trust_domain: str, document: bytes | str) -> TrustBundle:
        """Read a SPIFFE bundle (a JWK set); keys for other uses than X.509-SVID are passed over.

        Raises:
            TrustBundleError: not such a document, or without X.509 roots.
        """
        try:
            data = json.loads(document)
        except (ValueError, RecursionError) as error:
            message = f"the SPIFFE bundle is not JSON: {error}"
            raise TrustBundleError(message) from error
        keys = data.get("keys") if isinstance(data, dict) else None
        if not isinstance(keys, list):
            message = "the SPIFFE bundle has no list `keys`"
            raise TrustBundleError(message)
        roots = tuple(
            _root_of(key, position)
            for position, key in enumerate(keys)
            if isinstance(key, dict) and key.get("use") == _X509_SVID_USE
        )
        return cls(trust_domain, roots)

    def to_pem(self) -> bytes:
        """All roots as PEM blocks."""
        return b"".join(root.public_bytes(Encoding.PEM) for root in self.roots)

    def to_spiffe_json(self, *, sequence: int | None = None, refresh_hint: int = 300) -> str:
        """The SPIFFE bundle document.

        Args:
            sequence: `spiffe_sequence`, which grows with every change of the bundle.
            refresh_hint: seconds after which a consumer should ask again.
        """
        document: dict[str, Any] = {
            "keys": [_jwk_of(root) for root in self.roots],
            "spiffe_refresh_hint": refresh_hint,
        }
        if sequence is not None:
            document["spiffe_sequence"] = sequence
        return json.dumps(document, indent=2)

    def fingerprints(self) -> tuple[str, ...]:
        """SHA-256 of each root's DER form, in lower-case hex."""
        return tuple(fingerprint(root) for root in self.roots)

    def with_roots(self, roots: Iterable[x509.Certificate]) -> TrustBundle:
        """A bundle that also trusts `roots`."""
        return TrustBundle(self.trust_domain, (*self.roots, *roots))


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of a certificate's DER form, in lower-case hex."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except _UNREADABLE:
        return False


def _root_of(key: dict[str, Any], position: int) -> x509.Certificate:
    """The certificate of a JWK with `use: x509-svid`, which has exactly one in `x5c` (§4.2.2)."""
    chain = key.get("x5c")
    if not isinstance(chain, list) or len(chain) != 1 or not isinstance(chain[0], str):
        message = f"keys[{position}] of the SPIFFE bundle must have exactly one string in `x5c`"
        raise TrustBundleError(message)
    try:
        return x509.load_der_x509_certificate(base64.b64decode(chain[0], validate=True))
    except (binascii.Error, ValueError, x509.InvalidVersion) as error:
        message = f"keys[{position}].x5c of the SPIFFE bundle is not a certificate: {error}"
        raise TrustBundleError(message) from error


def _jwk_of(root: x509.Certificate) -> dict[str, Any]:
    key = root.public_key()
    if isinstance(key, ec.EllipticCurvePublicKey):
        jwk = ECAlgorithm.to_jwk(key, as_dict=True)
    elif isinstance(key, rsa.RSAPublicKey):
        jwk = RSAAlgorithm.to_jwk(key, as_dict=True)
        jwk.pop("key_ops", None)
    else:
        message = f"a root with a {type(key).__name__} cannot be written as a JWK"
        raise TrustBundleError(message)
    der = base64.b64encode(root.public_bytes(Encoding.DER)).decode("ascii")
    return {**jwk, "use": _X509_SVID_USE, "x5c": [der]}
