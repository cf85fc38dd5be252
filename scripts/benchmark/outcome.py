"""What a scenario leaves behind."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from scripts.benchmark.spread import Spread


@dataclass(frozen=True, slots=True)
class Table:
    """Figures for a person to read."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The figures of one scenario, or of all of them together."""

    ratios: Mapping[str, Spread] = field(default_factory=dict)
    measures: Mapping[str, float] = field(default_factory=dict)
    """Single figures that a bar is set for, such as `rss_mb`."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """All else, as JSON."""
    tables: Sequence[Table] = ()

    def __or__(self, other: Outcome) -> Outcome:
        """Both together; where both have a figure, the other's counts."""
        return Outcome(
            {**self.ratios, **other.ratios},
            {**self.measures, **other.measures},
            {**self.details, **other.details},
            (*self.tables, *other.tables),
        )


def as_text(spread: Spread, digits: int = 0) -> tuple[str, str]:
    """Two cells of a table: the median, and `min … max`, with so many decimals."""
    middle, low, high = (
        f"{value:,.{digits}f}" for value in (spread.median, spread.min, spread.max)
    )
    return middle, f"{low} … {high}"
