"""Trust bundles: the roots that a trust domain's SVIDs are checked against.

A bundle may hold several roots, so that a root can be replaced without a gap: first everyone trusts
both, then the CA signs with the new one, then the old one is dropped. Two forms are read and
written: PEM, and the JWK set of the SPIFFE "Trust Domain and Bundle" standard §4.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from jwt.exceptions import PyJWTError

from hms_addons.errors import MeshError
from hms_addons.identity.spiffe_id import SpiffeIdError, validate_trust_domain

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_BUNDLE_BYTES: Final = 1024 * 1024
MAX_ROOTS: Final = 64
"""More would slow every handshake; a rotation needs two."""

REFRESH_HINT: Final = 300
"""Seconds after which a consumer should look for a newer bundle, where nothing else is said."""

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

    `sequence` grows with every change of the bundle, `refresh_hint` is in seconds; both are None
    where the bundle's source tells none, and neither counts when bundles are compared.

    Raises:
        TrustBundleError: no roots, too many, one that is not a CA certificate, or a bad trust
            domain.
    """

    trust_domain: str
    roots: tuple[x509.Certificate, ...] = field(repr=False)
    sequence: int | None = field(default=None, compare=False)
    refresh_hint: int | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        """Check what any later use relies upon."""
        try:
            validate_trust_domain(self.trust_domain)
        except SpiffeIdError as error:
            raise TrustBundleError(str(error)) from error
        if not self.roots:
            message = f"the bundle of {self.trust_domain} holds no root certificate"
            raise TrustBundleError(message)
        if len(self.roots) > MAX_ROOTS:
            message = f"a bundle of {len(self.roots)} roots: at most {MAX_ROOTS}"
            raise TrustBundleError(message)
        for root in self.roots:
            if not _is_ca(root):
                message = (
                    "a certificate (serial "
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
        """Read a SPIFFE bundle (a JWK set, strictly); keys for other uses are passed over (§4.2.2).

        Raises:
            TrustBundleError: not such a document, too large, or without X.509 roots.
        """
        if len(document) > MAX_BUNDLE_BYTES:
            message = f"a SPIFFE bundle of {len(document)} bytes: at most {MAX_BUNDLE_BYTES}"
            raise TrustBundleError(message)
        try:
            data = json.loads(
                document, object_pairs_hook=_unique_members, parse_constant=_no_number
            )
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
        return cls(
            trust_domain,
            roots,
            sequence=_count(data, "spiffe_sequence"),
            refresh_hint=_count(data, "spiffe_refresh_hint"),
        )

    def to_pem(self) -> bytes:
        """All roots as PEM blocks."""
        return b"".join(root.public_bytes(Encoding.PEM) for root in self.roots)

    def to_spiffe_json(
        self, *, sequence: int | None = None, refresh_hint: int | None = None
    ) -> str:
        """The SPIFFE bundle document.

        Args:
            sequence: `spiffe_sequence`; the bundle's own if not given.
            refresh_hint: `spiffe_refresh_hint`, in seconds; the bundle's own if not given, else
                `REFRESH_HINT`.
        """
        own_hint = REFRESH_HINT if self.refresh_hint is None else self.refresh_hint
        document: dict[str, Any] = {
            "keys": [_jwk_of(root) for root in self.roots],
            "spiffe_refresh_hint": own_hint if refresh_hint is None else refresh_hint,
        }
        number = self.sequence if sequence is None else sequence
        if number is not None:
            document["spiffe_sequence"] = number
        return json.dumps(document, indent=2)

    def fingerprints(self) -> tuple[str, ...]:
        """SHA-256 of each root's DER form, in lower-case hex."""
        return tuple(fingerprint(root) for root in self.roots)

    def with_roots(self, roots: Iterable[x509.Certificate]) -> TrustBundle:
        """A bundle that also trusts `roots`."""
        return TrustBundle(self.trust_domain, (*self.roots, *roots), refresh_hint=self.refresh_hint)


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of a certificate's DER form, in lower-case hex."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except _UNREADABLE:
        return False


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; a repeated name, which readers understand differently, is an error."""
    members = dict(pairs)
    if len(members) != len(pairs):
        message = "a member's name is repeated"
        raise ValueError(message)
    return members


def _no_number(text: str) -> None:
    """Refuse `NaN` and `Infinity`, which Python reads and JSON does not know."""
    message = f"{text} is no JSON number"
    raise ValueError(message)


def _count(data: dict[str, Any], name: str) -> int | None:
    """An optional whole number that is not negative (§4.1.1, §4.1.2)."""
    value = data.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        message = f"`{name}` of the SPIFFE bundle must be a whole number, 0 or more"
        raise TrustBundleError(message)
    return value


def _root_of(key: dict[str, Any], position: int) -> x509.Certificate:
    """The certificate of a JWK with `use: x509-svid`, which has exactly one in `x5c` (§4.2.2)."""
    chain = key.get("x5c")
    if not isinstance(chain, list) or len(chain) != 1 or not isinstance(chain[0], str):
        message = f"keys[{position}] of the SPIFFE bundle must have exactly one string in `x5c`"
        raise TrustBundleError(message)
    try:
        root = x509.load_der_x509_certificate(base64.b64decode(chain[0], validate=True))
    except (binascii.Error, ValueError, x509.InvalidVersion) as error:
        message = f"keys[{position}].x5c of the SPIFFE bundle is not a certificate: {error}"
        raise TrustBundleError(message) from error
    own = _public_jwk(root)
    differing = [name for name, value in own.items() if key.get(name) != value]
    if differing:
        message = (
            f"keys[{position}] of the SPIFFE bundle is not the key of its certificate: "
            f"{', '.join(differing)} (RFC 7517 §4.7)"
        )
        raise TrustBundleError(message)
    return root


def _public_jwk(root: x509.Certificate) -> dict[str, str]:
    """The members that describe a root's key (RFC 7518 §6.2, §6.3)."""
    try:
        key = root.public_key()
        if isinstance(key, ec.EllipticCurvePublicKey):
            return ECAlgorithm.to_jwk(key, as_dict=True)
        if isinstance(key, rsa.RSAPublicKey):
            jwk = RSAAlgorithm.to_jwk(key, as_dict=True)
            jwk.pop("key_ops", None)
            return jwk
    except (ValueError, UnsupportedAlgorithm, PyJWTError) as error:
        message = f"a root's key cannot be written as a JWK: {error}"
        raise TrustBundleError(message) from error
    message = f"a root with a {type(key).__name__} cannot be written as a JWK"
    raise TrustBundleError(message)


def _jwk_of(root: x509.Certificate) -> dict[str, Any]:
    der = base64.b64encode(root.public_bytes(Encoding.DER)).decode("ascii")
    return {**_public_jwk(root), "use": _X509_SVID_USE, "x5c": [der]}
