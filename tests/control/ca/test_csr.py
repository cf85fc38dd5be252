from __future__ import annotations

from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from hms_addons.control.ca.csr import MAX_CSR_BYTES, CsrError, check_csr, load_csr
from hms_addons.identity.spiffe_id import SpiffeId
from hms_addons.identity.svid import same_public_key
from tests.fakes import pki

AUTH = SpiffeId.for_service("mpsa.mil", "auth-svc")
KEY = ec.generate_private_key(ec.SECP256R1())


def uri(text: str) -> x509.UniformResourceIdentifier:
    return x509.UniformResourceIdentifier(text)


def csr(
    *extensions: x509.ExtensionType, common_name: str | None = None, key: Any = KEY
) -> x509.CertificateSigningRequest:
    name = [] if common_name is None else [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(name))
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, digest)


def san(*names: x509.GeneralName) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName(names)


both = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])


@pytest.mark.parametrize(
    "request_",
    [
        csr(),
        csr(common_name="auth-svc"),
        csr(san(uri(str(AUTH)))),
        csr(x509.BasicConstraints(ca=False, path_length=None)),
        csr(pki.key_usage("digital_signature"), both),
        csr(x509.SubjectKeyIdentifier.from_public_key(KEY.public_key())),
    ],
)
def test_what_asks_for_nothing_else_is_accepted(
    request_: x509.CertificateSigningRequest,
) -> None:
    assert same_public_key(check_csr(request_, AUTH), KEY.public_key())


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (csr(common_name="claims-svc"), "common name 'claims-svc' is not 'auth-svc'"),
        (csr(san(uri("spiffe://mpsa.mil/svc/claims-svc"))), "asks for 'spiffe://mpsa.mil/svc/cl"),
        (csr(san(uri("spiffe://other/svc/auth-svc"))), "subjectAltName asks for"),
        (csr(san(uri(str(AUTH)), uri("spiffe://mpsa.mil/svc/b"))), "subjectAltName asks for"),
        (csr(san(uri(str(AUTH)), uri(str(AUTH)))), "subjectAltName asks for"),
        (csr(san(uri(str(AUTH)), x509.DNSName("auth-svc"))), "'auth-svc' where only"),
        (csr(san(x509.DNSName("auth-svc"))), "subjectAltName asks for"),
        (csr(x509.BasicConstraints(ca=True, path_length=0)), "asks for a CA certificate"),
        (csr(pki.key_usage("key_cert_sign")), "keyCertSign or cRLSign"),
        (csr(pki.key_usage("crl_sign")), "keyCertSign or cRLSign"),
        (
            csr(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING])),
            "more than serverAuth and clientAuth",
        ),
        (
            csr(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE])),
            "more than serverAuth and clientAuth",
        ),
        (
            csr(x509.NameConstraints([x509.DNSName("a")], None)),
            "the extension 2.5.29.30 is not accepted",
        ),
        (
            csr(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"x")),
            "the extension 1.2.3.4 is not accepted",
        ),
        (csr(key=ec.generate_private_key(ec.SECP256K1())), "curve secp256k1 is not accepted"),
        (csr(key=ed25519.Ed25519PrivateKey.generate()), "Ed25519PublicKey is not accepted"),
        (csr(key=rsa.generate_private_key(65537, 1024)), "1024 bits is too short"),
    ],
)
def test_what_asks_for_more_is_refused(
    request_: x509.CertificateSigningRequest, reason: str
) -> None:
    with pytest.raises(CsrError) as caught:
        check_csr(request_, AUTH)
    assert reason in str(caught.value)
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize("key", [ec.generate_private_key(ec.SECP384R1()), pki.jwt_key().private])
def test_other_strong_keys(key: Any) -> None:
    assert same_public_key(check_csr(csr(key=key), AUTH), key.public_key())


def test_all_reasons_are_told_at_once() -> None:
    greedy = csr(
        san(x509.DNSName("*")),
        x509.BasicConstraints(ca=True, path_length=None),
        common_name="root",
    )
    with pytest.raises(CsrError) as caught:
        check_csr(greedy, AUTH)
    assert len(caught.value.problems) == 3


def test_the_key_must_be_the_requesters() -> None:
    """Another's public key in it breaks the signature."""
    der = bytearray(csr().public_bytes(Encoding.DER))
    at = der.index(KEY.public_key().public_numbers().x.to_bytes(32, "big"))
    other = ec.generate_private_key(ec.SECP256R1()).public_key().public_numbers()
    der[at : at + 64] = other.x.to_bytes(32, "big") + other.y.to_bytes(32, "big")
    with pytest.raises(CsrError, match="proof of possession"):
        check_csr(load_csr(bytes(der)), AUTH)


def test_load_pem_and_der() -> None:
    for encoding in (Encoding.PEM, Encoding.DER):
        assert load_csr(csr().public_bytes(encoding)).is_signature_valid


@given(st.binary(max_size=300) | st.binary(max_size=40).map(lambda text: b"-----" + text))
def test_load_garbage(garbage: bytes) -> None:
    with pytest.raises(CsrError, match="not a PKCS #10 request"):
        load_csr(garbage)


def test_load_too_long() -> None:
    with pytest.raises(CsrError, match="at most"):
        load_csr(b"x" * (MAX_CSR_BYTES + 1))


GOOD = csr(san(uri(str(AUTH))), both).public_bytes(Encoding.DER)


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
@pytest.mark.filterwarnings("ignore:Attribute's length must be")
@given(st.data())
def test_a_damaged_csr_gives_csr_errors_only(data: st.DataObject) -> None:
    der = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 3))):
        der[data.draw(st.integers(0, len(der) - 1))] = data.draw(st.integers(0, 255))
    try:
        public_key = check_csr(load_csr(bytes(der)), AUTH)
    except CsrError:
        return
    # The encoding of the signature has some slack; what is signed has none.
    assert same_public_key(public_key, KEY.public_key())
