"""What is a secret in a message, by its name: nothing of its value is written down or shown.

One list for all that keeps messages: the access log, recordings, the window.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_plus

if TYPE_CHECKING:
    from hms_addons.http_message import Fields

REDACTED: Final = "[redacted]"
"""Stands in a secret's place."""

HIDDEN: Final = re.compile(rb"\[redacted(?:-[0-9a-f]+)?\]")
"""What stands in a secret's place, here or in what the window saves."""
JWT: Final = re.compile(rb"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")
"""A JSON Web Token, wherever it stands."""
_BYTES: Final = REDACTED.encode()
_SECRET: Final = "|".join(
    "authorization cookie token secret passw api[-_]?key credential session signature private".split()
)
_SECRET_NAME: Final = re.compile(_SECRET, re.IGNORECASE)
_PARAMETER_NAME: Final = re.compile(rf"{_SECRET}|code|key|sig|auth|jwt|otp|pin", re.IGNORECASE)
SECRET_PARAMETER: Final = re.compile(
    rf"((?:^|[&;])[^=&;]*(?:{_PARAMETER_NAME.pattern})[^=&;]*=)[^&;]*", re.IGNORECASE
)
"""A parameter of a query: its name with what precedes it, and its value."""
ENCODED_PARAMETER: Final = re.compile(r"((?:^|[&;])[^=&;%]*%[^=&;]*)=[^&;]*")
"""The same, where its name is percent-encoded: it may be a secret's, see `is_secret_parameter`."""
_WITH_URL: Final = frozenset({b"referer", b"location", b"content-location"})


def is_secret(name: str) -> bool:
    """Whether a header field of this name holds a secret: `Authorization`, cookies, tokens, …."""
    return _SECRET_NAME.search(name) is not None


def is_secret_parameter(name: str) -> bool:
    """Whether a query's parameter holds a secret, by its name as a service would read it."""
    return _PARAMETER_NAME.search(unquote_plus(name)) is not None


def redact_query(query: str) -> str:
    """A query without the values of those parameters that look like secrets."""
    redacted = SECRET_PARAMETER.sub(rf"\1{REDACTED}", query)
    return ENCODED_PARAMETER.sub(_decoded, redacted) if "%" in redacted else redacted


def _decoded(found: re.Match[str]) -> str:
    return f"{found[1]}={REDACTED}" if is_secret_parameter(found[1]) else found[0]


def redact_path(path: str) -> str:
    """A path without the JWTs in it."""
    if "eyJ" not in path:
        return path
    return JWT.sub(_BYTES, path.encode("utf-8", "surrogateescape")).decode(
        "utf-8", "surrogateescape"
    )


def redact_target(target: bytes) -> bytes:
    """A request's target, or a URL, without the secrets in its query, nor JWTs in its path."""
    path, question, query = target.partition(b"?")
    path = JWT.sub(_BYTES, path)
    if not question:
        return path
    return path + question + redact_query(query.decode("latin-1")).encode("latin-1")


def redact_fields(fields: Fields) -> Fields:
    """Header fields without secret values, nor JWTs in any. That they were there remains."""
    found = []
    for name, value in fields:
        if is_secret(name.decode("latin-1")):
            found.append((name, _BYTES))
        elif name.lower() in _WITH_URL:
            found.append((name, redact_target(value)))
        else:
            found.append((name, JWT.sub(_BYTES, value)))
    return tuple(found)


def redact_value(name: str, value: str) -> str:
    """One header field's value, as `redact_fields` leaves it."""
    field = (name.encode("latin-1", "replace"), value.encode("latin-1"))
    return redact_fields((field,))[0][1].decode("latin-1")
