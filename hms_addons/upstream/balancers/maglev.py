"""`maglev`: consistent hashing by a table; evener than a ring, and moves a little more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hms_addons.request_hash import point_of, request_hash
from hms_addons.upstream.balancers.maglev_table import MAX_MEMBERS, SIZE, fill
from hms_addons.upstream.balancers.ring_hash import RingHash

if TYPE_CHECKING:
    import random
    from array import array
    from collections.abc import Collection, Iterator, Sequence

    from hms_addons.clock import Clock, Timer
    from hms_addons.exchange import Exchange
    from hms_addons.upstream.endpoint import Endpoint

PAUSE: Final = 0.004
"""Seconds between two slices of filling a table, in which the loop does its work."""
_FAR: Final = 64
"""Places looked at for an endpoint that can be used, before the ring is asked."""


class Maglev:
    """`maglev`, by the request's `hash_on`; a request without that value goes anywhere, by weight.

    The table is of all members, filled anew only when they or their weights change, and in slices
    beside the traffic: till then the last one serves, less those who have left. An endpoint that
    cannot be used is passed over by each of its keys on a way of the key's own, so a change of health
    costs nothing and moves just these keys, to the others by their shares. A ring serves until there is a table at all, and where hardly
    anybody can be used.
    """

    def __init__(self, rng: random.Random) -> None:
        self._ring = RingHash(rng)
        self._clock: Clock | None = None
        self._members: list[tuple[Endpoint, int]] = []
        self._usable: set[Endpoint] = set()
        self._table: array[int] | None = None
        self._order: list[Endpoint] = []  # what the table's numbers mean
        self._filling: Iterator[array[int] | None] | None = None
        self._next: list[Endpoint] = []  # what its numbers will mean
        self._timer: Timer | None = None

    def __repr__(self) -> str:
        table = "none" if self._table is None else len(self._order)
        filling = " filling" if self._filling is not None else ""
        return f"<Maglev members={len(self._members)} table={table}{filling}>"

    def use_clock(self, clock: Clock) -> None:
        """See `Timed`. Without one a table is filled at once."""
        self._clock = clock

    def set_members(self, members: Sequence[Endpoint]) -> None:
        """See `Membered`."""
        wanted = [(endpoint, endpoint.spec.weight) for endpoint in members]
        if wanted == self._members:
            return
        self._members = wanted
        self._ring.set_members(members)
        ordered = sorted(wanted, key=lambda item: item[0].address)[:MAX_MEMBERS]
        self._filling = None
        if not ordered:
            self._table = None
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            return
        names, weights = [e.address for e, _ in ordered], [weight for _, weight in ordered]
        self._filling = fill(names, weights)
        self._next = [endpoint for endpoint, _ in ordered]
        if self._clock is None:
            while self._filling is not None:
                self._fill()
        elif self._timer is None:
            self._timer = self._clock.call_later(PAUSE, self._fill_on)

    def _fill(self) -> None:
        assert self._filling is not None  # noqa: S101 - whoever calls has looked
        table = next(self._filling)
        if table is not None:
            self._table, self._order = table, self._next
            self._filling = None

    def _fill_on(self) -> None:
        self._timer = None
        if self._filling is not None:
            self._fill()
        if self._filling is not None and self._clock is not None:
            self._timer = self._clock.call_later(PAUSE, self._fill_on)

    def update(self, candidates: Sequence[Endpoint]) -> None:
        """See `LoadBalancer`."""
        self._usable = set(candidates)
        if not self._usable.issubset(endpoint for endpoint, _ in self._members):
            self.set_members(candidates)
        self._ring.update(candidates)

    def pick(self, exchange: Exchange) -> Endpoint:
        """See `LoadBalancer`."""
        hashed = request_hash(exchange)
        table = self._table
        if hashed is None or table is None:
            return self._ring.pick(exchange)
        endpoint = self._order[table[point_of(hashed) % SIZE]]
        if endpoint in self._usable:
            return endpoint
        return self._next_of(hashed, table, ()) or self._ring.pick(exchange)

    def _next_of(
        self, hashed: int, table: array[int], tried: Collection[Endpoint]
    ) -> Endpoint | None:
        """The first usable one on the key's own way through the table.

        Its own, as what lies side by side in a table is not independent, and shares would suffer.
        """
        order, usable = self._order, self._usable
        point = point_of(hashed)
        place, step = point % SIZE, (point >> 32) % (SIZE - 1) + 1
        for _ in range(_FAR):
            endpoint = order[table[place]]
            if endpoint in usable and endpoint not in tried:
                return endpoint
            place += step
            if place >= SIZE:
                place -= SIZE
        return None

    def pick_other(self, exchange: Exchange, tried: Collection[Endpoint]) -> Endpoint | None:
        """See `Hashing`: whose the next place on the key's way is."""
        hashed, table = request_hash(exchange), self._table
        if hashed is None or table is None:
            return self._ring.pick_other(exchange, tried)
        return self._next_of(hashed, table, tried) or self._ring.pick_other(exchange, tried)
