"""A deadline that moves: fired once, at the right time, with at most one timer on the loop."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from hms_addons.clock import SYSTEM_CLOCK
from hms_addons.lazy_timer import LazyTimer
from tests.fakes.clock import FakeClock


class Fired:
    """Counts calls and remembers when they came."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.at: list[float] = []

    def __call__(self) -> None:
        self.at.append(self.clock.monotonic())


def make() -> tuple[FakeClock, Fired, LazyTimer]:
    clock = FakeClock(monotonic=0.0)
    fired = Fired(clock)
    return clock, fired, LazyTimer(clock, fired)


def test_fires_once_at_its_deadline() -> None:
    clock, fired, timer = make()
    timer.set(5.0)
    clock.tick(4.9)
    assert fired.at == []
    clock.tick(100)
    assert fired.at == [5.0]
    assert timer.deadline is None
    assert clock.pending == 0


def test_a_later_deadline_keeps_the_armed_timer() -> None:
    clock, fired, timer = make()
    for deadline in range(5, 500):
        timer.set(float(deadline))
    assert clock.pending == 1
    assert len(clock._timers) == 1
    clock.tick(498)
    assert fired.at == []
    clock.tick(1)
    assert fired.at == [499.0]


def test_an_earlier_deadline_rearms() -> None:
    clock, fired, timer = make()
    timer.set(60.0)
    timer.set(1.0)
    assert clock.pending == 1
    clock.tick(1)
    assert fired.at == [1.0]
    clock.tick(100)
    assert fired.at == [1.0]


def test_cleared_does_not_fire_and_the_timer_goes_away_by_itself() -> None:
    clock, fired, timer = make()
    timer.set(5.0)
    timer.clear()
    assert repr(timer) == "<LazyTimer clear, still armed>"
    clock.tick(10)
    assert fired.at == []
    assert clock.pending == 0
    assert repr(timer) == "<LazyTimer clear>"


def test_set_again_after_clear_uses_the_timer_that_is_there() -> None:
    clock, fired, timer = make()
    timer.set(5.0)
    timer.clear()
    clock.tick(1)
    timer.set(6.0)
    assert len(clock._timers) == 1
    clock.tick(10)
    assert fired.at == [6.0]


def test_close_leaves_nothing_on_the_loop() -> None:
    clock, fired, timer = make()
    timer.set(5.0)
    timer.close()
    assert clock.pending == 0
    clock.tick(10)
    assert fired.at == []


def test_a_deadline_in_the_past_fires_on_the_next_turn_not_at_once() -> None:
    clock, fired, timer = make()
    timer.set(-1.0)
    assert fired.at == []
    clock.tick(0)
    assert fired.at == [0.0]


def test_the_callback_may_set_it_again() -> None:
    clock = FakeClock(monotonic=0.0)
    at: list[float] = []

    def again() -> None:
        at.append(clock.monotonic())
        if len(at) < 3:
            timer.set(clock.monotonic() + 2)

    timer = LazyTimer(clock, again)
    timer.set(2.0)
    clock.tick(20)
    assert at == [2.0, 4.0, 6.0]


def test_repr_says_how_long() -> None:
    _, _, timer = make()
    timer.set(2.5)
    assert repr(timer) == "<LazyTimer in 2.500s>"


STEPS = st.lists(
    st.tuples(st.sampled_from(["set", "clear", "tick"]), st.integers(0, 50)), max_size=60
)


@given(STEPS)
def test_behaves_as_a_plain_timer_would(steps: list[tuple[str, int]]) -> None:
    clock, fired, timer = make()
    deadline: int | None = None
    expected: list[float] = []
    now = 0
    for step, amount in steps:
        if step == "set":
            deadline = now + amount
            timer.set(float(deadline))
        elif step == "clear":
            deadline = None
            timer.clear()
        else:
            now += amount
            clock.tick(amount)
            if deadline is not None and deadline <= now:
                expected.append(float(deadline))
                deadline = None
        assert clock.pending <= 1
    assert fired.at == expected


async def test_on_the_real_loop() -> None:
    fired = asyncio.Event()
    timer = LazyTimer(SYSTEM_CLOCK, fired.set)
    timer.set(SYSTEM_CLOCK.monotonic() + 60)
    timer.set(SYSTEM_CLOCK.monotonic() + 0.01)
    await asyncio.wait_for(fired.wait(), 5)
