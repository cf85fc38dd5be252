"""What each kind of certificate looks like, in one place.

All keys that the CA makes are P-256: the field's default (SPIRE, Istio), small on the wire and
cheap in handshakes. Serial numbers are 159 random bits (RFC 5280 §4.1.2.2). Everything is valid
from one minute ago, for peers whose clocks are slightly behind; ends are rounded up to the whole
second that a certificate can tell, or a life of two seconds might last only one.

Times are seconds since the Unix epoch, durations seconds.
"""

from __future__ import annotations

import ipaddress
import math
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hms_addons.identity.svid import BACKDATE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

    from hms_addons.identity.spiffe_id import SpiffeId

DEFAULT_SVID_LIFETIME: Final = 24 * 3600.0
ROOT_LIFETIME: Final = 10 * 365 * 86400.0
INTERMEDIATE_LIFETIME: Final = 365 * 86400.0

_ORGANIZATION: Final = "HMS-SVC"

_HOST_NAME = re.compile(r"(?=.{1,253}$)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*", re.ASCII)


def new_key() -> ec.EllipticCurvePrivateKey:
    """A fresh P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def root(
    trust_domain_id: SpiffeId, public_key: CertificatePublicKeyTypes, *, now: float
) -> x509.CertificateBuilder:
    """A self-signed root, ready to sign with the key that belongs to `public_key`."""
    serial = x509.random_serial_number()
    # The serial makes the name unique: two roots overlap while one is being replaced, and chain
    # building by name must not confuse them.
    subject = _name(f"root {serial:x}"[:24])
    builder = _builder(subject, subject, public_key, serial)
    builder = _validity(builder, now, now + ROOT_LIFETIME)
    return _ca_extensions(builder, trust_domain_id, public_key, public_key, path_length=1)


def intermediate(
    trust_domain_id: SpiffeId,
    public_key: CertificatePublicKeyTypes,
    issuer: x509.Certificate,
    *,
    now: float,
) -> x509.CertificateBuilder:
    """A CA that signs SVIDs in a root's stead, so that the root's key can stay offline."""
    serial = x509.random_serial_number()
    subject = _name(f"intermediate {serial:x}"[:32])
    builder = _builder(subject, issuer.subject, public_key, serial)
    builder = _validity(builder, now, min(now + INTERMEDIATE_LIFETIME, _end(issuer)))
    return _ca_extensions(builder, trust_domain_id, public_key, issuer.public_key(), path_length=0)


def svid(
    spiffe_id: SpiffeId,
    public_key: CertificatePublicKeyTypes,
    issuer: x509.Certificate,
    *,
    now: float,
    lifetime: float,
    names: Sequence[x509.GeneralName] = (),
) -> x509.CertificateBuilder:
    """A workload's leaf, per the X.509-SVID standard; it never outlives its issuer.

    `names` are host names and addresses beside the SPIFFE ID, which the standard allows (§2).
    """
    builder = _builder(
        x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, _ORGANIZATION)]),
        issuer.subject,
        public_key,
        x509.random_serial_number(),
    )
    return (
        _validity(builder, now, min(now + lifetime, _end(issuer)))
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(spiffe_id)), *names]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(ca=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage(
                [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
            ),
            critical=False,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(_authority_key(issuer.public_key()), critical=False)
    )


def host_name(name: str) -> x509.GeneralName:
    """A host name or an IP address, as a certificate carries it.

    Raises:
        ValueError: no certificate can carry it.
    """
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        if not _HOST_NAME.fullmatch(name):
            message = (
                f"{name!r} is neither an IP address nor a host name that a certificate carries"
            )
            raise ValueError(message) from None
        return x509.DNSName(name)


def _builder(
    subject: x509.Name, issuer: x509.Name, public_key: CertificatePublicKeyTypes, serial: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(serial)
    )


def _validity(
    builder: x509.CertificateBuilder, now: float, not_after: float
) -> x509.CertificateBuilder:
    return builder.not_valid_before(_moment(now - BACKDATE)).not_valid_after(
        _moment(math.ceil(not_after))
    )


def _ca_extensions(
    builder: x509.CertificateBuilder,
    trust_domain_id: SpiffeId,
    public_key: CertificatePublicKeyTypes,
    issuer_key: CertificatePublicKeyTypes,
    *,
    path_length: int,
) -> x509.CertificateBuilder:
    """What makes a certificate a CA of the trust domain, whose ID has no path (§3.2)."""
    return (
        builder.add_extension(_uri(trust_domain_id), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_key_usage(ca=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(_authority_key(issuer_key), critical=False)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, _ORGANIZATION),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def _uri(spiffe_id: SpiffeId) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(spiffe_id))])


def _authority_key(issuer_key: CertificatePublicKeyTypes) -> x509.AuthorityKeyIdentifier:
    identifier = x509.SubjectKeyIdentifier.from_public_key(issuer_key)
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _moment(timestamp: float) -> datetime:
    return datetime.fromtimestamp(int(timestamp), UTC)


def _end(issuer: x509.Certificate) -> float:
    return issuer.not_valid_after_utc.timestamp()
