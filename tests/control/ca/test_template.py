from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from hms_addons.control.ca import template
from hms_addons.identity.spiffe_id import SpiffeId
from hms_addons.identity.svid import validate_ca, validate_leaf
from tests.fakes import pki

NOW = 1_800_000_000.0
AUTH = SpiffeId.for_service("mpsa.mil", "auth-svc")


@pytest.fixture(scope="module")
def key() -> ec.EllipticCurvePrivateKey:
    return template.new_key()


@pytest.fixture(scope="module")
def root(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    builder = template.root(SpiffeId("mpsa.mil"), key.public_key(), now=NOW)
    return builder.sign(key, hashes.SHA256())


def span(certificate: x509.Certificate) -> tuple[float, float]:
    return (
        certificate.not_valid_before_utc.timestamp() - NOW,
        certificate.not_valid_after_utc.timestamp() - NOW,
    )


def test_keys_are_p256(key: ec.EllipticCurvePrivateKey) -> None:
    assert isinstance(key.curve, ec.SECP256R1)


def test_root(root: x509.Certificate) -> None:
    validate_ca(root, NOW)
    root.verify_directly_issued_by(root)
    assert span(root) == (-60, template.ROOT_LIFETIME)
    names = root.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["spiffe://mpsa.mil"]
    assert root.extensions.get_extension_for_class(x509.BasicConstraints).critical


def test_intermediate(root: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    own = template.new_key()
    builder = template.intermediate(SpiffeId("mpsa.mil"), own.public_key(), root, now=NOW)
    certificate = builder.sign(key, hashes.SHA256())
    validate_ca(certificate, NOW)
    certificate.verify_directly_issued_by(root)
    assert span(certificate) == (-60, template.INTERMEDIATE_LIFETIME)
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert constraints.path_length == 0
    assert certificate.subject != root.subject


def test_svid(root: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    own = template.new_key()
    builder = template.svid(AUTH, own.public_key(), root, now=NOW, lifetime=86400)
    leaf = builder.sign(key, hashes.SHA256())
    assert validate_leaf(leaf, NOW, "mpsa.mil") == AUTH
    leaf.verify_directly_issued_by(root)
    assert span(leaf) == (-60, 86400)
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value == pki.key_usage("digital_signature")
    issuer_key = x509.SubjectKeyIdentifier.from_public_key(key.public_key()).digest
    authority = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert authority.key_identifier == issuer_key


def test_nothing_outlives_its_issuer(
    root: x509.Certificate, key: ec.EllipticCurvePrivateKey
) -> None:
    end = root.not_valid_after_utc.timestamp()
    late = end - 100
    public = key.public_key()
    leaf = template.svid(AUTH, public, root, now=late, lifetime=86400).sign(key, hashes.SHA256())
    below = template.intermediate(SpiffeId("mpsa.mil"), public, root, now=late)
    assert leaf.not_valid_after_utc.timestamp() == end
    assert below.sign(key, hashes.SHA256()).not_valid_after_utc.timestamp() == end


def test_serials_and_root_names_differ(
    root: x509.Certificate, key: ec.EllipticCurvePrivateKey
) -> None:
    builder = template.root(SpiffeId("mpsa.mil"), key.public_key(), now=NOW)
    other = builder.sign(key, hashes.SHA256())
    assert other.serial_number != root.serial_number
    assert other.subject != root.subject
    # Random ones: at least 64 bits (CA/Browser Forum BR §7.1), at most 159 (RFC 5280 §4.1.2.2).
    assert 64 < other.serial_number.bit_length() < 160
