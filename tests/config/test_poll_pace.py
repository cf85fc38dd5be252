"""What `test_control_source.py` does not meet on the way."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from hms_addons.config.poll_pace import PollPace
from hms_addons.control_client.failures import (
    ControlAnswerError,
    ControlAwayError,
    ControlError,
    ControlRefusedError,
    ControlUntrustedError,
)
from tests.fakes.clock import FakeClock


class Bench:
    """A pace that many failures have slowed down."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.pace = PollPace(self.clock, Random(0))

    async def slowed(self) -> None:
        for _ in range(12):
            pause = asyncio.ensure_future(self.pace.after_failure(ControlAwayError("away")))
            await self.clock.advance(31)
            await pause

    async def seconds(self, error: ControlError | None) -> float:
        """How long the pause after it takes if something gets through after two seconds."""
        await self.slowed()
        begun = self.clock.monotonic()
        pause = asyncio.ensure_future(self.pace.after_failure(error))
        await self.clock.advance(2)
        self.pace.heard()
        while not pause.done():
            await self.clock.advance(0.5)
        assert self.clock.pending == 0
        return self.clock.monotonic() - begun


@pytest.mark.parametrize(
    "error",
    [
        ControlAwayError("away"),
        ControlUntrustedError("another's certificate"),
        ControlRefusedError("expired", 401),
    ],
)
async def test_contact_elsewhere_ends_a_pause_for_want_of_contact(error: ControlError) -> None:
    assert await Bench().seconds(error) < 3


@pytest.mark.parametrize(
    "error",
    [
        ControlAwayError("busy", retry_after=20.0),
        ControlRefusedError("not yours", 403),
        ControlAnswerError("no JSON"),
        None,
    ],
)
async def test_other_pauses_are_kept(error: ControlError | None) -> None:
    assert await Bench().seconds(error) > 10


async def test_where_only_the_questions_fail_they_are_not_asked_in_a_hurry() -> None:
    bench = Bench()
    await bench.slowed()
    pause = asyncio.ensure_future(bench.pace.after_failure(ControlAwayError("503")))
    for _ in range(9):
        await bench.clock.advance(0.1)
        bench.pace.heard()
    assert not pause.done()
    await bench.clock.advance(0.2)
    assert pause.done()


async def test_what_was_heard_before_the_failure_ends_no_pause() -> None:
    bench = Bench()
    await bench.slowed()
    bench.pace.heard()
    pause = asyncio.ensure_future(bench.pace.after_failure(ControlAwayError("away")))
    await bench.clock.advance(2)
    assert not pause.done()
    pause.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pause
    assert bench.clock.pending == 0


async def test_after_a_success_failures_count_anew() -> None:
    bench = Bench()
    await bench.slowed()
    bench.pace.reached()
    pause = asyncio.ensure_future(bench.pace.after_failure(ControlAwayError("away")))
    await bench.clock.advance(0.3)
    assert pause.done()


async def test_a_pause_is_no_longer_than_asked_for() -> None:
    bench = Bench()
    pause = asyncio.ensure_future(bench.pace.after_nothing(bench.clock.monotonic() - 2))
    await bench.clock.advance(0)
    assert pause.done()
