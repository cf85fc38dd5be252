"""Counting requests as they end: which of them were alike, and how long they took.

Every request pays for this, so it is compiled (`scripts/compile`), and all that can wait for a scrape does: what
a tally's requests have in common becomes labels in `addons/metrics`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hms_addons.config.snapshot import Direction

if TYPE_CHECKING:
    from collections.abc import Callable

    from hms_addons.config.policy import Decision
    from hms_addons.config.snapshot import Cluster, Listener, Route
    from hms_addons.errors import Flag
    from hms_addons.exchange import Exchange

    Key = tuple[bool, str | None, str | None, int, Flag | None, str | None]
    """What requests of one tally have in common: inbound, service, cluster, status, flag, and the outcome
    of their one try (None: they had none, or several)."""
    Decided = tuple[bool, str | None, bool, str | None]
    """What the policies said: allowed, by which; whether those of mode: audit would deny it, by which."""

BUCKETS: Final[tuple[float, ...]] = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
)
"""Upper bounds of the durations that are counted together, in seconds."""
MAX_KNOWN: Final = 20_000
MAX_DECISIONS: Final = 1000
_INBOUND: Final = Direction.INBOUND
_OUTCOME: Final = 3
"""Its place in an `Attempt`: by number it is found four times as fast."""


class Tally:
    """Requests that were alike: how many took how long."""

    __slots__ = ("buckets", "seconds")

    def __init__(self) -> None:
        self.buckets: list[int] = [0] * (len(BUCKETS) + 1)
        self.seconds = 0.0

    def __repr__(self) -> str:
        return f"<Tally {self.count} in {self.seconds:g}s>"

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(self.buckets)

    def add(self, other: Tally) -> None:
        """Take those of `other` in."""
        self.seconds += other.seconds
        self.buckets = [a + b for a, b in zip(self.buckets, other.buckets, strict=True)]


class RequestTally:
    """Finds the tally of each request, and adds it there.

    Args:
        find: makes the tally of a kind that is not known (any more).
        full: is called before another kind of decision is counted while there are `MAX_DECISIONS`; empties
            `decided`.

    Attributes:
        known: tallies by what their requests have in common; a cache that may be cleared.
        decided: what the policies said, how often; complete after `count_decisions`.
    """

    __slots__ = ("_decided_so", "_decision", "_find", "_full", "_last", "decided", "known")

    def __init__(self, find: Callable[[Key], Tally], full: Callable[[], None]) -> None:
        self.known: dict[Key, Tally] = {}
        self.decided: dict[Decided, int] = {}
        self._find = find
        self._full = full
        self._last: _Last | None = None
        self._decision: Decision | None = None
        self._decided_so = 0
        """Requests in a row that `_decision` was the decision of."""

    def __repr__(self) -> str:
        return f"<RequestTally known={len(self.known)} decided={len(self.decided)}>"

    def count(self, exchange: Exchange, now: float) -> bool:
        """It ended at `now`, on the clock of `exchange.started`.

        Returns:
            Whether it needed several tries, which the caller is to count.
        """
        attempts, answer, failure = exchange.attempts, exchange.answer, exchange.failure
        tries = len(attempts)
        last = self._last
        if (
            last is not None
            and failure is None
            and answer is not None
            and tries == 1
            and exchange.route is last.route
            and exchange.cluster is last.cluster
            and exchange.listener is last.listener
            and exchange.flag is last.flag
            and answer.status == last.status
            and attempts[0][_OUTCOME] == last.outcome
        ):
            tally = last.tally
        else:
            tally = self._look_up(exchange)
        seconds = now - exchange.started
        tally.seconds += seconds
        tally.buckets[_bucket_of(seconds)] += 1
        decision = exchange.decision
        if decision is self._decision:
            self._decided_so += 1
        else:
            self.count_decisions()
            self._decision, self._decided_so = decision, 1
        return tries > 1

    def _look_up(self, exchange: Exchange) -> Tally:
        route, cluster, attempts = exchange.route, exchange.cluster, exchange.attempts
        failure, answer = exchange.failure, exchange.answer
        key: Key = (
            exchange.listener.direction is _INBOUND,
            None if route is None else route.service,
            None if cluster is None else cluster.name,
            answer.status if answer is not None else 0 if failure is None else failure.status,
            exchange.flag if failure is None else failure.flag,
            attempts[0].outcome if len(attempts) == 1 else None,
        )
        tally = self.known.get(key)
        if tally is None:
            tally = self._find(key)
            if len(self.known) >= MAX_KNOWN:
                self.known.clear()
            self.known[key] = tally
        if failure is None and answer is not None and len(attempts) == 1:
            self._last = _Last(exchange, answer.status, attempts[0].outcome, tally)
        return tally

    def forget(self) -> None:
        """The tallies that are known may be others by now."""
        self.known.clear()
        self._last = None

    def count_decisions(self) -> None:
        """Take into `decided` what was counted beside it: it is complete then."""
        decision, number = self._decision, self._decided_so
        self._decided_so = 0
        if decision is None or not number:
            return
        what: Decided = (
            decision.allowed,
            decision.policy,
            decision.would_deny is not None,
            decision.audit_policy,
        )
        before = self.decided.get(what, 0)
        if not before and len(self.decided) >= MAX_DECISIONS:
            self._full()
        self.decided[what] = before + number


class _Last:
    """What the last request was like that ended as most do. Whoever is like it needs no looking up."""

    __slots__ = ("cluster", "flag", "listener", "outcome", "route", "status", "tally")

    def __init__(self, exchange: Exchange, status: int, outcome: str, tally: Tally) -> None:
        self.listener: Listener = exchange.listener
        self.route: Route | None = exchange.route
        self.cluster: Cluster | None = exchange.cluster
        self.flag: Flag | None = exchange.flag
        self.status: int = status
        self.outcome: str = outcome
        self.tally: Tally = tally

    def __repr__(self) -> str:
        return f"<_Last {self.status} {self.tally}>"


def _bucket_of(seconds: float) -> int:
    """The place of the first of `BUCKETS` that is not below it."""
    place = 0
    for bound in BUCKETS:
        if seconds <= bound:
            break
        place += 1
    return place
