"""What a cluster asks of a balancer; the built-in ones are in `balancers`, one a file.

A balancer is told its candidates when membership or health changes (`update`), and asked once per
attempt (`pick`). So whatever can be computed beforehand is, and a pick costs next to nothing. Further
balancers come from plugins (`hms_load_balancers`): classes that follow `LoadBalancer`, and as much of
the optional protocols below as they have need of. What a balancer does not have is never called.

A cluster with several priorities or zones has one balancer for each group of endpoints
(`priority_levels`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import random
    from collections.abc import Collection, Sequence

    from hms_addons.clock import Clock
    from hms_addons.exchange import Exchange
    from hms_addons.upstream.endpoint import Endpoint


class LoadBalancer(Protocol):
    """Picks among endpoints of one cluster."""

    def __init__(self, rng: random.Random) -> None:
        """`rng` is the only source of chance, so that a test can repeat a run."""

    def update(self, candidates: Sequence[Endpoint]) -> None:
        """From now on, pick among these. Called when they, their weights or their health change.

        An endpoint's share is its `weight`, which is its configured one but while it starts slowly.
        """

    def pick(self, exchange: Exchange) -> Endpoint:
        """One of the candidates. Never called while there are none.

        Args:
            exchange: the request, for balancers that look at it (`request_hash`); others ignore it.
        """


@runtime_checkable
class Timed(Protocol):
    """A balancer that needs to know the time."""

    def use_clock(self, clock: Clock) -> None:
        """Called once, before anything else."""


@runtime_checkable
class Membered(Protocol):
    """A balancer that wants to know all members, also those that cannot be used now.

    So that what is worked out from the members, as a hash table, outlives a change of health.
    """

    def set_members(self, members: Sequence[Endpoint]) -> None:
        """Called before `update`, whether or not anything is new; with none at the end."""


@runtime_checkable
class Learning(Protocol):
    """A balancer that learns from how attempts went."""

    def attempt_ended(self, endpoint: Endpoint, seconds: float, status: int) -> None:
        """An attempt has its answer's head, or was lost.

        Args:
            endpoint: where it went.
            seconds: how long that took.
            status: of the answer, or what a lost attempt counts as (`outcome.STATUS_EQUIVALENT`).
        """


@runtime_checkable
class Hashing(Protocol):
    """A balancer that chooses by `request_hash`: the same key, the same endpoint."""

    def pick_other(self, exchange: Exchange, tried: Collection[Endpoint]) -> Endpoint | None:
        """The next in the key's own order that is not in `tried`; None if there is none."""
