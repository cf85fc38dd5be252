"""How traffic is shared among priority levels: Envoy's arithmetic, in whole percents.

A level's availability is the share of its endpoints that can be used, times 1.4 (overprovisioning):
up to 28% of them may be out before anything spills. Each level takes its availability's worth, in
order; when all together fall short of 100%, they are scaled up so that nothing is left over.
(Envoy: "Priority levels" and "Panic threshold" in its load balancing overview; `load_balancer_impl`.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

OVERPROVISIONING: Final = 140
"""Percent."""
_ALL: Final = 100


def availability(usable: int, total: int) -> int:
    """Percent of all traffic that a level with `usable` of `total` endpoints can take."""
    return min(_ALL, OVERPROVISIONING * usable // total) if total else 0


def loads(availabilities: Sequence[int]) -> list[int]:
    """Percents of the traffic, by level; they sum to 100, or to 0 where nothing is available."""
    together = min(_ALL, sum(availabilities))
    if not together:
        return [0] * len(availabilities)
    left = _ALL
    shares = []
    for available in availabilities:
        share = min(left, available * _ALL // together)
        shares.append(share)
        left -= share
    # What rounding has left is the first's that can take any.
    shares[next(n for n, available in enumerate(availabilities) if available)] += left
    return shares


def loads_by_size(totals: Sequence[int]) -> list[int]:
    """Percents by number of endpoints: where all levels are in panic. Sum to 100 if there are any."""
    everything = sum(totals)
    if not everything:
        return [0] * len(totals)
    shares = [_ALL * total // everything for total in totals]
    shares[next(n for n, total in enumerate(totals) if total)] += _ALL - sum(shares)
    return shares


def in_panic(usable: Sequence[int], totals: Sequence[int], threshold: int) -> list[bool]:
    """Which levels have so few usable endpoints that all of theirs are used.

    Args:
        usable, totals: numbers of endpoints, by level; no level is empty.
        threshold: percent; 0: never.
    """
    if not threshold:
        return [False] * len(totals)
    panics = [now * _ALL < threshold * total for now, total in zip(usable, totals, strict=True)]
    together = sum(availability(now, total) for now, total in zip(usable, totals, strict=True))
    if together == 0:
        return [True] * len(totals)
    # As long as the levels carry all traffic together, none of them need panic.
    return panics if together < _ALL or len(totals) == 1 else [False] * len(totals)
