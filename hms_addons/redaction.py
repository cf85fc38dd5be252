"""What is a secret in a message: nothing of its value is written down or shown.

One set of rules for all that keeps messages: the access log, recordings, the window. Secret are header fields and
parameters of URLs whose names say so, the user and password in a URL, and JWTs wherever they stand.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_plus

if TYPE_CHECKING:
    from collections.abc import Callable

    from hms_addons.http_message import Fields

REDACTED: Final = "[redacted]"
"""Stands in a secret's place."""

HIDDEN: Final = re.compile(rb"\[redacted(?:-[0-9a-f]+)?\]")
"""What stands in a secret's place, here or in what the window saves."""
_JWT: Final = re.compile(rb"eyJ[A-Za-z0-9_-]*+(\.[A-Za-z0-9_-]++\.[A-Za-z0-9_-]*+)?")
"""What may be a JSON Web Token, and is one with its first group.

It matches what is none, too: else a long run of `eyJeyJ…` would be read again from each of them.
"""
_BYTES: Final = REDACTED.encode()
_SECRET: Final = "|".join(
    """authorization cookie token secret passw credential session signature private
    (?:api|auth|access|functions|subscription)[-_]?key""".split()
)
_SECRET_NAME: Final = re.compile(rf"{_SECRET}|(?:^|[-_])auth$", re.IGNORECASE)
_PARAMETER_NAME: Final = re.compile(
    rf"{_SECRET}|code|key|sig|auth|jwt|otp|pin|saml|assertion", re.IGNORECASE
)
_PARAMETER: Final = re.compile(rb"(?:^|(?<=[&;]))([^=&;]*)=([^&;]*)")
_USER: Final = re.compile(rb"((?:^|:)//)([^/?#&\s]+)@")
_URL: Final = frozenset(
    b"""referer location content-location destination x-original-url x-original-uri x-rewrite-url
    x-forwarded-uri x-forwarded-url""".split()
)
"""Header fields that are URLs."""
_URL_WITHIN: Final = {
    b"link": re.compile(rb"(<)([^>]*)"),
    b"refresh": re.compile(rb"(;\s*(?:url\s*=)?\s*[\"']?)([^\"']*)", re.IGNORECASE),
}
"""Header fields that have URLs: what precedes one, and the URL."""
_NONE: Final[frozenset[bytes]] = frozenset()


def is_secret(name: str) -> bool:
    """Whether a header field of this name holds a secret: `Authorization`, cookies, tokens, …."""
    return _SECRET_NAME.search(name) is not None


def is_secret_parameter(name: str) -> bool:
    """Whether a query's parameter holds a secret, by its name as a service would read it."""
    return _PARAMETER_NAME.search(unquote_plus(name)) is not None


# -- with something in a secret's place ---------------------------------------------------------


def hide_in_value(
    name: bytes, value: bytes, hide: Callable[[bytes], bytes], also: frozenset[bytes] = _NONE
) -> bytes:
    """A header field's value with its secrets hidden.

    Args:
        name: in lower case.
        value: as it was sent.
        hide: gives what is to stand in a secret's place.
        also: further names of secret fields and parameters, in lower case.
    """
    if name in also or is_secret(name.decode("latin-1")):
        return hide(value)
    if name in _URL:
        return hide_in_url(value, hide, also)
    if (urls := _URL_WITHIN.get(name)) is not None:
        value = urls.sub(lambda found: found[1] + hide_in_url(found[2], hide, also), value)
    return _hide_tokens(value, hide)


def hide_in_url(
    url: bytes, hide: Callable[[bytes], bytes], also: frozenset[bytes] = _NONE
) -> bytes:
    """A URL, or a request's target, with its secrets hidden; arguments as for `hide_in_value`."""
    head, hash_mark, fragment = url.partition(b"#")
    path, question_mark, query = head.partition(b"?")
    # OpenID Connect answers in the fragment; pages have whole targets there.
    parts = [_hide_in_query(part, hide, also) for part in fragment.split(b"?")]
    shown = path + question_mark + _hide_in_query(query, hide, also) + hash_mark + b"?".join(parts)
    if b"@" in shown:
        shown = _USER.sub(lambda found: found[1] + hide(found[2]) + b"@", shown)
    return _hide_tokens(shown, hide)


def _hide_in_query(query: bytes, hide: Callable[[bytes], bytes], also: frozenset[bytes]) -> bytes:
    def shown(found: re.Match[bytes]) -> bytes:
        name = found[1].decode("latin-1")
        secret = is_secret_parameter(name) or (also and unquote_plus(name).lower().encode() in also)
        return found[1] + b"=" + hide(found[2]) if secret else found[0]

    return _PARAMETER.sub(shown, query) if query else query


def _hide_tokens(value: bytes, hide: Callable[[bytes], bytes]) -> bytes:
    if b"eyJ" not in value:
        return value
    return _JWT.sub(lambda found: hide(found[0]) if found[1] else found[0], value)


# -- with `[redacted]` there --------------------------------------------------------------------


def redact_query(query: str) -> str:
    """A query without the values of those parameters that look like secrets, nor JWTs."""
    raw = query.encode("utf-8", "surrogateescape")
    shown = _hide_tokens(_hide_in_query(raw, _redacted, _NONE), _redacted)
    return shown.decode("utf-8", "surrogateescape")


def redact_path(path: str) -> str:
    """A path without the JWTs in it."""
    if "eyJ" not in path:
        return path
    raw = path.encode("utf-8", "surrogateescape")
    return _hide_tokens(raw, _redacted).decode("utf-8", "surrogateescape")


def redact_target(target: bytes) -> bytes:
    """A request's target, or a URL, without secrets."""
    return hide_in_url(target, _redacted)


def redact_fields(fields: Fields) -> Fields:
    """Header fields without secret values, nor JWTs in any. That they were there remains."""
    return tuple((name, hide_in_value(name.lower(), value, _redacted)) for name, value in fields)


def redact_value(name: str, value: str) -> str:
    """One header field's value, as `redact_fields` leaves it."""
    raw = name.lower().encode("latin-1", "replace")
    return hide_in_value(raw, value.encode("latin-1"), _redacted).decode("latin-1")


def _redacted(secret: bytes) -> bytes:
    del secret
    return _BYTES
