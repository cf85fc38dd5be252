"""Certificates and tokens for one run: a P-256 CA with two SVIDs, and an RS256 issuer."""

from __future__ import annotations

import datetime
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from pathlib import Path

TRUST_DOMAIN = "mpsa.mil"
CALLER = f"spiffe://{TRUST_DOMAIN}/svc/claims-svc"
CALLEE = f"spiffe://{TRUST_DOMAIN}/svc/auth-svc"
ISSUER = "https://idp.mpsa.mil"
AUDIENCE = "hms"
ROLE = "PROGRAM_MANAGER"
SUBJECT = "soldier-4711"
AUTHORITY = "bench CA"
LIFETIME = datetime.timedelta(hours=24)
BACKDATED = datetime.timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class KeyPair:
    """The files of one SVID (PEM)."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Credentials:
    """All that contenders verify, and that callers show."""

    bundle: Path
    """The CA's certificate (PEM)."""
    caller: KeyPair
    """The SVID of the outbound proxy."""
    callee: KeyPair
    """The SVID of the inbound proxy."""
    token_public_key: Path
    jwks: str
    """The same key as a JSON Web Key Set, which is what Envoy reads."""
    token: str
    """A valid token of the role that the policy allows."""
    token_of_other_role: str
    """Valid too, but of a role that the policy does not allow."""
    token_with_bad_signature: str


def create(directory: Path) -> Credentials:
    """Make new ones and write the files into `directory`."""
    authority_key = ec.generate_private_key(ec.SECP256R1())
    bundle = directory / "bundle.pem"
    bundle.write_bytes(_authority(authority_key).public_bytes(serialization.Encoding.PEM))
    signing_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public_key_file = directory / "token-key.pem"
    public_key_file.write_bytes(
        signing_key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    jwk = jwt.algorithms.RSAAlgorithm.to_jwk(signing_key.public_key(), as_dict=True)
    stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return Credentials(
        bundle=bundle,
        caller=_issue(directory, "caller", CALLER, authority_key),
        callee=_issue(directory, "callee", CALLEE, authority_key),
        token_public_key=public_key_file,
        jwks=json.dumps({"keys": [{**jwk, "use": "sig", "alg": "RS256", "kid": "bench"}]}),
        token=_token(signing_key, ROLE),
        token_of_other_role=_token(signing_key, "CLERK"),
        token_with_bad_signature=_token(stranger, ROLE),
    )


def _token(key: rsa.RSAPrivateKey, role: str) -> str:
    """A token that outlives the run."""
    now = datetime.datetime.now(datetime.UTC)
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": SUBJECT,
        "role": role,
        "iat": now - BACKDATED,
        "exp": now + LIFETIME,
    }
    return jwt.encode(claims, key, algorithm="RS256", headers={"kid": "bench"})


def _builder(subject: str, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    """What both kinds of certificate have in common."""
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, AUTHORITY)]))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    """A CA signs certificates and nothing else, a leaf everything but (X.509-SVID §4.3)."""
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _authority(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    """A self-signed CA of the trust domain."""
    domain = x509.UniformResourceIdentifier(f"spiffe://{TRUST_DOMAIN}")
    return (
        _builder(AUTHORITY, key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectAlternativeName([domain]), critical=False)
        .sign(key, hashes.SHA256())
    )


def _issue(
    directory: Path,
    name: str,
    spiffe_id: str,
    authority_key: ec.EllipticCurvePrivateKey,
) -> KeyPair:
    """An X.509-SVID, written to `name.pem` and `name.key`."""
    key = ec.generate_private_key(ec.SECP256R1())
    both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    uri = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(spiffe_id)])
    signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    certificate = (
        _builder(name, key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(both), critical=False)
        .add_extension(uri, critical=False)
        .add_extension(signer, critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    files = KeyPair(directory / f"{name}.pem", directory / f"{name}.key")
    files.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files.key.touch(mode=0o600)
    files.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return files
