"""`rate_limit`: at most so many requests, by caller, role, subject, header field or route.

Asked at the very end of authorize, so that only what is allowed counts. All limits of a request must
admit it; what one of them refuses takes nothing from the others. The answer is 429 `RL`, with
`Retry-After` and the fields of draft-ietf-httpapi-ratelimit-headers. Buckets are this sidecar's own,
and outlive every change of configuration that leaves their limit as it is.
"""

from __future__ import annotations

import math
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

from hms_addons.clock import SYSTEM_CLOCK
from hms_addons.config.shaping import LimitBy, shapings
from hms_addons.errors import Fault
from hms_addons.hookspecs import hookimpl
from hms_addons.token_bucket import NANOSECONDS, KeyedBuckets, Rate

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from hms_addons.clock import Clock
    from hms_addons.config.shaping import RateLimit as RateLimitSpec
    from hms_addons.config.snapshot import Snapshot
    from hms_addons.exchange import Exchange
    from hms_addons.hookspecs import Mesh
    from hms_addons.http_message import Fields

ANONYMOUS: Final = b""
"""The key of all requests that have none: no token, no certificate, no such field."""
_LONGEST_KEY: Final = 64
"""Bytes of a key that are remembered as they are; of a longer one, its digest."""


class RateLimit:
    """The built-in plugin `rate_limit`.

    Args:
        clock: what buckets are refilled by.
    """

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._buckets: dict[str, KeyedBuckets] = {}
        self._previous: dict[str, KeyedBuckets] = {}
        self._specs: dict[str, RateLimitSpec] = {}

    def __repr__(self) -> str:
        return f"<RateLimit {len(self._buckets)} limits>"

    @hookimpl
    def hms_configure(self, snapshot: Snapshot) -> None:
        """Keep the buckets of limits that stay, make those of new ones.

        Those of the configuration before are kept a while: it may come back, and requests that
        began with it are still counted there.
        """
        specs = {
            limit.key: limit for shaping in shapings(snapshot) for limit in shaping.rate_limits
        }
        buckets = {}
        for key, spec in specs.items():
            found = self._find(key)
            buckets[key] = _make(spec) if found is None else found
        if buckets.keys() != self._buckets.keys():
            self._previous = self._buckets
        self._buckets = buckets
        self._specs = specs

    def _find(self, key: str) -> KeyedBuckets | None:
        found = self._buckets.get(key)
        return self._previous.get(key) if found is None else found

    @hookimpl
    def hms_idle_hooks(self, snapshot: Snapshot) -> Collection[str]:
        """Nothing to do where nothing is limited."""
        used = any(shaping.rate_limits for shaping in shapings(snapshot))
        return () if used else ("hms_authorize",)

    @hookimpl
    def hms_startup(self, mesh: Mesh) -> None:
        """Have the status tell how the limits are used."""
        mesh.add_status("rate_limits", self.status)

    def status(self) -> list[dict[str, Any]]:
        """Every limit and what it did, as JSON-ready types; no key."""
        return [
            {
                "limit": spec.name,
                "place": spec.place,
                "keys": len(self._buckets[key]),
                "admitted": self._buckets[key].admitted,
                "refused": self._buckets[key].refused,
                "dropped": self._buckets[key].dropped,
            }
            for key, spec in self._specs.items()
        ]

    @hookimpl(trylast=True)
    def hms_authorize(self, exchange: Exchange) -> None:
        """Refuse what is too much; count what is not."""
        route = exchange.route
        shaping = None if route is None else route.shaping
        limits = () if shaping is None else shaping.rate_limits
        if not limits:
            return
        now = int(self._clock.monotonic() * NANOSECONDS)
        asked = []
        refusing: list[tuple[RateLimitSpec, int]] = []
        for limit in limits:
            buckets = self._find(limit.key)
            if buckets is None:
                # The request was held while two other configurations came in.
                buckets = self._previous.setdefault(limit.key, _make(limit))
            key = _key(limit, exchange)
            asked.append((buckets, key))
            wait = buckets.wait(key, now)
            if wait:
                buckets.refuse()
                refusing.append((limit, wait))
        if refusing:
            _refuse(exchange, limits, refusing)
            return
        for buckets, key in asked:
            buckets.take(key, now)


def _make(limit: RateLimitSpec) -> KeyedBuckets:
    return KeyedBuckets(Rate.of(limit.requests, limit.per, limit.burst))


def _key(limit: RateLimitSpec, exchange: Exchange) -> bytes:
    """Whose bucket a request is counted in."""
    by = limit.by
    key: bytes | None = None
    if by is LimitBy.ROUTE:
        return ANONYMOUS
    if by is LimitBy.HEADER:
        key = exchange.head.get(limit.header or b"")
    elif by is LimitBy.CALLER:
        key = None if exchange.peer is None else exchange.peer.encode()
    elif by is LimitBy.SUBJECT:
        subject = exchange.principal.subject
        key = None if subject is None else subject.encode("utf-8", "surrogatepass")
    elif exchange.principal.roles:
        key = exchange.principal.roles[0].encode("utf-8", "surrogatepass")
    if key is None:
        return ANONYMOUS
    # A NUL, which no field can hold, keeps digests apart from keys that are shorter.
    return key if len(key) <= _LONGEST_KEY else b"\0" + blake2b(key, digest_size=20).digest()


def _refuse(
    exchange: Exchange,
    limits: Sequence[RateLimitSpec],
    refusing: Sequence[tuple[RateLimitSpec, int]],
) -> None:
    limit, wait = max(refusing, key=lambda item: item[1])
    seconds = wait / NANOSECONDS
    exchange.fail(
        Fault.RATE_LIMITED,
        f"the limit {limit.name!r} ({limit.place}) admits {describe(limit)}, and that is used up; "
        f"try again in {_rounded(seconds):g}s",
        retry_after=seconds,
        headers=_fields(limits, refusing),
    )


def describe(limit: RateLimitSpec) -> str:
    """What a limit admits, in words; never whose request it was."""
    of = {
        LimitBy.CALLER: "for each calling service",
        LimitBy.ROLE: "for each role",
        LimitBy.SUBJECT: "for each subject",
        LimitBy.HEADER: f"for each value of {(limit.header or b'').decode()}",
        LimitBy.ROUTE: "for all callers together",
    }
    return f"{limit.requests} requests per {limit.per:g}s, {limit.burst} at once, {of[LimitBy(limit.by)]}"


def _rounded(seconds: float) -> float:
    """Up, so that nobody who waits that long comes too early."""
    return math.ceil(seconds * 1000) / 1000


def _fields(
    limits: Sequence[RateLimitSpec], refusing: Sequence[tuple[RateLimitSpec, int]]
) -> Fields:
    """`RateLimit-Policy` names every limit, `RateLimit` those that are used up (draft, section 3, 4).

    Windows and waits are whole seconds there, so a shorter window is left out.
    """
    policies = []
    for limit in limits:
        window = f";w={limit.per:.0f}" if limit.per >= 1 and limit.per == int(limit.per) else ""
        policies.append(f'"{limit.name}";q={limit.requests}{window}')
    states = [f'"{limit.name}";r=0;t={-(-wait // NANOSECONDS)}' for limit, wait in refusing]
    return (
        (b"RateLimit-Policy", ", ".join(policies).encode()),
        (b"RateLimit", ", ".join(states).encode()),
    )
