from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from hms_addons.identity.trust_bundle import TrustBundle, TrustBundleError, fingerprint
from tests.fakes import pki

ROOT = pki.ca().certificate
OTHER_ROOT = pki.ca("other.example").certificate


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
