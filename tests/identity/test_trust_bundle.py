from __future__ import annotations

import hashlib
import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from hms_addons.control.ca import template
from hms_addons.control.ca.authority import CertificateAuthority
from hms_addons.identity.spiffe_id import SpiffeId
from hms_addons.identity.svid import same_public_key
from hms_addons.identity.trust_bundle import (
    MAX_BUNDLE_BYTES,
    MAX_ROOTS,
    REFRESH_HINT,
    TrustBundle,
    TrustBundleError,
    fingerprint,
)
from tests.fakes import pki

if TYPE_CHECKING:
    from cryptography import x509

ROOT = pki.ca().certificate
OTHER_ROOT = pki.ca("other.example").certificate


def root_of(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> x509.Certificate:
    builder = template.root(SpiffeId("mpsa.mil"), key.public_key(), now=time.time())
    return builder.sign(key, hashes.SHA256())


def ec_root(curve: ec.EllipticCurve) -> x509.Certificate:
    return root_of(ec.generate_private_key(curve))


def rsa_root() -> x509.Certificate:
    return root_of(rsa.generate_private_key(public_exponent=65537, key_size=2048))


def test_pem_round_trip_keeps_all_roots() -> None:
    bundle = TrustBundle(pki.TRUST_DOMAIN, (ROOT, OTHER_ROOT))
    assert TrustBundle.from_pem(pki.TRUST_DOMAIN, bundle.to_pem()) == bundle


def test_spiffe_json_round_trip() -> None:
    bundle = TrustBundle(pki.TRUST_DOMAIN, (ROOT, OTHER_ROOT))
    text = bundle.to_spiffe_json(sequence=7, refresh_hint=60)
    assert TrustBundle.from_spiffe_json(pki.TRUST_DOMAIN, text) == bundle
    document = json.loads(text)
    assert document["spiffe_sequence"] == 7
    assert document["spiffe_refresh_hint"] == 60
    key = document["keys"][0]
    assert (key["use"], key["kty"], key["crv"], len(key["x5c"])) == ("x509-svid", "EC", "P-256", 1)
    assert "d" not in key


def test_other_uses_are_passed_over() -> None:
    document = json.loads(pki.bundle().to_spiffe_json())
    document["keys"] += [{"kty": "EC", "use": "jwt-svid", "kid": "a"}, {"kty": "EC"}]
    assert TrustBundle.from_spiffe_json("mpsa.mil", json.dumps(document)) == pki.bundle()


def test_sequence_and_hint_are_kept_and_do_not_count_in_comparisons() -> None:
    text = pki.bundle().to_spiffe_json(sequence=7, refresh_hint=10)
    bundle = TrustBundle.from_spiffe_json("mpsa.mil", text.encode())
    assert (bundle.sequence, bundle.refresh_hint) == (7, 10)
    assert bundle == pki.bundle()
    assert TrustBundle.from_spiffe_json("mpsa.mil", bundle.to_spiffe_json()).sequence == 7
    assert json.loads(pki.bundle().to_spiffe_json())["spiffe_refresh_hint"] == REFRESH_HINT
    assert "spiffe_sequence" not in json.loads(pki.bundle().to_spiffe_json())


@pytest.mark.parametrize("key", [rsa_root(), ec_root(ec.SECP384R1())], ids=["RSA", "P-384"])
def test_roots_with_other_keys(key: x509.Certificate) -> None:
    bundle = TrustBundle("mpsa.mil", (key,))
    assert TrustBundle.from_spiffe_json("mpsa.mil", bundle.to_spiffe_json()) == bundle


def test_a_key_that_no_jwk_can_hold() -> None:
    root = ec_root(ec.BrainpoolP256R1())
    with pytest.raises(TrustBundleError, match="JWK"):
        TrustBundle("mpsa.mil", (root,)).to_spiffe_json()


def good(**changes: Any) -> str:
    document = json.loads(pki.bundle().to_spiffe_json(sequence=1))
    return json.dumps({**document, **changes})


def good_key(**changes: Any) -> str:
    document = json.loads(good())
    key = {**document["keys"][0], **changes}
    document["keys"] = [{name: value for name, value in key.items() if value is not None}]
    return json.dumps(document)


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (good(spiffe_sequence="1"), "`spiffe_sequence` of the SPIFFE bundle must be a whole"),
        (good(spiffe_sequence=True), "whole number"),
        (good(spiffe_sequence=-1), "whole number"),
        (good(spiffe_refresh_hint=1.5), "`spiffe_refresh_hint`"),
        (good_key(kty="RSA"), "not the key of its certificate: kty"),
        (good_key(kty=None), "certificate: kty"),
        (good_key(x="AAAA", y=None), "certificate: x, y"),
        (good(keys=[{"use": "x509-svid", "kty": "EC", "x5c": ["YQ==", "YQ=="]}]), "exactly one"),
        ('{"keys": [], "keys": []}', "repeated"),
        ('{"keys": [], "spiffe_sequence": NaN}', "NaN is no JSON number"),
        (" " * MAX_BUNDLE_BYTES + "{}", "at most 1048576"),
    ],
)
def test_the_standard_is_kept_strictly(document: str, reason: str) -> None:
    with pytest.raises(TrustBundleError, match=reason):
        TrustBundle.from_spiffe_json("mpsa.mil", document)


def test_too_many_roots() -> None:
    roots = tuple(CertificateAuthority.create("mpsa.mil").certificate for _ in range(MAX_ROOTS + 1))
    assert len(TrustBundle("mpsa.mil", roots[1:]).roots) == MAX_ROOTS
    with pytest.raises(TrustBundleError, match="at most 64"):
        TrustBundle("mpsa.mil", roots)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
KEYS = st.fixed_dictionaries(
    {},
    optional={
        "use": st.sampled_from(["x509-svid", "jwt-svid"]) | JSON,
        "x5c": st.lists(st.text() | st.binary(max_size=40).map(lambda b: b.hex()), max_size=2)
        | JSON,
        "kty": st.just("EC") | JSON,
    },
)


@given(
    st.binary(max_size=60)
    | st.text(max_size=60)
    | JSON.map(json.dumps)
    | st.fixed_dictionaries(
        {"keys": st.lists(KEYS | JSON, max_size=3) | JSON}, optional={"spiffe_sequence": JSON}
    ).map(json.dumps)
)
def test_whatever_is_no_bundle_is_one_kind_of_error(document: bytes | str) -> None:
    with pytest.raises(TrustBundleError):
        TrustBundle.from_spiffe_json("mpsa.mil", document)


# What a damaged certificate makes the library warn of; in a sidecar that is a line in the log.
@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
@pytest.mark.filterwarnings("ignore:Attribute's length must be")
@given(st.data())
def test_a_damaged_bundle_is_an_error_or_has_the_same_keys(data: st.DataObject) -> None:
    text = bytearray(pki.bundle().to_spiffe_json(sequence=3).encode())
    position = data.draw(st.integers(0, len(text) - 1))
    text[position] = data.draw(st.integers(0, 255))
    try:
        bundle = TrustBundle.from_spiffe_json("mpsa.mil", bytes(text))
    except TrustBundleError:
        return
    (root,) = bundle.roots
    assert same_public_key(root.public_key(), ROOT.public_key())


def keys(*x5c: Any) -> str:
    return json.dumps({"keys": [{"use": "x509-svid", "x5c": chain} for chain in x5c]})


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ("{", "not JSON"),
        ("[]", "no list `keys`"),
        ('{"keys": {}}', "no list `keys`"),
        ('{"keys": []}', "holds no root"),
        ('{"keys": ["x"]}', "holds no root"),
        (keys([]), "exactly one string"),
        (keys(["YQ==", "YQ=="]), "exactly one string"),
        (keys("YQ=="), "exactly one string"),
        (keys(["!"]), "not a certificate"),
        (keys(["YQ=="]), "not a certificate"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_bad_spiffe_json(document: str, reason: str) -> None:
    with pytest.raises(TrustBundleError, match=reason):
        TrustBundle.from_spiffe_json("mpsa.mil", document)


@pytest.mark.parametrize("pem", [b"", b"text", pki.svid("auth-svc").key_pem()])
def test_bad_pem(pem: bytes) -> None:
    with pytest.raises(TrustBundleError, match="not a PEM trust bundle"):
        TrustBundle.from_pem("mpsa.mil", pem)


def test_a_leaf_is_no_root() -> None:
    with pytest.raises(TrustBundleError, match="is not a CA"):
        TrustBundle.from_pem("mpsa.mil", pki.svid("auth-svc").chain_pem())


def test_a_bundle_has_roots_and_a_domain() -> None:
    with pytest.raises(TrustBundleError, match="no root"):
        TrustBundle("mpsa.mil", ())
    with pytest.raises(TrustBundleError, match="outside a-z"):
        TrustBundle("MPSA", (ROOT,))


def test_repeated_roots_count_once() -> None:
    bundle = pki.bundle().with_roots((ROOT, OTHER_ROOT))
    assert bundle.roots == (ROOT, OTHER_ROOT)


def test_fingerprints_are_sha256_of_der() -> None:
    expected = hashlib.sha256(ROOT.public_bytes(Encoding.DER)).hexdigest()
    assert pki.bundle().fingerprints() == (expected,)
    assert fingerprint(ROOT) == expected
