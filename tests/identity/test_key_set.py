from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import RSAAlgorithm

from hms_addons.identity.jws import JwsError, parse_compact
from hms_addons.identity.key_set import (
    ASYMMETRIC_ALGORITHMS,
    HMAC_ALGORITHMS,
    SUPPORTED_ALGORITHMS,
    KeySet,
    KeySetError,
    key_set_of_jwks,
    key_set_of_pem,
    key_set_of_secret,
    verify_signature,
)
from tests.fakes import pki
from tests.identity.test_jws import encode

RS256 = pki.jwt_key("RS256")
ES256 = pki.jwt_key("ES256")
HS256 = pki.jwt_key("HS256")


def holds(token: str, keys: KeySet, *allowed: str) -> bool:
    try:
        verify_signature(parse_compact(token), keys, frozenset(allowed))
    except JwsError:
        return False
    return True


@pytest.mark.parametrize("algorithm", sorted(SUPPORTED_ALGORITHMS))
def test_every_algorithm_verifies_its_own_signature(algorithm: str) -> None:
    key, stranger = pki.jwt_key(algorithm), pki.jwt_key(algorithm, "other")
    keys = key_set_of_jwks(pki.jwks(key))
    assert holds(key.sign({"sub": "a"}), keys, algorithm)
    assert not holds(stranger.sign({"sub": "a"}, kid=key.kid), keys, algorithm)
    head, payload, signature = key.sign({"sub": "a"}).split(".")
    forged = key.sign({"sub": "b"}).split(".")[1]
    assert not holds(f"{head}.{forged}.{signature}", keys, algorithm)
    assert not holds(f"{head}.{payload}.", keys, algorithm)


def test_none_is_not_supported() -> None:
    assert not {"none", "NONE", "None"} & SUPPORTED_ALGORITHMS
    assert not HMAC_ALGORITHMS & ASYMMETRIC_ALGORITHMS


def test_a_header_cannot_widen_what_is_allowed() -> None:
    keys = key_set_of_jwks(pki.jwks(RS256.jwk(alg=None)))
    token = RS256.sign({"sub": "a"})
    assert holds(token, keys, "RS256", "PS256")
    assert not holds(token, keys, "PS256")
    assert not holds(token, keys)


def test_a_public_key_is_no_hmac_secret() -> None:
    """The classic: sign with HS256 and the public key as the secret."""
    head = encode(b'{"alg":"HS256"}') + "." + encode(b'{"sub":"a"}')
    for keys in (key_set_of_pem(RS256.public_pem), key_set_of_jwks(pki.jwks(RS256))):
        for secret in (RS256.public_pem, RS256.public_pem.strip()):
            mac = hmac.new(secret, head.encode(), hashlib.sha256).digest()
            assert not holds(f"{head}.{encode(mac)}", keys, "HS256")


# --- choosing a key -------------------------------------------------------------------------------


def test_the_named_key_is_used() -> None:
    other = pki.jwt_key("RS256", "other")
    keys = key_set_of_jwks(pki.jwks(RS256, other))
    assert holds(RS256.sign({}), keys, "RS256")
    assert holds(other.sign({}), keys, "RS256")
    assert not holds(RS256.sign({}, kid="other"), keys, "RS256")
    assert not holds(RS256.sign({}, kid="unknown"), keys, "RS256")


def test_without_a_name_each_key_is_tried() -> None:
    keys = key_set_of_jwks(pki.jwks(pki.jwt_key("RS256", "other"), RS256))
    assert holds(RS256.sign({}, kid=None), keys, "RS256")


def test_keys_without_a_name_serve_any_token() -> None:
    keys = key_set_of_pem(RS256.public_pem)
    assert holds(RS256.sign({}, kid="whatever"), keys, "RS256")


def test_an_empty_set_verifies_nothing() -> None:
    assert not holds(RS256.sign({}), KeySet(), "RS256")


# --- JWK sets -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("jwk", "reason"),
    [
        (RS256.jwk(use="enc"), "`use` is not `sig`"),
        (RS256.jwk(key_ops=["encrypt"]), "`key_ops` lack `verify`"),
        (RS256.jwk(key_ops="verify"), "`key_ops` lack `verify`"),
        (RS256.jwk(kid=7), "`kid` is not a string"),
        (RS256.jwk(alg=7), "`alg` is not a string"),
        (RS256.jwk(alg="ES256"), "does not fit this kind"),
        (RS256.jwk(alg="none"), "does not fit this kind"),
        (RS256.jwk(alg="HS256"), "does not fit this kind"),
        (RS256.jwk(kty="DSA"), "'DSA' is not supported"),
        (RS256.jwk(kty=None), "is not supported"),
        (RS256.jwk(kty="EC"), "not a valid EC key"),
        (RS256.jwk(n="!!"), "n is not unpadded"),
        (RS256.jwk(n=5), "`n` is not a string"),
        (RS256.jwk(e="AQ"), "not a valid RSA key|exponent"),
        (RS256.jwk(d="AQAB"), "private key"),
        (ES256.jwk(crv="P-384"), "not a valid EC key"),
        (ES256.jwk(crv="secp256k1"), "not a valid EC key|only RSA"),
        (ES256.jwk(y=ES256.jwk()["x"]), "not a valid EC key"),
        (HS256.jwk(alg="RS256"), "does not fit a shared secret"),
        (HS256.jwk(k="c2hvcnQ"), "5 bytes is too short"),
        (HS256.jwk(k="c2hvcnQ", alg=None), "5 bytes is too short"),
        (HS256.jwk(k=None), "0 bytes is too short"),
        (HS256.jwk(use="enc"), "`use` is not `sig`"),
    ],
)
def test_unfit_keys_are_left_out_with_the_reason(jwk: dict[str, Any], reason: str) -> None:
    with pytest.raises(KeySetError, match=f"no usable key in the JWK set: .*({reason})"):
        key_set_of_jwks(json.dumps({"keys": [jwk]}))


def test_the_fit_ones_beside_them_are_used() -> None:
    keys = key_set_of_jwks(pki.jwks(RS256.jwk(use="enc", kid="enc"), ES256, {"kty": "new"}))
    assert [key.key_id for key in keys.keys] == [ES256.kid]
    assert len(keys.skipped) == 2
    assert "keys[0] (kid 'enc')" in keys.skipped[0]


def test_a_short_rsa_key_is_left_out() -> None:
    weak = rsa.generate_private_key(65537, 1024).public_key()
    with pytest.raises(KeySetError, match="1024 bits is too short"):
        key_set_of_jwks(json.dumps({"keys": [RSAAlgorithm.to_jwk(weak, as_dict=True)]}))


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ("", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "list `keys`"),
        ("{}", "list `keys`"),
        ('{"keys": {}}', "list `keys`"),
        ('{"keys": []}', "it is empty"),
        ('{"keys": [1, "a", null]}', "it is empty"),
        (pki.jwks(HS256, RS256), "mixes shared secrets"),
        (pki.jwks(RS256, pki.jwt_key("RS256", "other").jwk(kid=RS256.kid)), "several keys with"),
    ],
)
def test_sets_that_are_refused_whole(document: str, reason: str) -> None:
    with pytest.raises(KeySetError, match=reason):
        key_set_of_jwks(document)


def test_one_id_for_two_kinds_of_key_is_allowed() -> None:
    """RFC 7517 §4.5: equivalent alternatives."""
    keys = key_set_of_jwks(pki.jwks(RS256.jwk(kid="a"), ES256.jwk(kid="a")))
    assert holds(ES256.sign({}, kid="a"), keys, "ES256", "RS256")
    assert holds(RS256.sign({}, kid="a"), keys, "ES256", "RS256")


def test_key_ops_and_use_may_be_absent() -> None:
    keys = key_set_of_jwks(pki.jwks(RS256.jwk(use=None, alg=None, key_ops=["verify"])))
    assert keys.keys[0].algorithms == {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}


def test_secrets_are_in_no_repr() -> None:
    keys = key_set_of_jwks(pki.jwks(HS256))
    assert "shared secret" not in repr(keys)


# --- PEM ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "ES384", "ES512", "EdDSA"])
def test_pem_public_keys(algorithm: str) -> None:
    key = pki.jwt_key(algorithm)
    assert holds(key.sign({}), key_set_of_pem(key.public_pem), algorithm)


def test_several_pem_keys_and_text_between_them() -> None:
    pem = RS256.public_pem + b"# the next one\n" + pki.jwt_key("RS256", "other").public_pem
    keys = key_set_of_pem(pem)
    assert len(keys.keys) == 2
    assert holds(RS256.sign({}), keys, "RS256")


def test_pkcs1_and_certificates() -> None:
    pkcs1 = RS256.private.public_key().public_bytes(Encoding.PEM, PublicFormat.PKCS1)
    assert holds(RS256.sign({}), key_set_of_pem(pkcs1), "RS256")
    assert len(key_set_of_pem(pki.svid("auth-svc").chain_pem()).keys) == 1


@pytest.mark.parametrize(
    ("pem", "reason"),
    [
        (b"", "holds no -----BEGIN PUBLIC KEY"),
        (b"text", "holds no -----BEGIN PUBLIC KEY"),
        (pki.private_pem(RS256.private), "private key"),
        (RS256.public_pem + pki.private_pem(ES256.private), "private key"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "unreadable PUBLIC KEY"),
        (b"-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----", "unreadable CERTIFICATE"),
        (
            ec.generate_private_key(ec.SECP256K1())
            .public_key()
            .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            "only RSA, P-256",
        ),
    ],
)
def test_bad_pem(pem: bytes, reason: str) -> None:
    with pytest.raises(KeySetError, match=reason):
        key_set_of_pem(pem)


# --- shared secrets -------------------------------------------------------------------------------


def test_a_shared_secret() -> None:
    keys = key_set_of_secret(HS256.secret)
    assert holds(HS256.sign({}), keys, "HS256")
    assert not holds(HS256.sign({}), keys, "HS384")


@pytest.mark.parametrize(
    ("secret", "reason"),
    [
        ("", "0 bytes"),
        ("x" * 31, "31 bytes is too short for HS256: at least 32"),
        (RS256.public_pem.decode(), "is a public key or certificate"),
        (pki.svid("auth-svc").chain_pem().decode(), "is a public key or certificate"),
    ],
)
def test_bad_secrets(secret: str, reason: str) -> None:
    with pytest.raises(KeySetError, match=reason) as caught:
        key_set_of_secret(secret)
    assert not secret or secret not in str(caught.value)


def test_longer_hashes_need_longer_secrets() -> None:
    with pytest.raises(KeySetError, match="at least 64"):
        key_set_of_secret("x" * 63, ["HS256", "HS512"])
    with pytest.raises(KeySetError, match="does not fit a shared secret"):
        key_set_of_secret("x" * 64, ["RS256"])
