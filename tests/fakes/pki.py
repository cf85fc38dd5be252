"""Certificates and JWT keys for tests: real cryptography, made once per process.

Certificates (all for the trust domain `TRUST_DOMAIN` unless said otherwise, valid now by the real
clock, because OpenSSL reads the real clock; give `clock=` for a `FakeClock`):

    ca()                          the CertificateAuthority that everybody trusts; same one each time
    ca("other.example")           the CA of another trust domain
    svid("auth-svc")              an Svid of that CA; same one each time
    svid("auth-svc", authority=x) of another CA
    bundle()                      the TrustBundle with ca()'s root
    write_secret(folder, svid)    -> SecretFiles(certificate, key, bundle): three PEM paths

Bad ones (an Svid-like `Presented(chain_pem, key_pem)` signed by ca(), not checked by anything):

    bad_svid("expired" | "not_yet_valid" | "other_trust_domain" | "no_uri" | "two_uris" |
             "not_spiffe" | "no_path" | "is_ca" | "cert_sign" | "crl_sign" | "no_key_usage" |
             "no_digital_signature" | "client_only" | "server_only")
    BAD_KINDS                     all of them
    context_presenting(bad, ...)  a client or server SSLContext that presents it

JWT:

    jwt_key("RS256")              JwtKey of that algorithm; same one each time (also ES256, PS256,
                                  EdDSA, HS256, …; `name=` for a second one)
    key.sign(claims, **headers)   -> a token; `kid` is in the header unless kid=None
    key.public_pem / key.secret   what a provider is configured with
    key.jwk() / jwks(key, …)      the public JWK / a JWK set as JSON text
    claims(**changes)             good claims for ISSUER and AUDIENCE, valid for an hour from `now=`
"""

from __future__ import annotations

import functools
import json
import ssl
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID

from hms_addons.control.ca.authority import CertificateAuthority
from hms_addons.identity.spiffe_id import SpiffeId

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from hms_addons.identity.svid import Svid
    from hms_addons.identity.trust_bundle import TrustBundle

TRUST_DOMAIN = "mpsa.mil"
ISSUER = "https://idp.mpsa.mil"
AUDIENCE = "hms"


# --- certificates ---------------------------------------------------------------------------------


def ca(trust_domain: str = TRUST_DOMAIN) -> CertificateAuthority:
    """The CA of a trust domain; the same one for the whole test run."""
    return _shared_ca(trust_domain)


# The caches take every argument by position: `ca()` and `ca(TRUST_DOMAIN)` must be one entry.
@functools.cache
def _shared_ca(trust_domain: str) -> CertificateAuthority:
    return CertificateAuthority.create(trust_domain)


def bundle(trust_domain: str = TRUST_DOMAIN) -> TrustBundle:
    """What workloads of the trust domain trust."""
    return ca(trust_domain).bundle


@functools.cache
def _shared_svid(service: str, trust_domain: str) -> Svid:
    authority = ca(trust_domain)
    return authority.issue(SpiffeId.for_service(trust_domain, service))


def svid(
    service: str,
    trust_domain: str = TRUST_DOMAIN,
    *,
    authority: CertificateAuthority | None = None,
    lifetime: float | None = None,
) -> Svid:
    """An SVID of a service; shared, unless another CA or a lifetime (seconds) is asked for."""
    if authority is None and lifetime is None:
        return _shared_svid(service, trust_domain)
    authority = authority or ca(trust_domain)
    spiffe_id = SpiffeId.for_service(authority.trust_domain, service)
    return authority.issue(spiffe_id, 24 * 3600.0 if lifetime is None else lifetime)


@dataclass(frozen=True)
class SecretFiles:
    """Paths of one secret, as a config names them."""

    certificate: Path
    key: Path
    bundle: Path


def write_secret(
    folder: Path, secret: Svid | Presented, trusts: TrustBundle | None = None, name: str = "svid"
) -> SecretFiles:
    """Write `<name>.pem`, `<name>.key` and `bundle.pem` to a folder."""
    files = SecretFiles(folder / f"{name}.pem", folder / f"{name}.key", folder / "bundle.pem")
    chain, key = (
        (secret.chain_pem, secret.key_pem)
        if isinstance(secret, Presented)
        else (secret.chain_pem(), secret.key_pem())
    )
    files.certificate.write_bytes(chain)
    files.key.write_bytes(key)
    files.key.chmod(0o600)
    files.bundle.write_bytes((trusts or bundle()).to_pem())
    return files


# --- bad certificates -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Presented:
    """A certificate and its key as PEM, whatever it is worth."""

    chain_pem: bytes
    key_pem: bytes

    @property
    def certificate(self) -> x509.Certificate:
        """The leaf."""
        return x509.load_pem_x509_certificate(self.chain_pem)

    @property
    def der(self) -> bytes:
        """The leaf in DER form."""
        return self.certificate.public_bytes(Encoding.DER)


_GOOD_URI = f"spiffe://{TRUST_DOMAIN}/svc/bad"
_BOTH = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)

_BAD: dict[str, dict[str, Any]] = {
    "expired": {"valid": (-7200, -3600)},
    "not_yet_valid": {"valid": (3600, 7200)},
    "other_trust_domain": {"uris": ("spiffe://other.example/svc/bad",)},
    "no_uri": {"uris": ()},
    "two_uris": {"uris": (_GOOD_URI, f"spiffe://{TRUST_DOMAIN}/svc/worse")},
    "not_spiffe": {"uris": ("https://mpsa.mil/svc/bad",)},
    "no_path": {"uris": (f"spiffe://{TRUST_DOMAIN}",)},
    "is_ca": {"is_ca": True},
    "cert_sign": {"usage": ("digital_signature", "key_cert_sign")},
    "crl_sign": {"usage": ("digital_signature", "crl_sign")},
    "no_key_usage": {"usage": None},
    "no_digital_signature": {"usage": ("key_agreement",)},
    "client_only": {"purposes": (ExtendedKeyUsageOID.CLIENT_AUTH,)},
    "server_only": {"purposes": (ExtendedKeyUsageOID.SERVER_AUTH,)},
}
BAD_KINDS = tuple(_BAD)


@functools.cache
def bad_svid(kind: str) -> Presented:
    """A certificate that `ca()` signed and that no peer may accept."""
    return make_leaf(**_BAD[kind])


def make_leaf(
    *,
    uris: Sequence[str] = (_GOOD_URI,),
    valid: tuple[float, float] = (-60, 3600),
    usage: Sequence[str] | None = ("digital_signature",),
    purposes: Sequence[x509.ObjectIdentifier] | None = _BOTH,
    is_ca: bool = False,
    authority: CertificateAuthority | None = None,
) -> Presented:
    """A leaf with each knob free; `valid` is in seconds from the real now."""
    authority = authority or ca()
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC).replace(microsecond=0)
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri) for uri in uris]
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(authority.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(seconds=valid[0]))
        .not_valid_after(now + timedelta(seconds=valid[1]))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName(names or [x509.DNSName("bad.mpsa.mil")]), critical=True
        )
    )
    if usage is not None:
        builder = builder.add_extension(key_usage(*usage), critical=True)
    if purposes is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage(list(purposes)), critical=False)
    certificate = builder.sign(authority.key, hashes.SHA256())
    return Presented(certificate.public_bytes(Encoding.PEM), private_pem(key))


def key_usage(*names: str) -> x509.KeyUsage:
    """A KeyUsage with exactly these flags."""
    flags = (
        *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment"),
        *("key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
    )
    return x509.KeyUsage(**{flag: flag in names for flag in flags})


def context_presenting(
    presented: Presented, folder: Path, *, server: bool, trusts: TrustBundle | None = None
) -> ssl.SSLContext:
    """A context that presents any certificate at all, and trusts `trusts` (default `bundle()`)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    if not server:
        context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["http/1.1"])
    context.load_verify_locations(cadata=(trusts or bundle()).to_pem().decode())
    path = folder / "presented.pem"
    path.write_bytes(presented.chain_pem + presented.key_pem)
    context.load_cert_chain(path)
    return context


def private_pem(key: Any) -> bytes:
    """Any private key as unencrypted PKCS #8 PEM."""
    pem: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return pem


# --- JWT ------------------------------------------------------------------------------------------

_CURVES: dict[str, ec.EllipticCurve] = {
    "ES256": ec.SECP256R1(),
    "ES384": ec.SECP384R1(),
    "ES512": ec.SECP521R1(),
}


@dataclass(frozen=True, eq=False)
class JwtKey:
    """A signing key of an identity provider."""

    algorithm: str
    kid: str
    private: Any

    def sign(self, payload: dict[str, Any], **headers: Any) -> str:
        """A token; headers are added to `alg` and `kid`, or drop them when None.

        The payload is signed as it is, also where a JWT library would refuse to write it.
        """
        merged = {"kid": self.kid, **headers}
        kept = {name: value for name, value in merged.items() if value is not None}
        document = json.dumps(payload).encode()
        return jwt.api_jws.encode(document, self.private, self.algorithm, headers=kept)

    @property
    def public_pem(self) -> bytes:
        """The public key, for `public_key_file`."""
        pem: bytes = self.private.public_key().public_bytes(
            Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
        )
        return pem

    @property
    def secret(self) -> str:
        """The shared secret of an HS key, for `hs256_secret_env`."""
        assert isinstance(self.private, bytes)
        return self.private.decode()

    def jwk(self, **changes: Any) -> dict[str, Any]:
        """The public JWK (of an HS key: the secret one); a change to None drops the member."""
        algorithm = jwt.get_algorithm_by_name(self.algorithm)
        key = self.private if isinstance(self.private, bytes) else self.private.public_key()
        members = {
            **algorithm.to_jwk(key, as_dict=True),
            "kid": self.kid,
            "use": "sig",
            "alg": self.algorithm,
            "key_ops": None,
            **changes,
        }
        return {name: value for name, value in members.items() if value is not None}


def jwt_key(algorithm: str = "RS256", name: str = "key-1") -> JwtKey:
    """A key for an algorithm; the same one for the same name."""
    return _shared_jwt_key(algorithm, name)


@functools.cache
def _shared_jwt_key(algorithm: str, name: str) -> JwtKey:
    private: Any
    if algorithm.startswith(("RS", "PS")):
        private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    elif algorithm == "EdDSA":
        private = ed25519.Ed25519PrivateKey.generate()
    elif algorithm.startswith("HS"):
        private = f"a shared secret for {algorithm} named {name}".ljust(64, ".").encode()
    else:
        private = ec.generate_private_key(_CURVES[algorithm])
    return JwtKey(algorithm, name, private)


def jwks(*keys: JwtKey | dict[str, Any]) -> str:
    """A JWK set as JSON text."""
    return json.dumps({"keys": [key.jwk() if isinstance(key, JwtKey) else key for key in keys]})


def claims(*, now: float | None = None, **changes: Any) -> dict[str, Any]:
    """Claims that a provider for ISSUER and AUDIENCE accepts; a change to None drops the claim."""
    moment = int(time.time() if now is None else now)
    members = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "sgt.pepper",
        "roles": ["PROGRAM_MANAGER"],
        "iat": moment,
        "exp": moment + 3600,
        **changes,
    }
    return {name: value for name, value in members.items() if value is not None}
