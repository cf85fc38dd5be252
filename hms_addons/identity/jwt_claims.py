"""The claims of a token (RFC 7519 section 4) once its signature has been verified, and refusals of tokens."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from hms_addons.errors import MeshError
from hms_addons.identity.svid import iso_time

if TYPE_CHECKING:
    from collections.abc import Mapping

_QUOTED_CHARS: Final = 80
_LAST_DATE: Final = 253_402_300_799
"""The last second of the year 9999."""


class JwtErrorCode(StrEnum):
    """Why a token is refused: the error codes of RFC 6750 §3.1, for `WWW-Authenticate`."""

    INVALID_TOKEN = "invalid_token"  # noqa: S105 - an error code, no credential
    """Malformed, unsigned by a known issuer, expired, …: 401."""
    INSUFFICIENT_SCOPE = "insufficient_scope"
    """Genuine, but made for another audience: 403."""


class JwtError(MeshError):
    """A token is refused.

    `code` says which answer is due; `detail` what is wrong, for the caller and the log. The detail
    never contains the token, its signature or a key.
    """

    def __init__(self, code: JwtErrorCode, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail

    @property
    def status(self) -> int:
        """The HTTP status: 401 or 403."""
        return 401 if self.code is JwtErrorCode.INVALID_TOKEN else 403


def check_times(claims: Mapping[str, Any], now: float, leeway: float) -> float:
    """Compare `exp` and `nbf` (RFC 7519 §4.1.4, §4.1.5); returns when the token expires.

    `iat` must be a date too, as the RFC has it, but decides nothing.
    """
    expires_at = _date(claims, "exp", math.inf)
    if now >= expires_at + leeway:
        raise invalid(f"the token expired at {iso_time(expires_at)}; obtain a new one")
    not_before = _date(claims, "nbf", -math.inf)
    if now < not_before - leeway:
        raise invalid(f"the token is not valid before {iso_time(not_before)}")
    _date(claims, "iat", now)
    return expires_at


def _date(claims: Mapping[str, Any], name: str, default: float) -> float:
    """A NumericDate (RFC 7519 §2) within the calendar, in seconds since the epoch.

    What is beyond it is refused, and not taken for "never expires": JSON's `1e400` is read as
    infinity, and an issuer that counts in milliseconds would give tokens for 50,000 years.
    """
    if name not in claims:
        return default
    value = claims[name]
    # bool is an int in Python; a date in quotes is a mistake of the issuer.
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise invalid(f"the token's `{name}` is not a number")
    # False for NaN too. Compared before it is made a float, for which an int can be too large.
    if not 0 <= value <= _LAST_DATE:
        raise invalid(f"the token's `{name}` is beyond all calendars")
    return float(value)


def check_audience(claims: Mapping[str, Any], wanted: frozenset[str]) -> None:
    """RFC 7519 §4.1.3: one of ours must be among the token's."""
    if not wanted:
        return
    found = claims.get("aud")
    audiences = [found] if isinstance(found, str) else found
    if not isinstance(audiences, list) or not all(isinstance(item, str) for item in audiences):
        if found is None:
            raise _wrong_audience("the token names no audience (`aud`)", wanted)
        raise invalid("the token's audience (`aud`) is neither a string nor a list of strings")
    if wanted.isdisjoint(audiences):
        raise _wrong_audience("the token is for another audience", wanted)


def _wrong_audience(what: str, wanted: frozenset[str]) -> JwtError:
    names = ", ".join(sorted(wanted))
    return JwtError(
        JwtErrorCode.INSUFFICIENT_SCOPE, f"{what}; obtain one whose `aud` has one of: {names}"
    )


def subject_of(claims: Mapping[str, Any]) -> str | None:
    """Who the token is about (`sub`), or None.

    Raises:
        JwtError: it is not printable text.
    """
    subject = claims.get("sub")
    if subject is None:
        return None
    if not isinstance(subject, str) or not subject.isprintable():
        raise invalid("the token's subject (`sub`) is not printable text")
    return subject


def roles_of(claims: Mapping[str, Any], path: str) -> tuple[str, ...]:
    """The roles at a claim or dotted path: a string is one role, a list several; absent, none.

    Roles travel on in one header, joined by commas; a role that could be read there as two, or as
    another header, makes the token invalid rather than being dropped: dropping one could evade a
    DENY policy.
    """
    value = claims.get(path, _walk(claims, path))
    if value is None:
        return ()
    roles = [value] if isinstance(value, str) else value
    if not isinstance(roles, list) or not all(isinstance(role, str) for role in roles):
        raise invalid(f"the token's roles (`{path}`) are neither a string nor a list of strings")
    for role in roles:
        if not role.strip() or "," in role or not role.isprintable():
            raise invalid(
                f"the token's roles (`{path}`) hold one that is empty, not printable, or has a comma"
            )
    return tuple(dict.fromkeys(roles))


def _walk(claims: Mapping[str, Any], path: str) -> Any:
    value: Any = claims
    for name in path.split("."):
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value


def invalid(detail: str) -> JwtError:
    """A refusal with 401."""
    return JwtError(JwtErrorCode.INVALID_TOKEN, detail)


def quoted(text: str) -> str:
    """A claim of a token for a message, shortened."""
    return repr(text if len(text) <= _QUOTED_CHARS else text[:_QUOTED_CHARS] + "…")
