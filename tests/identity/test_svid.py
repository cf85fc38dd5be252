from __future__ import annotations

import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from hms_addons.identity.spiffe_id import SpiffeId
from hms_addons.identity.svid import (
    Svid,
    SvidError,
    iso_time,
    load_certificates,
    load_key,
    peer_leaf,
    peer_spiffe_id,
    same_public_key,
    validate_ca,
    validate_chain,
    validate_leaf,
)
from tests.fakes import pki

AUTH = SpiffeId.for_service(pki.TRUST_DOMAIN, "auth-svc")


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


def test_a_good_svid_from_pem() -> None:
    made = pki.svid("auth-svc")
    read = Svid.from_pem(
        made.chain_pem(), made.key_pem(), now=time.time(), trust_domain=pki.TRUST_DOMAIN
    )
    assert read.spiffe_id == AUTH
    assert read.serial == made.leaf.serial_number
    assert read.not_before < time.time() < read.not_after
    assert read.certificates == made.certificates
    assert same_public_key(read.private_key.public_key(), made.leaf.public_key())
    assert "private_key" not in repr(read)


REASONS = {
    "expired": r"expired at 20..-..-..T..:..:..Z; it is 20",
    "not_yet_valid": r"not valid before 20",
    "other_trust_domain": r"spiffe://other\.example/svc/bad is not of the trust domain mpsa\.mil",
    "no_uri": r"0 URIs in subjectAltName",
    "two_uris": r"2 URIs in subjectAltName",
    "not_spiffe": r"is not a SPIFFE ID: 'https://",
    "no_path": r"has no path",
    "is_ca": r"makes it a CA",
    "cert_sign": r"has keyCertSign",
    "crl_sign": r"has cRLSign",
    "no_key_usage": r"keyUsage is missing",
    "no_digital_signature": r"lacks digitalSignature",
    "client_only": r"lacks serverAuth",
    "server_only": r"lacks clientAuth",
}


@pytest.mark.parametrize("kind", pki.BAD_KINDS)
def test_each_violation_has_its_reason(kind: str) -> None:
    with pytest.raises(SvidError, match=REASONS[kind]) as caught:
        validate_leaf(pki.bad_svid(kind).certificate, time.time(), pki.TRUST_DOMAIN)
    assert len(caught.value.problems) == 1


def test_all_violations_are_told_at_once() -> None:
    bad = pki.make_leaf(uris=(), valid=(-20, -10), usage=("crl_sign",), is_ca=True)
    with pytest.raises(SvidError) as caught:
        validate_leaf(bad.certificate, time.time())
    assert len(caught.value.problems) == 4
    bad = pki.make_leaf(valid=(-20, -10), usage=("crl_sign",))
    with pytest.raises(SvidError, match=r"digitalSignature.*cRLSign.*expired"):
        validate_leaf(bad.certificate, time.time())


def test_without_extended_key_usage_it_is_valid() -> None:
    validate_leaf(pki.make_leaf(purposes=None).certificate, time.time())


def test_validity_is_closed_at_both_ends() -> None:
    svid = pki.svid("auth-svc")
    for now in (svid.not_before, svid.not_after):
        assert validate_leaf(svid.leaf, now) == AUTH
    for now in (svid.not_before - 1, svid.not_after + 1):
        with pytest.raises(SvidError):
            validate_leaf(svid.leaf, now)


def test_a_certificate_without_extensions() -> None:
    plain = _without_extensions()
    with pytest.raises(SvidError, match="no subjectAltName"):
        validate_leaf(plain, time.time())
    with pytest.raises(SvidError, match="not make it a CA"):
        validate_ca(plain, time.time())


def _without_extensions() -> x509.Certificate:
    svid = pki.svid("auth-svc")
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(x509.Name([]))
        .public_key(svid.leaf.public_key())
        .serial_number(1)
        .not_valid_before(svid.leaf.not_valid_before_utc)
        .not_valid_after(svid.leaf.not_valid_after_utc)
        .sign(svid.private_key, hashes.SHA256())
    )


def test_the_key_must_be_the_certificates() -> None:
    one, other = pki.svid("auth-svc"), pki.svid("claims-svc")
    with pytest.raises(SvidError, match="does not belong"):
        Svid.from_pem(one.chain_pem(), other.key_pem(), now=time.time())


@pytest.mark.parametrize(
    ("pem", "reason"),
    [
        (b"", "not a PEM certificate chain"),
        (b"hello", "not a PEM certificate chain"),
        (
            b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "not a PEM certificate chain",
        ),
    ],
)
def test_unreadable_chains(pem: bytes, reason: str) -> None:
    with pytest.raises(SvidError, match=reason):
        load_certificates(pem)


def test_a_chain_has_a_bound() -> None:
    with pytest.raises(SvidError, match="9 certificates"):
        load_certificates(pki.svid("auth-svc").chain_pem() * 9)


def test_an_empty_chain() -> None:
    with pytest.raises(SvidError, match="empty"):
        Svid.of((), pki.svid("auth-svc").private_key, now=time.time())


def test_keys_that_cannot_be_used() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    locked = key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"password")
    )
    with pytest.raises(SvidError, match="encrypted"):
        load_key(locked)
    with pytest.raises(SvidError, match="not a PEM private key"):
        load_key(b"secret-ish text")
    with pytest.raises(SvidError, match="only EC and RSA"):
        load_key(pki.private_pem(ed25519.Ed25519PrivateKey.generate()))


def test_an_unreadable_key_is_not_quoted() -> None:
    with pytest.raises(SvidError) as caught:
        load_key(b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n")
    assert "c2VjcmV0" not in str(caught.value)


# --- chains ---------------------------------------------------------------------------------------


def test_a_chain_through_an_intermediate() -> None:
    intermediate = pki.ca().subordinate()
    svid = pki.svid("auth-svc", authority=intermediate)
    assert len(svid.certificates) == 2
    validate_chain(svid.certificates, pki.bundle().roots, time.time())
    with pytest.raises(SvidError, match="no root of the bundle"):
        validate_chain(svid.certificates[:1], pki.bundle().roots, time.time())
    with pytest.raises(SvidError, match="not signed by the next"):
        validate_chain(
            (svid.leaf, pki.ca("other.example").certificate), pki.bundle().roots, time.time()
        )


def test_a_chain_may_end_with_its_root() -> None:
    svid = pki.svid("auth-svc")
    chain = (*svid.certificates, pki.ca().certificate)
    validate_chain(chain, pki.bundle().roots, time.time())


def test_any_of_several_roots_will_do() -> None:
    roots = (*pki.bundle("other.example").roots, *pki.bundle().roots)
    validate_chain(pki.svid("auth-svc").certificates, roots, time.time())


def test_a_leaf_cannot_sign() -> None:
    chain = (pki.svid("auth-svc").leaf, pki.svid("claims-svc").leaf)
    with pytest.raises(SvidError, match="not make it a CA"):
        validate_chain(chain, pki.bundle().roots, time.time())


def test_an_expired_root_is_no_root() -> None:
    root = pki.ca().certificate
    with pytest.raises(SvidError, match="expired"):
        validate_chain(
            pki.svid("auth-svc").certificates, (root,), root.not_valid_after_utc.timestamp() + 1
        )


# --- peers ----------------------------------------------------------------------------------------


def test_peer_spiffe_id() -> None:
    svid = pki.svid("auth-svc")
    assert peer_spiffe_id(der(svid.leaf)) == AUTH
    leaf = peer_leaf(der(svid.leaf))
    assert (leaf.not_before, leaf.not_after) == (svid.not_before, svid.not_after)
    assert peer_leaf(der(svid.leaf)) is leaf


def test_peer_leaf_leaves_the_dates_to_its_caller() -> None:
    assert peer_spiffe_id(pki.bad_svid("expired").der).service == "bad"


@pytest.mark.parametrize(
    "kind", sorted(set(pki.BAD_KINDS) - {"expired", "not_yet_valid", "other_trust_domain"})
)
def test_peer_of_bad_shape(kind: str) -> None:
    with pytest.raises(SvidError, match=REASONS[kind]):
        peer_spiffe_id(pki.bad_svid(kind).der)


@given(st.binary(max_size=400))
def test_peer_of_garbage(garbage: bytes) -> None:
    with pytest.raises(SvidError):
        peer_spiffe_id(garbage)


# Oddities that cryptography merely warns of, such as a negative serial.
@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
@pytest.mark.filterwarnings("ignore:Attribute's length must be")
@given(st.data())
def test_a_damaged_certificate_is_refused_or_another_one(data: st.DataObject) -> None:
    """Nothing but SvidError may come out, whatever the bytes are."""
    good = bytearray(der(pki.svid("auth-svc").leaf))
    for _ in range(data.draw(st.integers(1, 3))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    try:
        peer_spiffe_id(bytes(good))
    except SvidError:
        return


def test_iso_time() -> None:
    assert iso_time(1_800_000_000.9) == "2027-01-15T08:00:00Z"


def test_an_issuer_whose_name_cannot_be_read_is_told_all_the_same() -> None:
    good = pki.svid("auth-svc")
    name = good.leaf.issuer.public_bytes()
    # The first string of the name, of a type that ASN.1 does not know.
    at = name.index(b"\x0c")
    der = good.leaf.public_bytes(Encoding.DER).replace(name, name[:at] + b"\xfc" + name[at + 1 :])
    damaged = x509.load_der_x509_certificate(der)
    with pytest.raises(KeyError):
        str(damaged.issuer)
    with pytest.raises(SvidError, match="no root of the bundle signed .* 'an unreadable name'"):
        validate_chain([damaged], pki.bundle().roots, time.time())
