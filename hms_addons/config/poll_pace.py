"""How often a control plane is asked: at once as a rule, never in a hurry, ever later while it is away.

While it is away, a sidecar's reports and its registration knock as well. If one of them gets through, the
control plane is back, and the configuration need not wait for the end of a long pause.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from hms_addons.clock import within
from hms_addons.control_client.backoff import Backoff
from hms_addons.control_client.failures import (
    ControlAwayError,
    ControlError,
    ControlRefusedError,
    ControlUntrustedError,
)

if TYPE_CHECKING:
    from random import Random

    from hms_addons.clock import Clock

TAKE_SHARE: Final = 0.025
"""The share of its time that a sidecar gives to taking changes, not counting that to fetch one costs
about as much again: of a storm of them the last counts (as in Istio's debounce), so that registrations
by the hundred cost requests little. A change that took 1 ms is followed by 39 ms without another; a
single one waits for nothing."""
LONGEST_PAUSE: Final = 1.0
"""Seconds between two changes at most, whatever they cost."""
SHORTEST_POLL: Final = 1.0
"""Seconds: an answer of "nothing new" that comes sooner was not waited for, so we do."""
_UNKNOWN: Final = 401


class PollPace:
    """Pauses between two questions.

    Args:
        clock: time.
        rng: jitter, after failures.
    """

    def __init__(self, clock: Clock, rng: Random) -> None:
        self._clock = clock
        self._backoff = Backoff(rng)
        self._heard = asyncio.Event()

    def __repr__(self) -> str:
        return f"<PollPace {self._backoff!r}>"

    def reached(self) -> None:
        """A question was answered."""
        self._backoff.reset()

    def heard(self) -> None:
        """Something else has got through: a pause that an outage has caused is over."""
        self._heard.set()

    async def after_nothing(self, asked: float) -> None:
        """There was nothing to take; `asked` is when it was asked (monotonic)."""
        await self._until(asked + SHORTEST_POLL)

    async def after_change(self, cost: float) -> None:
        """One was taken, which cost so many seconds."""
        await self._clock.sleep(min(cost / TAKE_SHARE - cost, LONGEST_PAUSE))

    async def after_failure(self, error: ControlError | None) -> None:
        """It was in vain; None: it was answered, but with nothing that can be used."""
        after = error.retry_after if isinstance(error, ControlAwayError) else None
        delay = self._backoff.next(after)
        if after is not None or not _may_be_over(error):
            await self._clock.sleep(delay)
            return
        begun = self._clock.monotonic()
        self._heard.clear()
        try:
            async with within(self._clock, delay):
                await self._heard.wait()
        except TimeoutError:
            return
        # Not in a hurry: something may get through all the time, and only our questions do not.
        await self._until(begun + min(delay, SHORTEST_POLL))

    async def _until(self, moment: float) -> None:
        left = moment - self._clock.monotonic()
        if left > 0:
            await self._clock.sleep(left)


def _may_be_over(error: ControlError | None) -> bool:
    """Whether the failure was one of contact, which another request that succeeds shows to be over."""
    if isinstance(error, ControlRefusedError):
        return error.status == _UNKNOWN  # by an SVID that is renewed now
    return isinstance(error, ControlAwayError | ControlUntrustedError)
