"""`ring_hash`: consistent hashing on a ring of points, as ketama and Envoy do it.

Every endpoint has points on a circle of 2^64, in proportion to its weight, and a request goes to the
owner of the first point at or after its hash. When an endpoint goes, only its own keys move, each to
the next point's owner; when one comes, it takes its share evenly from all others.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from hms_addons.request_hash import point_of, request_hash
from hms_addons.upstream.balancers.weighted_random import WeightedRandom

if TYPE_CHECKING:
    import random
    from collections.abc import Collection, Sequence

    from hms_addons.exchange import Exchange
    from hms_addons.upstream.endpoint import Endpoint

MIN_SIZE: Final = 1024
"""Points on a ring, at least (Envoy's `minimum_ring_size`)."""
MAX_SIZE: Final = 65536
"""At most, but for one point that each endpoint has in any case. *Ours*: Envoy's 8M would take seconds
to make; with a ratio of weights past 64:1 or so the lightest get a little more than their share."""
_POINT_BYTES: Final = 8
_DIGEST_BYTES: Final = 64


def points(address: str, count: int) -> list[int]:
    """Where an endpoint's `count` points lie; the first ones are the same for any count."""
    name = address.encode()
    digests = b"".join(
        blake2b(b"%b_%d" % (name, n), digest_size=_DIGEST_BYTES).digest()
        for n in range(math.ceil(count * _POINT_BYTES / _DIGEST_BYTES))
    )
    return [
        int.from_bytes(digests[at : at + _POINT_BYTES])
        for at in range(0, count * _POINT_BYTES, _POINT_BYTES)
    ]


def counts(weights: Sequence[int]) -> list[int]:
    """How many points each weight gets: whole multiples of the lightest one's, if they fit."""
    total = sum(weights)
    lightest = min(weights) / total
    size = min(math.ceil(lightest * MIN_SIZE) / lightest, MAX_SIZE)
    return [max(1, round(size * weight / total)) for weight in weights]


def _point_and_address(item: tuple[int, str, Endpoint]) -> tuple[int, str]:
    return item[0], item[1]


class RingHash:
    """`ring_hash`, by the request's `hash_on`; a request without that value goes anywhere, by weight.

    The ring is of all members and made anew only when they or their weights change: a point whose
    owner cannot be used is left out, which moves just the keys that it had.
    """

    def __init__(self, rng: random.Random) -> None:
        self._random = WeightedRandom(rng)
        self._members: list[tuple[Endpoint, int]] = []
        self._made: dict[Endpoint, list[int]] = {}
        self._ring: list[tuple[int, str, Endpoint]] = []
        self._points: list[int] = []
        self._owners: list[Endpoint] = []

    def __repr__(self) -> str:
        return f"<RingHash members={len(self._members)} points={len(self._points)}>"

    def set_members(self, members: Sequence[Endpoint]) -> None:
        """See `Membered`."""
        wanted = [(endpoint, endpoint.spec.weight) for endpoint in members]
        if wanted == self._members:
            return
        self._members = wanted
        ring: list[tuple[int, str, Endpoint]] = []
        made: dict[Endpoint, list[int]] = {}
        if wanted:
            for (endpoint, _), count in zip(wanted, counts([w for _, w in wanted]), strict=True):
                own = self._made.get(endpoint, [])
                if len(own) < count:
                    own = points(endpoint.address, count)
                made[endpoint] = own
                ring += [(point, endpoint.address, endpoint) for point in own[:count]]
        # By address too: two sidecars must agree on whose a point is that two endpoints have.
        ring.sort(key=_point_and_address)
        self._made, self._ring = made, ring

    def update(self, candidates: Sequence[Endpoint]) -> None:
        """See `LoadBalancer`."""
        usable = set(candidates)
        if not usable.issubset(endpoint for endpoint, _ in self._members):
            self.set_members(candidates)
        self._random.update(candidates)
        live = [item for item in self._ring if item[2] in usable]
        self._points = [point for point, _, _ in live]
        self._owners = [endpoint for _, _, endpoint in live]

    def pick(self, exchange: Exchange) -> Endpoint:
        """See `LoadBalancer`."""
        hashed = request_hash(exchange)
        return self._random.draw() if hashed is None else self._owners[self._position(hashed)]

    def _position(self, hashed: int) -> int:
        position = bisect_left(self._points, point_of(hashed))
        return position if position < len(self._points) else 0

    def pick_other(self, exchange: Exchange, tried: Collection[Endpoint]) -> Endpoint | None:
        """See `Hashing`: the owner of the next point on the ring."""
        hashed = request_hash(exchange)
        if hashed is None:
            return None
        owners = self._owners
        start = self._position(hashed)
        for at in range(start, start + len(owners)):
            endpoint = owners[at % len(owners)]
            if endpoint not in tried:
                return endpoint
        return None
