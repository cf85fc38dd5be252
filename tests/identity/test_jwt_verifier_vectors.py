"""Wycheproof's JSON Web Signature and JSON Web Key vectors (see ../shared/vectors/README.md)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from hms_addons.identity.jwks_fetch import JwksFetchError, fetch_jwks
from hms_addons.identity.jws import JwsError, parse_compact
from hms_addons.identity.key_set import (
    ASYMMETRIC_ALGORITHMS,
    HMAC_ALGORITHMS,
    KeySetError,
    key_set_of_jwks,
    verify_signature,
)

VECTORS = Path(__file__).resolve().parents[3] / "shared" / "vectors"
FILES = ("wycheproof-json_web_signature_test.json", "wycheproof-json_web_key_test.json")

# The README's eight: 367 and 370 are the bytes of a valid case; 372 and 373 hold a `?`; the keys of
# the others name another algorithm than the token.
DIFFERS = {FILES[0]: {367: True, 370: True} | dict.fromkeys((372, 373, 346, 347, 350, 351), False)}


def cases() -> list[Any]:
    if not VECTORS.is_dir():
        return [pytest.param({}, {}, False, marks=pytest.mark.skip(f"{VECTORS} is not there"))]
    return [
        pytest.param(
            group.get("public") or group["private"],
            test["jws"],
            DIFFERS.get(name, {}).get(test["tcId"], test["result"] == "valid"),
            id=f"{'jws' if name == FILES[0] else 'jwk'}-{test['tcId']}-{test['comment']}",
        )
        for name in FILES
        for group in json.loads((VECTORS / name).read_text())["testGroups"]
        for test in group["tests"]
    ]


def accepts(key: dict[str, Any], token: Any) -> bool:
    """What a provider with this key would do, with every algorithm of the key's kind allowed."""
    jwks = key if "keys" in key else {"keys": [key]}
    symmetric = any(jwk.get("kty") == "oct" for jwk in jwks["keys"])
    allowed = HMAC_ALGORITHMS if symmetric else ASYMMETRIC_ALGORITHMS
    text = token if isinstance(token, str) else json.dumps(token)
    try:
        verify_signature(parse_compact(text), key_set_of_jwks(json.dumps(jwks)), allowed)
    except (JwsError, KeySetError):
        return False
    return True


@pytest.mark.parametrize(("key", "token", "expected"), cases())
def test_vector(key: dict[str, Any], token: Any, expected: bool) -> None:
    assert accepts(key, token) is expected


async def test_every_vector_by_a_fetched_key_set() -> None:
    """The same by `jwks_uri`, but for shared secrets, which nobody may publish."""
    if not VECTORS.is_dir():
        pytest.skip(f"{VECTORS} is not there")
    accepted = 0
    for key, token, expected in (case.values for case in cases()):
        jwks = key if "keys" in key else {"keys": [key]}
        secret = any(jwk.get("kty") == "oct" for jwk in jwks["keys"])
        content = json.dumps(jwks)
        transport = httpx.MockTransport(lambda _, body=content: httpx.Response(200, content=body))
        text = token if isinstance(token, str) else json.dumps(token)
        try:
            keys = (await fetch_jwks("http://id.example/", None, transport)).keys
            verify_signature(parse_compact(text), keys, ASYMMETRIC_ALGORITHMS)
        except (JwsError, JwksFetchError):
            assert secret or not expected, token
        else:
            assert expected, token
            assert not secret
            accepted += 1
    assert accepted == sum(
        bool(case.values[2]) and '"oct"' not in json.dumps(case.values[0]) for case in cases()
    )
    assert accepted > 20


def test_all_vectors_are_there() -> None:
    if not VECTORS.is_dir():
        pytest.skip(f"{VECTORS} is not there")
    assert len(cases()) == 401 + 26
    assert sum(bool(case.values[2]) for case in cases()) == 47
