"""Interleaved rounds: A B C, then C B A, and so on.

What the machine does meanwhile (other tenants, clock speed, heat) then falls on all contenders
alike, and figures of one round can be divided by each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def interleave[Figure](
    names: Sequence[str],
    count: int,
    measure: Callable[[str], Figure],
    report: Callable[[int, dict[str, Figure]], None],
) -> dict[str, list[Figure]]:
    """Measure each name once a round, in alternating order; the figures by name, round by round.

    `report(number, figures)` is called after each round, numbered from 1.
    """
    series: dict[str, list[Figure]] = {name: [] for name in names}
    for number in range(1, count + 1):
        order = names if number % 2 else tuple(reversed(names))
        figures = {name: measure(name) for name in order}
        for name in names:
            series[name].append(figures[name])
        report(number, {name: figures[name] for name in names})
    return series
