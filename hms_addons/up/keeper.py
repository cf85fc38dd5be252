"""Keeps one program running: what ends is started again, after a pause that doubles."""

from __future__ import annotations

import asyncio
import signal
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Protocol

from hms_addons.clock import within
from hms_addons.control_client.backoff import Backoff
from hms_addons.errors import MeshError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable
    from random import Random

    from hms_addons.clock import Clock

STEADY: Final = 10.0
"""Seconds after which a program has started well: its next end is a first one again."""


class State(StrEnum):
    """How a program is."""

    STARTING = "starting"
    READY = "ready"
    UNHEALTHY = "unhealthy"
    WAITING = "waiting"
    """It has ended, and will be started again."""
    STOPPING = "stopping"
    STOPPED = "stopped"


class Running(Protocol):
    """A process: `child.Child`."""

    @property
    def last(self) -> Iterable[str]:
        """Its last lines."""

    async def wait(self) -> int:
        """Wait for its end."""

    def terminate(self) -> None:
        """Ask it to end."""

    def kill(self) -> None:
        """Have it end."""


class Keeper:
    """Keeps one program running while `run` runs; `stop` ends it.

    Args:
        launch: starts the program; raises `MeshError` if it cannot be.
        told: called with each new state and what there is to say of it.
        clock, rng: time, and the pauses' jitter.
    """

    def __init__(
        self,
        launch: Callable[[], Awaitable[Running]],
        told: Callable[[State, str], object],
        clock: Clock,
        rng: Random,
    ) -> None:
        self._launch = launch
        self._told = told
        self._clock = clock
        self._backoff = Backoff(rng)
        self._stopping = asyncio.Event()
        self._again = False
        self.child: Running | None = None
        """The process, while there is one."""
        self.state = State.STARTING
        self._changed = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Keeper {self.state}>"

    def set(self, state: State, detail: str = "") -> None:
        """Say how it is, if it is otherwise than before."""
        if state is not self.state or state is State.WAITING:
            self.state = state
            self._told(state, detail)
            self._changed.set()
            self._changed = asyncio.Event()

    async def until(self, states: Collection[State]) -> None:
        """Wait until it is in one of these states."""
        while self.state not in states:
            await self._changed.wait()

    async def run(self) -> None:
        """Start it again and again, until it is to stop."""
        self._told(State.STARTING, "")
        while not self._stopping.is_set():
            why, said = await self._once()
            if self._stopping.is_set():
                break
            if self._again:
                self._again = False
                self.set(State.STARTING)
                continue
            pause = self._backoff.next()
            self.set(State.WAITING, f"{why}; starting it again in {pause:.1f} s{said}")
            try:
                async with within(self._clock, pause):
                    await self._stopping.wait()
            except TimeoutError:
                self.set(State.STARTING)
        self.set(State.STOPPED)

    async def _once(self) -> tuple[str, str]:
        """Let it run once; why it has ended, and its last words."""
        try:
            child = self.child = await self._launch()
        except MeshError as error:
            return str(error), ""
        if self._stopping.is_set():
            child.terminate()
        began = self._clock.monotonic()
        try:
            code = await child.wait()
        finally:
            self.child = None
        if self._clock.monotonic() - began >= STEADY:
            self._backoff.reset()
        return _why(code), _said(child.last)

    def restart(self) -> None:
        """Have it end and start again, without a pause."""
        if self.child is not None and not self._stopping.is_set():
            self._again = True
            self.set(State.STOPPING)
            self.child.terminate()

    def stop(self) -> None:
        """Have it end for good; `run` returns when it has."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        if self.child is not None:
            self.set(State.STOPPING)
            self.child.terminate()

    def kill(self) -> None:
        """Have it end at once, for good."""
        self._stopping.set()
        if self.child is not None:
            self.child.kill()


def _why(code: int) -> str:
    """How it has ended."""
    if code >= 0:
        return f"has ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


def _said(last: Iterable[str]) -> str:
    """What it said last, for a message's end."""
    lines = [line.rstrip() for line in last if line.strip()]
    return "; its last lines:" + "".join(f"\n  {line}" for line in lines) if lines else ""
