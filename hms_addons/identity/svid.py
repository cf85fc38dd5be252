"""X.509-SVIDs: the certificate that proves a SPIFFE ID, and the rules it must meet.

`validate_leaf` is the SPIFFE X.509-SVID standard as a checklist, each item with its section. It
judges a certificate by itself; that a root of the trust bundle stands behind it is checked by
OpenSSL in the handshake, and by `validate_chain` when a secret is loaded.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID

from hms_addons.errors import MeshError
from hms_addons.identity.spiffe_id import SpiffeId, SpiffeIdError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

type SvidKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
"""Private keys that the mesh presents in TLS."""

MAX_CHAIN_LENGTH: Final = 8
"""Certificates in one chain; a longer one is a mistake or an attack on the verifier's time."""

BACKDATE: Final = 60.0
"""Seconds by which the mesh's CA dates certificates back: how far clocks may disagree."""

_PEER_CACHE_SIZE: Final = 1024


class SvidError(MeshError, ValueError):
    """A certificate is not a valid X.509-SVID; `problems` holds every violation found."""

    def __init__(self, *problems: str) -> None:
        self.problems = problems
        super().__init__("; ".join(problems))


@dataclass(frozen=True, slots=True)
class PeerLeaf:
    """What the mesh needs of a peer's certificate whose shape is that of an X.509-SVID.

    Times are seconds since the Unix epoch.
    """

    spiffe_id: SpiffeId
    not_before: float
    not_after: float


@dataclass(frozen=True, slots=True)
class Svid:
    """A certificate chain (leaf first, no root) with its private key.

    `not_before` and `not_after` are seconds since the Unix epoch. The key is left out of `repr`.
    """

    certificates: tuple[x509.Certificate, ...] = field(repr=False)
    private_key: SvidKey = field(repr=False)
    spiffe_id: SpiffeId
    not_before: float
    not_after: float
    serial: int

    @classmethod
    def from_pem(
        cls, chain: bytes, key: bytes, *, now: float, trust_domain: str | None = None
    ) -> Svid:
        """Read a PEM chain (leaf first) and its PEM private key.

        Args:
            chain: one or more CERTIFICATE blocks.
            key: an unencrypted EC or RSA private key.
            now: seconds since the Unix epoch, against which validity is checked.
            trust_domain: if given, the only one accepted.

        Raises:
            SvidError: unreadable, the key is of another certificate, or the leaf is no valid SVID.
        """
        return cls.of(load_certificates(chain), load_key(key), now=now, trust_domain=trust_domain)

    @classmethod
    def of(
        cls,
        certificates: Sequence[x509.Certificate],
        key: SvidKey,
        *,
        now: float,
        trust_domain: str | None = None,
    ) -> Svid:
        """Put a loaded chain and key together; checks and errors as in `from_pem`."""
        if not certificates:
            message = "the certificate chain is empty"
            raise SvidError(message)
        leaf = certificates[0]
        try:
            fits = same_public_key(leaf.public_key(), key.public_key())
        except (ValueError, UnsupportedAlgorithm) as error:
            message = f"the certificate's public key cannot be used: {error}"
            raise SvidError(message) from error
        if not fits:
            message = (
                "the private key does not belong to the certificate "
                f"(serial {leaf.serial_number:x}): give the two files of one issuance"
            )
            raise SvidError(message)
        spiffe_id = validate_leaf(leaf, now, trust_domain)
        return cls(
            certificates=tuple(certificates),
            private_key=key,
            spiffe_id=spiffe_id,
            not_before=leaf.not_valid_before_utc.timestamp(),
            not_after=leaf.not_valid_after_utc.timestamp(),
            serial=leaf.serial_number,
        )

    @property
    def leaf(self) -> x509.Certificate:
        """The certificate that carries the SPIFFE ID."""
        return self.certificates[0]

    def chain_pem(self) -> bytes:
        """The chain as PEM, leaf first."""
        return b"".join(cert.public_bytes(Encoding.PEM) for cert in self.certificates)

    def key_pem(self) -> bytes:
        """The private key as unencrypted PKCS #8 PEM: a secret, for 0600 files and memory only."""
        return self.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def load_certificates(pem: bytes) -> tuple[x509.Certificate, ...]:
    """Read the CERTIFICATE blocks of a PEM text, in order.

    Raises:
        SvidError: there is none, one of them is not a certificate, or there are too many.
    """
    try:
        certificates = tuple(x509.load_pem_x509_certificates(pem))
    except (ValueError, x509.InvalidVersion) as error:
        message = f"not a PEM certificate chain: {error}"
        raise SvidError(message) from error
    if len(certificates) > MAX_CHAIN_LENGTH:
        message = f"a chain of {len(certificates)} certificates: at most {MAX_CHAIN_LENGTH}"
        raise SvidError(message)
    return certificates


def load_key(pem: bytes) -> SvidKey:
    """Read an unencrypted PEM private key, EC or RSA.

    Raises:
        SvidError: unreadable, encrypted, or of another kind. The message never quotes the key.
    """
    try:
        key = load_pem_private_key(pem, password=None)
    except TypeError as error:
        message = "the private key is encrypted with a password: give it unencrypted, mode 0600"
        raise SvidError(message) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        message = "not a PEM private key (expected a PRIVATE KEY or EC PRIVATE KEY block)"
        raise SvidError(message) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        message = f"the private key is a {type(key).__name__}: only EC and RSA keys are supported"
        raise SvidError(message)
    return key


def same_public_key(one: CertificatePublicKeyTypes, other: CertificatePublicKeyTypes) -> bool:
    """Whether two public keys are the same key."""
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return one.public_bytes(*form) == other.public_bytes(*form)


def validate_leaf(
    certificate: x509.Certificate, now: float, trust_domain: str | None = None
) -> SpiffeId:
    """Check that a certificate is a currently valid leaf X.509-SVID; return its SPIFFE ID.

    Args:
        certificate: the leaf.
        now: seconds since the Unix epoch.
        trust_domain: if given, the only one accepted.

    Raises:
        SvidError: with every violation of the standard, not only the first.
    """
    extensions = _extensions(certificate)
    problems = list(_shape_problems(extensions))
    try:
        spiffe_id = _uri_san(extensions)
    except SvidError as error:
        raise SvidError(*error.problems, *problems) from error
    if not spiffe_id.path:
        problems.append(f"{spiffe_id} has no path, so it names a CA, not a workload (§3.1)")
    problems += _validity_problems(
        certificate.not_valid_before_utc.timestamp(),
        certificate.not_valid_after_utc.timestamp(),
        now,
    )
    if trust_domain is not None and spiffe_id.trust_domain != trust_domain:
        problems.append(f"{spiffe_id} is not of the trust domain {trust_domain}")
    if problems:
        raise SvidError(*problems)
    return spiffe_id


def validate_ca(certificate: x509.Certificate, now: float) -> None:
    """Check that a certificate may sign SVIDs at the time `now` (seconds since the epoch).

    Raises:
        SvidError: it is not a CA (X.509-SVID §4.1), lacks keyCertSign (§4.3), or is out of time.
    """
    extensions = _extensions(certificate)
    problems: list[str] = []
    constraints = _find(extensions, x509.BasicConstraints)
    if constraints is None or not constraints.ca:
        problems.append("basicConstraints does not make it a CA (§4.1)")
    usage = _find(extensions, x509.KeyUsage)
    if usage is None or not usage.key_cert_sign:
        problems.append("keyUsage lacks keyCertSign (§4.3)")
    problems += _validity_problems(
        certificate.not_valid_before_utc.timestamp(),
        certificate.not_valid_after_utc.timestamp(),
        now,
    )
    if problems:
        raise SvidError(*problems)


def validate_chain(
    certificates: Sequence[x509.Certificate], roots: Sequence[x509.Certificate], now: float
) -> None:
    """Check that a chain (leaf first) leads to one of the roots.

    This is for our own certificates: a sidecar that presented a chain its peers cannot verify
    would be refused by all of them. What a *peer* presents is judged by OpenSSL.

    Raises:
        SvidError: a link is not signed by the next, an issuer may not sign, or no root fits.
    """
    subject = certificates[0]
    for issuer in certificates[1:]:
        validate_ca(issuer, now)
        if not issued_by(subject, issuer):
            message = (
                f"certificate {subject.serial_number:x} is not signed by the next one in the chain "
                f"({issuer.serial_number:x}): order the chain leaf first"
            )
            raise SvidError(message)
        subject = issuer
    candidates = [root for root in roots if root == subject or issued_by(subject, root)]
    if not candidates:
        message = (
            f"no root of the bundle signed certificate {subject.serial_number:x} (issuer "
            f"{_issuer_name(subject)!r}): the bundle belongs to another CA"
        )
        raise SvidError(message)
    for position, root in enumerate(candidates, 1):
        try:
            validate_ca(root, now)
        except SvidError:
            if position == len(candidates):
                raise
        else:
            return


def peer_spiffe_id(der: bytes) -> SpiffeId:
    """The SPIFFE ID of a peer's leaf certificate in DER form, its shape checked, its dates not.

    Raises:
        SvidError: the certificate is not a leaf X.509-SVID.
    """
    return peer_leaf(der).spiffe_id


@functools.lru_cache(maxsize=_PEER_CACHE_SIZE)
def peer_leaf(der: bytes) -> PeerLeaf:
    """What a peer's certificate says; remembered, because peers reconnect with the same one.

    Only what depends on the bytes alone is remembered: the dates are for the caller to compare.

    Raises:
        SvidError: the certificate is not a leaf X.509-SVID.
    """
    try:
        certificate = x509.load_der_x509_certificate(der)
    except (ValueError, x509.InvalidVersion) as error:
        message = f"not a certificate: {error}"
        raise SvidError(message) from error
    not_before = certificate.not_valid_before_utc.timestamp()
    spiffe_id = validate_leaf(certificate, not_before)
    return PeerLeaf(spiffe_id, not_before, certificate.not_valid_after_utc.timestamp())


def _extensions(certificate: x509.Certificate) -> x509.Extensions:
    try:
        return certificate.extensions
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        message = f"unreadable extensions: {error}"
        raise SvidError(message) from error


def _find[T: x509.ExtensionType](extensions: x509.Extensions, kind: type[T]) -> T | None:
    for extension in extensions:
        if isinstance(extension.value, kind):
            return extension.value
    return None


def _uri_san(extensions: x509.Extensions) -> SpiffeId:
    """The one URI in the subject alternative name (X.509-SVID §2)."""
    names = _find(extensions, x509.SubjectAlternativeName)
    if names is None:
        message = "no subjectAltName, so no SPIFFE ID (§2)"
        raise SvidError(message)
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) != 1:
        message = f"{len(uris)} URIs in subjectAltName where exactly one is allowed (§2)"
        raise SvidError(message)
    try:
        return SpiffeId.parse(uris[0])
    except SpiffeIdError as error:
        message = f"the URI in subjectAltName is not a SPIFFE ID: {error}"
        raise SvidError(message) from error


_BOTH_USAGES: Final = (
    (ExtendedKeyUsageOID.SERVER_AUTH, "serverAuth"),
    (ExtendedKeyUsageOID.CLIENT_AUTH, "clientAuth"),
)


def _shape_problems(extensions: x509.Extensions) -> Iterator[str]:
    """What of a leaf's constraints and usages breaks the standard."""
    constraints = _find(extensions, x509.BasicConstraints)
    if constraints is not None and constraints.ca:
        yield "basicConstraints makes it a CA; a leaf must not be one (§4.1)"
    purposes = _find(extensions, x509.ExtendedKeyUsage)
    if purposes is not None:
        for oid, name in _BOTH_USAGES:
            if oid not in purposes:
                yield f"extendedKeyUsage is present but lacks {name} (§4.4)"
    usage = _find(extensions, x509.KeyUsage)
    if usage is None:
        yield "keyUsage is missing (§4.3)"
        return
    if not usage.digital_signature:
        yield "keyUsage lacks digitalSignature (§4.3)"
    if usage.key_cert_sign:
        yield "keyUsage has keyCertSign; a leaf must not sign certificates (§4.3)"
    if usage.crl_sign:
        yield "keyUsage has cRLSign; a leaf must not sign CRLs (§4.3)"


def _validity_problems(not_before: float, not_after: float, now: float) -> list[str]:
    if now < not_before:
        return [f"not valid before {iso_time(not_before)}; it is {iso_time(now)}"]
    if now > not_after:
        return [f"expired at {iso_time(not_after)}; it is {iso_time(now)}"]
    return []


def _issuer_name(certificate: x509.Certificate) -> str:
    try:
        return certificate.issuer.rfc4514_string()
    except (ValueError, KeyError):  # a name of a type that ASN.1 does not know
        return "an unreadable name"


def issued_by(subject: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether `issuer` has signed `subject`."""
    try:
        subject.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, KeyError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def iso_time(timestamp: float) -> str:
    """Seconds since the Unix epoch as `2026-11-23T10:00:00Z`, for messages."""
    return datetime.fromtimestamp(timestamp, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
