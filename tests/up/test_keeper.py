from __future__ import annotations

import asyncio
from random import Random

import pytest

from hms_addons.tasks import TaskSet
from hms_addons.up.keeper import STEADY, Keeper, State
from tests.fakes.clock import FakeClock
from tests.fakes.up import Launcher


class Kept:
    """A keeper at work, on a clock that stands still."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.launcher = Launcher()
        self.told: list[tuple[State, str]] = []
        self.keeper = Keeper(
            self.launcher, lambda *what: self.told.append(what), self.clock, Random(1)
        )
        self.tasks = TaskSet("test")
        self.task = self.tasks.start(self.keeper.run(), "keeper")

    async def turn(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    async def fail(self, code: int = 1) -> None:
        await self.turn()
        self.launcher.children[-1].end(code)
        await self.turn()


async def test_what_ends_is_started_again_after_pauses_that_double_and_says_so() -> None:
    kept = Kept()
    for number, longest in enumerate((0.25, 0.5, 1.0, 2.0), start=1):
        await kept.fail(3)
        assert len(kept.launcher.children) == number
        state, detail = kept.told[-1]
        assert state is State.WAITING
        assert detail.startswith("has ended with exit code 3; starting it again in ")
        assert detail.endswith("its last lines:\n  first\n  last")
        await kept.clock.advance(longest / 2 - 0.01)
        assert len(kept.launcher.children) == number, "too early"
        await kept.clock.advance(longest / 2 + 0.01)
        assert len(kept.launcher.children) == number + 1
    await kept.tasks.close()
    assert kept.clock.pending == 0


async def test_the_pause_is_short_again_after_a_steady_run() -> None:
    kept = Kept()
    for _ in range(6):
        await kept.fail()
        await kept.clock.advance(30)
    await kept.clock.advance(STEADY)
    await kept.fail()
    await kept.clock.advance(0.25)
    assert len(kept.launcher.children) == 8
    await kept.tasks.close()


async def test_what_cannot_be_started_is_tried_again() -> None:
    kept = Kept()
    kept.launcher.failing = "port 1 is in use by process 7"
    await kept.turn()
    assert "port 1 is in use by process 7; starting it again in" in kept.told[-1][1]
    kept.launcher.failing = ""
    await kept.clock.advance(0.25)
    assert len(kept.launcher.children) == 1
    await kept.tasks.close()


@pytest.mark.parametrize(("code", "said"), [(-9, "was ended by SIGKILL"), (-99, "by signal 99")])
async def test_a_signal_is_named(code: int, said: str) -> None:
    kept = Kept()
    await kept.fail(code)
    assert said in kept.told[-1][1]
    await kept.tasks.close()


async def test_stop_ends_it_for_good_whatever_it_does() -> None:
    kept = Kept()
    await kept.turn()
    kept.keeper.stop()
    kept.keeper.stop()
    await kept.task
    assert kept.launcher.children[0].signals == ["TERM"]
    assert [state for state, _ in kept.told] == [State.STARTING, State.STOPPING, State.STOPPED]

    waiting = Kept()
    await waiting.fail()
    waiting.keeper.stop()
    await waiting.task
    assert waiting.keeper.state is State.STOPPED
    assert waiting.clock.pending == 0


async def test_a_restart_has_no_pause() -> None:
    kept = Kept()
    await kept.turn()
    kept.keeper.set(State.READY)
    kept.keeper.restart()
    await kept.turn()
    assert len(kept.launcher.children) == 2
    assert kept.keeper.state is State.STARTING
    kept.keeper.kill()
    await kept.task
    assert kept.launcher.children[-1].signals == ["KILL"]


async def test_one_can_wait_for_a_state() -> None:
    kept = Kept()
    await kept.turn()
    waiting = kept.tasks.start(kept.keeper.until((State.READY,)), "until")
    await kept.turn()
    assert not waiting.done()
    kept.keeper.set(State.READY)
    await kept.turn()
    assert waiting.done()
    await kept.tasks.close()
