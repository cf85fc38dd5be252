"""Slow start, on a clock that a test moves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hms_addons.upstream.slow_start import MIN_WEIGHT, STEPS, SlowStart
from tests.fakes.balancers import endpoints
from tests.fakes.clock import FakeClock

if TYPE_CHECKING:
    from hms_addons.upstream.endpoint import Endpoint


class Watched:
    """A cluster's part: it has slow start look again whenever that asks for it."""

    def __init__(self, *weights: int, window: float = 30.0) -> None:
        self.clock = FakeClock()
        self.members = endpoints(*weights)
        self.away: set[Endpoint] = set()
        self.looks = 0
        self.slow = SlowStart(self.clock, window, self.look)
        self.look()

    def look(self) -> None:
        self.looks += 1
        self.slow.observe(self.members, [m for m in self.members if m not in self.away])

    @property
    def weights(self) -> list[float]:
        return [round(member.weight, 6) for member in self.members]


def test_at_the_first_start_nobody_starts_slowly() -> None:
    world = Watched(1, 4)
    assert world.weights == [1, 4]
    assert world.clock.pending == 0, "and no timer is set"


def test_a_newcomer_begins_with_a_tenth_and_grows_evenly() -> None:
    world = Watched(4, 4, 4)
    newcomer = world.members.pop()
    world.look()
    world.members.append(newcomer)
    world.look()
    assert world.weights == [4, 4, 4 * MIN_WEIGHT]
    world.clock.tick(15)
    assert world.weights == [4, 4, 2]
    assert repr(world.slow) == "<SlowStart 30s starting=1>"
    world.clock.tick(15.1)
    assert world.weights == [4, 4, 4]
    world.clock.tick(60)
    assert world.clock.pending == 0, "nothing is left to be done"
    assert world.looks <= STEPS + 6


def test_one_that_comes_back_from_an_ejection_starts_slowly_too() -> None:
    world = Watched(1, 1)
    world.away.add(world.members[0])
    world.look()
    assert world.weights == [1, 1]
    world.clock.tick(100)
    world.away.clear()
    world.look()
    assert world.weights == [0.1, 1]
    world.clock.tick(3)
    assert world.weights == [0.1, 1], "a tenth of the window is a tenth of the weight"
    world.clock.tick(6)
    assert world.weights == [pytest.approx(0.3), 1]


def test_one_that_is_ejected_again_begins_anew() -> None:
    world = Watched(1, 1)
    for _ in range(2):
        world.away.add(world.members[0])
        world.look()
        world.away.clear()
        world.look()
        assert world.weights == [0.1, 1]
        world.clock.tick(20)
        assert world.weights[0] > 0.6


def test_those_that_come_where_there_was_nobody_have_all_of_it() -> None:
    world = Watched()
    world.members = endpoints(1, 1)
    world.look()
    assert world.weights == [1, 1]


def test_switched_off_all_have_their_weight_back() -> None:
    world = Watched(2, 2)
    world.away.add(world.members[0])
    world.look()
    world.away.clear()
    world.look()
    assert world.clock.pending == 1
    world.slow.close()
    assert world.weights == [2, 2]
    assert world.clock.pending == 0
