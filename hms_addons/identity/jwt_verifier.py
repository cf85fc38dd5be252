"""From a token to who is asking: RFC 7519 claims over a verified signature.

A token is verified once and the result remembered until it expires, at most five minutes; the
common case is one SHA-256, one dict look-up and one comparison. Refusals are not remembered.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections import OrderedDict
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from hms_addons.errors import MeshError
from hms_addons.identity.jws import JwsError, load_json_object, parse_compact
from hms_addons.identity.key_set import (
    ASYMMETRIC_ALGORITHMS,
    HMAC_ALGORITHMS,
    SUPPORTED_ALGORITHMS,
    verify_signature,
)
from hms_addons.identity.svid import iso_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from hms_addons.clock import Clock
    from hms_addons.identity.key_source import KeySource

logger = logging.getLogger(__name__)

DEFAULT_LEEWAY: Final = 60.0
CACHE_ENTRIES: Final = 10_000
CACHE_SECONDS: Final = 300.0

_QUOTED_CHARS: Final = 80
_LAST_DATE: Final = 253_402_300_799
"""The last second of the year 9999."""
_BEARER: Final = "bearer"


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


class JwtProviderError(MeshError, ValueError):
    """A provider is configured in a way that could not be safe; the message names it."""


@dataclass(frozen=True, slots=True)
class JwtProvider:
    """One issuer of tokens, and how its tokens are verified.

    Args:
        name: for messages and metrics.
        issuer: the `iss` that its tokens carry; None takes tokens that no other provider claims,
            with any `iss` or none.
        audiences: a token's `aud` must hold one of them; empty means that `aud` is not looked at
            (as in Envoy and Istio).
        algorithms: what it signs with: HMAC ones or asymmetric ones, never both, never `none`.
        source: its keys.
        role_claim: where the roles are: a claim's name, or a dotted path such as
            `realm_access.roles`.
        leeway: seconds by which clocks may differ when `exp` and `nbf` are compared.

    Raises:
        JwtProviderError: no, unknown or mixed algorithms, or a bad leeway.
    """

    name: str
    issuer: str | None
    audiences: frozenset[str]
    algorithms: frozenset[str]
    source: KeySource = field(repr=False)
    role_claim: str = "roles"
    leeway: float = DEFAULT_LEEWAY

    def __post_init__(self) -> None:
        """Refuse what RFC 8725 §3.1 warns of."""
        if not self.algorithms:
            raise JwtProviderError(f"provider {self.name!r}: name at least one algorithm")
        if unknown := sorted(self.algorithms - SUPPORTED_ALGORITHMS):
            supported = ", ".join(sorted(SUPPORTED_ALGORITHMS))
            raise JwtProviderError(
                f"provider {self.name!r}: the algorithm {unknown[0]!r} is never accepted; "
                f"choose from {supported}"
            )
        if self.algorithms & HMAC_ALGORITHMS and self.algorithms & ASYMMETRIC_ALGORITHMS:
            raise JwtProviderError(
                f"provider {self.name!r}: HS… and asymmetric algorithms exclude each other, or a "
                "public key could be taken for a secret; make two providers"
            )
        if not (math.isfinite(self.leeway) and self.leeway >= 0):
            raise JwtProviderError(f"provider {self.name!r}: the leeway must be 0s or more")

    @property
    def problem(self) -> str | None:
        """Why its tokens cannot be verified as things are, or None."""
        if self.source.problem is not None:
            return f"provider {self.name!r}: {self.source.problem}"
        keys = self.source.keys.keys
        if keys and not any(key.algorithms & self.algorithms for key in keys):
            names = ", ".join(sorted(self.algorithms))
            return f"provider {self.name!r}: none of its keys can verify its algorithms ({names})"
        return None


@dataclass(frozen=True, slots=True)
class VerifiedToken:
    """What a genuine, current token says.

    `roles` are in the token's order without repetitions. `expires_at` is seconds since the Unix
    epoch, infinite if the token has no `exp`. `provider` is the provider's name.
    """

    subject: str | None
    roles: tuple[str, ...]
    claims: Mapping[str, Any] = field(repr=False)
    issuer: str | None
    expires_at: float
    provider: str


class JwtVerifier[T]:
    """Verifies tokens of several providers, and remembers what `make` made of each.

    Args:
        providers: no two with the same issuer.
        clock: time, injected.
        make: called once per verified token; its result is what `verify` returns and what is
            remembered, so the caller's own form of it (ready-made headers) costs nothing later.

    Raises:
        JwtProviderError: two providers for one issuer.
    """

    __slots__ = ("_by_issuer", "_cache", "_catch_all", "_clock", "_make", "_providers")

    def __init__(
        self,
        providers: Iterable[JwtProvider],
        clock: Clock,
        make: Callable[[VerifiedToken], T],
    ) -> None:
        self._providers = tuple(providers)
        self._clock = clock
        self._make = make
        self._by_issuer: dict[str, JwtProvider] = {}
        self._catch_all: JwtProvider | None = None
        # Keyed by digest, not by the token: a heap dump or a debugger then shows no credentials.
        # Hashing costs 1 µs; a dict of tokens would save half of that, as it hashes them too.
        self._cache: OrderedDict[bytes, tuple[float, T]] = OrderedDict()
        for provider in self._providers:
            self._add(provider)

    def __repr__(self) -> str:
        names = ", ".join(provider.name for provider in self._providers)
        return f"<JwtVerifier providers=[{names}] cached={len(self._cache)}>"

    def _add(self, provider: JwtProvider) -> None:
        other = self._catch_all if provider.issuer is None else self._by_issuer.get(provider.issuer)
        if other is not None:
            whose = "without an issuer" if provider.issuer is None else f"for {provider.issuer!r}"
            raise JwtProviderError(f"two providers {whose}: {other.name!r} and {provider.name!r}")
        if provider.issuer is None:
            self._catch_all = provider
        else:
            self._by_issuer[provider.issuer] = provider

    @property
    def problems(self) -> list[str]:
        """Why tokens of some providers cannot be verified as things are; empty while all is well."""
        return [problem for provider in self._providers if (problem := provider.problem)]

    def verify(self, token: str) -> T:
        """Who a token says is asking, if it is genuine, current and for us.

        Raises:
            JwtError: it is not.
        """
        # `surrogatepass` encodes any str, and no two alike.
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        cache = self._cache
        entry = cache.get(digest)
        if entry is not None:
            if self._clock.wall() < entry[0]:
                cache.move_to_end(digest)
                return entry[1]
            del cache[digest]
        verified = self._verify(token)
        made = self._make(verified)
        now = self._clock.wall()
        # Never beyond `exp`: during the leeway after it, each use is verified anew.
        deadline = min(verified.expires_at, now + CACHE_SECONDS)
        if now < deadline:
            cache[digest] = (deadline, made)
            if len(cache) > CACHE_ENTRIES:
                cache.popitem(last=False)
        return made

    def refresh(self) -> bool:
        """Let every source look for newer keys; if there are any, forget all verified tokens.

        For a timer (about once a second), so that no request waits for a file.

        Returns:
            Whether keys have changed.
        """
        changed = False
        for provider in self._providers:
            if provider.source.refresh():
                logger.info("provider %s: the keys have changed", provider.name)
                changed = True
        if changed:
            self._cache.clear()
        return changed

    def _verify(self, token: str) -> VerifiedToken:
        try:
            jws = parse_compact(token)
            claims = load_json_object(jws.payload, "payload")
            provider = self._provider_of(claims)
            verify_signature(jws, provider.source.keys, provider.algorithms)
        except JwsError as error:
            raise JwtError(JwtErrorCode.INVALID_TOKEN, str(error)) from error
        expires_at = _check_times(claims, self._clock.wall(), provider.leeway)
        _check_audience(claims, provider)
        return VerifiedToken(
            subject=_subject(claims),
            roles=_roles(claims, provider.role_claim),
            claims=MappingProxyType(claims),
            issuer=claims.get("iss"),
            expires_at=expires_at,
            provider=provider.name,
        )

    def _provider_of(self, claims: Mapping[str, Any]) -> JwtProvider:
        """The provider whose token this claims to be; its signature has yet to prove it."""
        issuer = claims.get("iss")
        if issuer is not None and not isinstance(issuer, str):
            raise _invalid("the token's issuer (`iss`) is not a string")
        provider = self._by_issuer.get(issuer) if issuer is not None else None
        provider = provider or self._catch_all
        if provider is None:
            if issuer is None:
                raise _invalid("the token names no issuer (`iss`)")
            raise _invalid(f"the token's issuer {_quote(issuer)} is not one of those accepted")
        return provider


def token_from_header(value: str) -> str | None:
    """The token in an `Authorization` field: after `Bearer`, or bare, as the seed's caller sends it.

    Returns:
        The token (possibly empty, if `Bearer` stands alone), or None if the field is empty or uses
        another scheme such as `Basic`, which is the application's business.
    """
    words = value.split(None, 1)
    if not words:
        return None
    scheme = words[0]
    if len(scheme) == len(_BEARER) and scheme.lower() == _BEARER:
        return words[1].rstrip() if len(words) > 1 else ""
    return scheme if len(words) == 1 else None


def _check_times(claims: Mapping[str, Any], now: float, leeway: float) -> float:
    """Compare `exp` and `nbf` (RFC 7519 §4.1.4, §4.1.5); returns when the token expires.

    `iat` must be a date too, as the RFC has it, but decides nothing.
    """
    expires_at = _date(claims, "exp", math.inf)
    if now >= expires_at + leeway:
        raise _invalid(f"the token expired at {iso_time(expires_at)}; obtain a new one")
    not_before = _date(claims, "nbf", -math.inf)
    if now < not_before - leeway:
        raise _invalid(f"the token is not valid before {iso_time(not_before)}")
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
        raise _invalid(f"the token's `{name}` is not a number")
    # False for NaN too. Compared before it is made a float, for which an int can be too large.
    if not 0 <= value <= _LAST_DATE:
        raise _invalid(f"the token's `{name}` is beyond all calendars")
    return float(value)


def _check_audience(claims: Mapping[str, Any], provider: JwtProvider) -> None:
    """RFC 7519 §4.1.3: one of ours must be among the token's."""
    if not provider.audiences:
        return
    found = claims.get("aud")
    audiences = [found] if isinstance(found, str) else found
    if not isinstance(audiences, list) or not all(isinstance(item, str) for item in audiences):
        if found is None:
            raise _wrong_audience("the token names no audience (`aud`)", provider)
        raise _invalid("the token's audience (`aud`) is neither a string nor a list of strings")
    if provider.audiences.isdisjoint(audiences):
        raise _wrong_audience("the token is for another audience", provider)


def _wrong_audience(what: str, provider: JwtProvider) -> JwtError:
    wanted = ", ".join(sorted(provider.audiences))
    return JwtError(
        JwtErrorCode.INSUFFICIENT_SCOPE, f"{what}; obtain one whose `aud` has one of: {wanted}"
    )


def _subject(claims: Mapping[str, Any]) -> str | None:
    subject = claims.get("sub")
    if subject is None:
        return None
    if not isinstance(subject, str) or not subject.isprintable():
        raise _invalid("the token's subject (`sub`) is not printable text")
    return subject


def _roles(claims: Mapping[str, Any], path: str) -> tuple[str, ...]:
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
        raise _invalid(f"the token's roles (`{path}`) are neither a string nor a list of strings")
    for role in roles:
        if not role.strip() or "," in role or not role.isprintable():
            raise _invalid(f"the token's roles (`{path}`) hold one that is empty, or has a comma")
    return tuple(dict.fromkeys(roles))


def _walk(claims: Mapping[str, Any], path: str) -> Any:
    value: Any = claims
    for name in path.split("."):
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value


def _invalid(detail: str) -> JwtError:
    return JwtError(JwtErrorCode.INVALID_TOKEN, detail)


def _quote(text: str) -> str:
    return repr(text if len(text) <= _QUOTED_CHARS else text[:_QUOTED_CHARS] + "…")
