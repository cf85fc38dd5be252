"""What a sidecar tells its control plane of itself: every ten seconds, at each change, and at the end."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final, Protocol

from hms_addons.clock import within
from hms_addons.control_client.backoff import Backoff
from hms_addons.control_client.failures import ControlError, ControlRefusedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from random import Random

    from hms_addons.clock import Clock

logger = logging.getLogger(__name__)

INTERVAL: Final = 10.0
SHORTEST: Final = 0.5
"""Seconds between two reports, however fast things change: the last change is always told."""
JITTER: Final = 0.1


class Listener(Protocol):
    """Who is told: `control_client.ControlClient`."""

    async def report(self, sidecar: str, body: Mapping[str, Any]) -> int | None:
        """Returns the sequence of the trust bundle in force."""

    async def leave(self, sidecar: str) -> None:
        """It ends in order: do not miss it."""


class Reports:
    """Sends reports while `run` runs.

    Args:
        listener: the control plane.
        sidecar: this sidecar's ID.
        body: what there is to tell now, JSON-ready.
        answered: awaited with the bundle's sequence after each report.
        clock, rng: time and jitter.
    """

    def __init__(
        self,
        listener: Listener,
        sidecar: str,
        body: Callable[[], Mapping[str, Any]],
        answered: Callable[[int | None], Awaitable[object]],
        clock: Clock,
        rng: Random,
    ) -> None:
        self._listener = listener
        self._sidecar = sidecar
        self._body = body
        self._answered = answered
        self._clock = clock
        self._rng = rng
        self._backoff = Backoff(rng)
        self._changed = asyncio.Event()
        self._told = False
        """A report may have been heard: one was sent, whether or not that was answered."""
        self._refused = False
        """The last one was, and a person was told."""

    def __repr__(self) -> str:
        return f"<Reports {self._sidecar} {self._backoff!r}>"

    def changed(self) -> None:
        """There is something new to tell."""
        self._changed.set()

    async def run(self) -> None:
        """Report until cancelled."""
        while True:
            self._changed.clear()
            try:
                await self.send()
            except ControlError as error:
                self._log(error)
                await self._clock.sleep(min(INTERVAL, self._backoff.next()))
                continue
            self._backoff.reset()
            self._refused = False
            await self._clock.sleep(SHORTEST)
            try:
                async with within(self._clock, INTERVAL * self._rng.uniform(1 - JITTER, 1)):
                    await self._changed.wait()
            except TimeoutError:
                pass

    def _log(self, error: ControlError) -> None:
        if isinstance(error, ControlRefusedError) and not self._refused:
            self._refused = True
            logger.warning("`hms status` does not show %s: %s", self._sidecar, error)
            return
        # Of a control plane that is away, the configuration's long poll tells; twice would be noise.
        logger.debug("could not report: %s", error)

    async def send(self) -> None:
        """Report once.

        Raises:
            ControlError: it was not heard.
        """
        self._told = True
        await self._answered(await self._listener.report(self._sidecar, self._body()))

    async def leave(self, seconds: float) -> bool:
        """Say goodbye, once `run` has ended. Returns whether it was heard.

        Without it the fleet shows this sidecar as gone, and as not having said goodbye.

        Args:
            seconds: that it may take; a control plane that is away must not hold up an end.
        """
        if not self._told:
            return False
        try:
            async with within(self._clock, seconds):
                try:
                    await self._listener.leave(self._sidecar)
                except ControlError:
                    # A connection that was kept for too long, most likely: once more, on a new one.
                    await self._listener.leave(self._sidecar)
        except (ControlError, TimeoutError) as error:
            logger.warning(
                "could not say goodbye (%s): `hms status` will show %s as gone",
                str(error) or "no answer",
                self._sidecar,
            )
            return False
        self._told = False
        return True
