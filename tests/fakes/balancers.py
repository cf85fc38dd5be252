"""Endpoints to balance among, and requests to balance by."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, cast

from hypothesis import strategies as st

from hms_addons.config.hash_on import HashKey, HashOn
from hms_addons.config.snapshot import EndpointSpec
from hms_addons.upstream.endpoint import Endpoint
from tests.fakes.exchange import make_exchange, make_route

if TYPE_CHECKING:
    from hms_addons.exchange import Exchange
    from hms_addons.upstream.load_balancer import LoadBalancer

ANY = cast("Exchange", None)
"""For balancers that do not look at the request."""
WEIGHTS = st.lists(st.integers(1, 20), min_size=1, max_size=8)
BY_USER = HashOn(kind=HashKey.HEADER, name="x-user")


def endpoints(*weights: int) -> list[Endpoint]:
    """One for each weight: 10.0.0.0:80, 10.0.0.1:80, …"""
    return [
        Endpoint(EndpointSpec(host=f"10.0.0.{n}", port=80, weight=weight), "c")
        for n, weight in enumerate(weights)
    ]


def picks(balancer: LoadBalancer, count: int) -> list[Endpoint]:
    """What `count` requests without a key get."""
    return [balancer.pick(ANY) for _ in range(count)]


class Users:
    """Requests that tell their user in a header, which `hash_on` names."""

    def __init__(self, hash_on: HashOn | None = BY_USER) -> None:
        self.exchange = make_exchange(route=make_route(hash_on=hash_on))

    def request(self, user: str | None) -> Exchange:
        """The request of that user; the same object each time."""
        self.exchange.head.pop(b"x-user", None)
        if user is not None:
            self.exchange.head[b"x-user"] = user.encode()
        return self.exchange

    def picks(self, balancer: LoadBalancer, count: int) -> list[Endpoint]:
        """What users 0, 1, … get."""
        return [balancer.pick(self.request(f"user-{n}")) for n in range(count)]


def shares(chosen: list[Endpoint], members: list[Endpoint]) -> list[float]:
    """What part of `chosen` each member is."""
    counts = Counter(chosen)
    return [counts[member] / len(chosen) for member in members]


def moved(before: list[Endpoint], after: list[Endpoint]) -> float:
    """What part is another than before."""
    return sum(a is not b for a, b in zip(before, after, strict=True)) / len(before)
