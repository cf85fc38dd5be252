from __future__ import annotations

import datetime
import json
from typing import TYPE_CHECKING

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.verification import PolicyBuilder, Store

from scripts.benchmark import credentials as creds

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def credentials(tmp_path_factory: pytest.TempPathFactory) -> creds.Credentials:
    return creds.create(tmp_path_factory.mktemp("credentials"))


def load(file: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(file.read_bytes())


def test_both_svids_chain_to_the_bundle_and_carry_their_id(credentials: creds.Credentials) -> None:
    verifier = (
        PolicyBuilder()
        .store(Store([load(credentials.bundle)]))
        .time(datetime.datetime.now(datetime.UTC))
        .build_client_verifier()
    )
    for pair, spiffe_id in ((credentials.caller, creds.CALLER), (credentials.callee, creds.CALLEE)):
        certificate = load(pair.certificate)
        verified = verifier.verify(certificate, [])
        assert [name.value for name in verified.subjects or []] == [spiffe_id]
        key = certificate.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        assert isinstance(key.curve, ec.SECP256R1)
        assert pair.key.stat().st_mode & 0o077 == 0


def decode(token: str, credentials: creds.Credentials) -> dict[str, object]:
    key = jwt.PyJWKSet.from_dict(json.loads(credentials.jwks))["bench"]
    claims: dict[str, object] = jwt.decode(
        token, key, algorithms=["RS256"], issuer=creds.ISSUER, audience=creds.AUDIENCE
    )
    return claims


def test_the_tokens_are_what_their_names_say(credentials: creds.Credentials) -> None:
    assert decode(credentials.token, credentials)["role"] == creds.ROLE
    assert decode(credentials.token_of_other_role, credentials)["role"] != creds.ROLE
    with pytest.raises(jwt.InvalidSignatureError):
        decode(credentials.token_with_bad_signature, credentials)
