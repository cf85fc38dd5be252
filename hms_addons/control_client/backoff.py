"""How long to wait before the next try: doubling, jittered, at most 30 seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from random import Random

FIRST: Final = 0.25
LONGEST: Final = 30.0
"""SEMANTICS, Config sync: reconnects come at most so many seconds apart."""


class Backoff:
    """Pauses after failures in a row; `reset` after a success.

    The jitter takes off up to half, so that a fleet that lost its control plane at one moment does
    not come back at one moment.
    """

    __slots__ = ("_rng", "failures")

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self.failures = 0

    def __repr__(self) -> str:
        return f"<Backoff failures={self.failures}>"

    def reset(self) -> None:
        """It went well."""
        self.failures = 0

    def next(self, at_least: float | None = None) -> float:
        """Count a failure; seconds to wait after it.

        Args:
            at_least: what the other side has asked for; honoured up to `LONGEST`.
        """
        # The exponent is bounded as well: 2**failures of a week's outage would be a huge integer.
        delay = min(LONGEST, FIRST * 2.0 ** min(self.failures, 16)) * self._rng.uniform(0.5, 1.0)
        self.failures += 1
        return min(LONGEST, max(delay, at_least or 0.0))
