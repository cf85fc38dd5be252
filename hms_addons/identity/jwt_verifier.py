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
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from hms_addons.errors import MeshError
from hms_addons.identity.jws import JwsError, load_json_object, parse_compact
from hms_addons.identity.jwt_claims import (
    JwtError,
    JwtErrorCode,
    check_audience,
    check_times,
    invalid,
    quoted,
    roles_of,
    subject_of,
)
from hms_addons.identity.key_set import (
    ASYMMETRIC_ALGORITHMS,
    HMAC_ALGORITHMS,
    SUPPORTED_ALGORITHMS,
    KeySet,
    UnknownKeyError,
    verify_signature,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from hms_addons.clock import Clock
    from hms_addons.identity.jws import CompactJws
    from hms_addons.identity.key_source import KeySource

logger = logging.getLogger(__name__)

DEFAULT_LEEWAY: Final = 60.0
CACHE_ENTRIES: Final = 10_000
CACHE_SECONDS: Final = 300.0

_BEARER: Final = "bearer"


class JwtKeyError(JwtError):
    """A token names a key that is not here; its issuer may have begun to use it just now."""

    def __init__(self, detail: str, source: KeySource) -> None:
        super().__init__(JwtErrorCode.INVALID_TOKEN, detail)
        self._source = source

    def renewal(self) -> Awaitable[bool] | None:
        """See `KeySource.renewal`."""
        return self._source.renewal()


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
        forward: whether its tokens are sent on to the next hop.

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
    forward: bool = True

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
    forward: bool = True


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

    __slots__ = ("_by_issuer", "_cache", "_catch_all", "_clock", "_keys", "_make", "_providers")

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
        self._keys: list[KeySet] = [provider.source.keys for provider in self._providers]

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
    def providers(self) -> tuple[JwtProvider, ...]:
        """In the order of the configuration."""
        return self._providers

    @property
    def problems(self) -> list[str]:
        """Why tokens of some providers cannot be verified as things are; empty while all is well."""
        return [problem for provider in self._providers if (problem := provider.problem)]

    def verify(self, token: str) -> T:
        """Who a token says is asking, if it is genuine, current and for us.

        Raises:
            JwtKeyError: it names a key that is not here (yet).
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

        For a timer (about once a second), so that no request waits for a file, and for a source
        that finds newer ones itself: what a key that is gone has verified is forgotten at once.

        Returns:
            Whether keys have changed.
        """
        changed = False
        for index, provider in enumerate(self._providers):
            provider.source.refresh()
            # Compared here, as a source may serve several verifiers.
            if (keys := provider.source.keys) is not self._keys[index]:
                self._keys[index] = keys
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
            _check_signature(jws, provider)
        except JwsError as error:
            raise JwtError(JwtErrorCode.INVALID_TOKEN, str(error)) from error
        expires_at = check_times(claims, self._clock.wall(), provider.leeway)
        check_audience(claims, provider.audiences)
        return VerifiedToken(
            subject=subject_of(claims),
            roles=roles_of(claims, provider.role_claim),
            claims=MappingProxyType(claims),
            issuer=claims.get("iss"),
            expires_at=expires_at,
            provider=provider.name,
            forward=provider.forward,
        )

    def _provider_of(self, claims: Mapping[str, Any]) -> JwtProvider:
        """The provider whose token this claims to be; its signature has yet to prove it."""
        issuer = claims.get("iss")
        if issuer is not None and not isinstance(issuer, str):
            raise invalid("the token's issuer (`iss`) is not a string")
        provider = self._by_issuer.get(issuer) if issuer is not None else None
        provider = provider or self._catch_all
        if provider is None:
            if issuer is None:
                raise invalid("the token names no issuer (`iss`)")
            raise invalid(f"the token's issuer {quoted(issuer)} is not one of those accepted")
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


def _check_signature(jws: CompactJws, provider: JwtProvider) -> None:
    source = provider.source
    try:
        verify_signature(jws, source.keys, provider.algorithms)
    except UnknownKeyError as error:
        detail = str(error)
        if not source.keys.keys:
            # Not why: that may name places which are no caller's business, and is logged.
            detail = (
                f"the keys of its issuer (provider {provider.name!r}) are not known yet, so no token "
                "of it can be verified; try again later"
            )
        raise JwtKeyError(detail, source) from error
