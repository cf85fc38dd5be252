"""The protocols: a plugin's balancer has as much of them as it needs."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from hms_addons.upstream.load_balancer import Hashing, Learning, LoadBalancer, Membered, Timed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hms_addons.exchange import Exchange
    from hms_addons.upstream.endpoint import Endpoint


class First:
    """All that a plugin must write."""

    def __init__(self, rng: random.Random) -> None:
        self.candidates: Sequence[Endpoint] = ()

    def update(self, candidates: Sequence[Endpoint]) -> None:
        self.candidates = candidates

    def pick(self, exchange: Exchange) -> Endpoint:
        return self.candidates[0]


def test_a_balancer_needs_no_more_than_update_and_pick() -> None:
    balancer: LoadBalancer = First(random.Random(1))
    for optional in (Timed, Membered, Learning, Hashing):
        assert not isinstance(balancer, optional)
