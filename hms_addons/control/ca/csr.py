"""Judging a certificate signing request before anything is signed.

Only the public key of a CSR is used; the certificate is built from the CA's template and from the
identity that the *caller has proved*. Still, a CSR that asks for more than it may have (another
name, a CA flag) is refused rather than trimmed: it is a mistake or an attack, and silence would
hide either.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hms_addons.errors import MeshError
from hms_addons.identity.weak_keys import weakness

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

    from hms_addons.identity.spiffe_id import SpiffeId

MAX_CSR_BYTES: Final = 16 * 1024

# What cryptography raises when it looks closer at a request that it has taken apart.
_UNREADABLE: Final = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)

_PURPOSES: Final = frozenset({ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH})


class CsrError(MeshError, ValueError):
    """A CSR is refused; `problems` holds every reason."""

    def __init__(self, *problems: str) -> None:
        self.problems = problems
        super().__init__("the CSR is refused: " + "; ".join(problems))


def load_csr(pem_or_der: bytes) -> x509.CertificateSigningRequest:
    """Read a CSR in PEM or DER form.

    Raises:
        CsrError: too long or unreadable.
    """
    if len(pem_or_der) > MAX_CSR_BYTES:
        message = f"{len(pem_or_der)} bytes long, at most {MAX_CSR_BYTES} are read"
        raise CsrError(message)
    try:
        if pem_or_der.lstrip().startswith(b"-----"):
            return x509.load_pem_x509_csr(pem_or_der)
        return x509.load_der_x509_csr(pem_or_der)
    except (ValueError, x509.InvalidVersion) as error:
        message = f"not a PKCS #10 request: {error}"
        raise CsrError(message) from error


def check_csr(
    csr: x509.CertificateSigningRequest, spiffe_id: SpiffeId
) -> CertificatePublicKeyTypes:
    """The public key to certify, if the CSR asks for nothing but an SVID of `spiffe_id`.

    Accepted: no subjectAltName or exactly this URI; no common name or the service's name; the
    usages that an SVID has. Keys: P-256, P-384, RSA of 2048 bits or more.

    Raises:
        CsrError: with every reason.
    """
    try:
        signed = csr.is_signature_valid
        public_key = csr.public_key()
        problems = [
            *([] if signed else ["its signature does not fit its key (no proof of possession)"]),
            *_key_problems(public_key),
            *_subject_problems(csr.subject, spiffe_id),
            *_extension_problems(csr.extensions, spiffe_id),
        ]
    except _UNREADABLE as error:
        message = f"unreadable: {error}"
        raise CsrError(message) from error
    if problems:
        raise CsrError(*problems)
    return public_key


def _key_problems(public_key: CertificatePublicKeyTypes) -> Iterator[str]:
    if isinstance(public_key, ec.EllipticCurvePublicKey):
        if not isinstance(public_key.curve, ec.SECP256R1 | ec.SECP384R1):
            yield f"the curve {public_key.curve.name} is not accepted (use P-256 or P-384)"
    elif isinstance(public_key, rsa.RSAPublicKey):
        if (reason := weakness(public_key)) is not None:
            yield reason
    else:
        yield f"a {type(public_key).__name__} is not accepted (use P-256, P-384 or RSA)"


def _subject_problems(subject: x509.Name, spiffe_id: SpiffeId) -> Iterator[str]:
    for attribute in subject.get_attributes_for_oid(NameOID.COMMON_NAME):
        if attribute.value != spiffe_id.service:
            yield f"its common name {attribute.value!r} is not {spiffe_id.service!r}"


def _extension_problems(extensions: x509.Extensions, spiffe_id: SpiffeId) -> Iterator[str]:
    for extension in extensions:
        value = extension.value
        if isinstance(value, x509.SubjectAlternativeName):
            if list(value) != [x509.UniformResourceIdentifier(str(spiffe_id))]:
                names = ", ".join(repr(str(name.value)) for name in value)
                yield f"subjectAltName asks for {names} where only {str(spiffe_id)!r} is allowed"
        elif isinstance(value, _USAGES):
            yield from _usage_problems(value)
        elif not isinstance(value, x509.SubjectKeyIdentifier):
            yield f"the extension {extension.oid.dotted_string} is not accepted"


_USAGES: Final = (x509.BasicConstraints, x509.KeyUsage, x509.ExtendedKeyUsage)


def _usage_problems(
    value: x509.BasicConstraints | x509.KeyUsage | x509.ExtendedKeyUsage,
) -> Iterator[str]:
    if isinstance(value, x509.BasicConstraints):
        if value.ca:
            yield "basicConstraints asks for a CA certificate"
    elif isinstance(value, x509.KeyUsage):
        if value.key_cert_sign or value.crl_sign:
            yield "keyUsage asks for keyCertSign or cRLSign"
    elif not _PURPOSES.issuperset(value):
        yield "extendedKeyUsage asks for more than serverAuth and clientAuth"
