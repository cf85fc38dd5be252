from __future__ import annotations

import base64
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hms_addons.identity.jws import (
    MAX_TOKEN_CHARS,
    JwsError,
    decode_base64url,
    load_json_object,
    parse_compact,
)


def encode(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def token(header: object, payload: bytes = b"{}", signature: bytes = b"sig") -> str:
    return ".".join((encode(json.dumps(header).encode()), encode(payload), encode(signature)))


def test_the_parts_of_a_token() -> None:
    text = token({"alg": "RS256", "kid": "k1", "typ": "JWT"}, b'{"a": 1}', b"\x00\xff")
    jws = parse_compact(text)
    assert jws.header == {"alg": "RS256", "kid": "k1", "typ": "JWT"}
    assert (jws.algorithm, jws.key_id) == ("RS256", "k1")
    assert (jws.payload, jws.signature) == (b'{"a": 1}', b"\x00\xff")
    assert jws.signing_input.decode() == text.rpartition(".")[0]


def test_an_empty_signature_is_still_three_parts() -> None:
    jws = parse_compact(token({"alg": "none"}, signature=b""))
    assert jws.signature == b""
    assert jws.signing_input.decode() == token({"alg": "none"}, signature=b"")[:-1]


@given(st.binary(max_size=64))
@example(b"")
@example(b"\xfb\xff\xfe")
def test_base64url_is_read_as_it_is_written(content: bytes) -> None:
    assert decode_base64url(encode(content), "part") == content


@given(st.text("Aa0-_+/= \n.é", max_size=12) | st.text(max_size=8))
def test_only_canonical_base64url_is_read(text: str) -> None:
    try:
        content = decode_base64url(text, "part")
    except JwsError:
        return
    assert encode(content) == text


@given(st.text(max_size=80) | st.text("AQab.-_{}", max_size=80))
def test_nothing_but_jws_error_comes_of_garbage(text: str) -> None:
    with pytest.raises(JwsError):
        parse_compact(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "three parts"),
        ("a.b", "three parts"),
        ("a.b.c.d", "three parts"),
        (token({"alg": "RS256"}) + "=", "signature is not unpadded"),
        ("A" * (MAX_TOKEN_CHARS + 1), "longer than"),
        (token([]), "header is not a JSON object"),
        (token("x"), "header is not a JSON object"),
        (encode(b'{"alg":"RS256","alg":"none"}') + "..", "repeated names"),
        (encode(b'{"alg":NaN}') + "..", "not a JSON object"),
        (encode(b"[" * 9000) + "..", "not a JSON object"),
        (encode(b"\xff") + "..", "not a JSON object"),
        (token({}), "names no algorithm"),
        (token({"alg": 5}), "names no algorithm"),
        (token({"alg": None}), "names no algorithm"),
        (token({"alg": "RS256", "kid": 5}), "`kid`"),
        (token({"alg": "RS256", "crit": ["exp"]}), "demands an extension"),
        (token({"alg": "RS256", "crit": []}), "demands an extension"),
        (token({"alg": "RS256", "crit": ["b64"], "b64": False}), "demands an extension"),
        (token({"alg": "RS256", "b64": False}), "demands an extension"),
    ],
)
def test_malformed(text: str, reason: str) -> None:
    with pytest.raises(JwsError, match=reason) as caught:
        parse_compact(text)
    assert len(text) < 5 or text not in str(caught.value)


@pytest.mark.parametrize(
    "document", [b"", b"null", b"[]", b'{"a":1,"a":2}', b'{"a":{"b":1,"b":2}}']
)
def test_json_objects_only(document: bytes) -> None:
    with pytest.raises(JwsError, match="the claims is not a JSON object"):
        load_json_object(document, "claims")
