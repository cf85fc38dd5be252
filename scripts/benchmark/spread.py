"""What is left of a series of measurements: its median and how far it ranged."""

from __future__ import annotations

import math
import statistics
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Spread:
    """The middle and the ends of a series; all in the series' own unit."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarise a series; `ValueError` when it is empty."""
        if not values:
            raise ValueError("a spread needs at least one value")
        return cls(statistics.median(values), min(values), max(values))

    def as_json(self) -> dict[str, float]:
        """The three figures, rounded to four significant digits: no more of them is real."""
        return {name: significant(value) for name, value in asdict(self).items()}


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Spread:
    """The spread of `numerators[i] / denominators[i]`, both of round i.

    Dividing within a round, not medians of all rounds, cancels what the machine did meanwhile.
    `ValueError` when a round lacks either of them.
    """
    return Spread.of([one / other for one, other in zip(numerators, denominators, strict=True)])


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile: the smallest value that `percent` % of all do not exceed."""
    if not values:
        raise ValueError("a percentile needs at least one value")
    if not 0 < percent <= 100:  # noqa: PLR2004 - a percentage
        raise ValueError(f"a percentile lies in (0, 100], not at {percent}")
    # Rounded first: 99.9 % of 1000 is 999.0000000000001 in binary.
    rank = math.ceil(round(len(values) * percent / 100, 9))
    return sorted(values)[rank - 1]


def significant(value: float, digits: int = 4) -> float:
    """`value` with so many significant digits."""
    return float(f"{value:.{digits}g}")
