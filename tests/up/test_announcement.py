from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest

from hms_addons.up.announcement import AGREE_TIME, Announcement
from hms_addons.up.control_plane import ControlPlane
from hms_addons.up.keeper import Keeper, State
from hms_addons.up.machine import FreePorts
from hms_addons.up.member import Member
from hms_addons.up.plan import Instance
from hms_addons.up.run_state import RunState
from tests.fakes.clock import FakeClock
from tests.fakes.up import FakeReport, Launcher

if TYPE_CHECKING:
    from pathlib import Path


class Plane(ControlPlane):
    """Says that all agree, or not; remembers who had to."""

    agree = False
    asked: tuple[int, int] | None = None

    async def agrees(self, sidecars: int, listed: int) -> bool:
        self.asked = (sidecars, listed)
        return self.agree


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def plane(tmp_path: Path, clock: FakeClock) -> Plane:
    return Plane(RunState(tmp_path / "mesh.yaml"), 1, clock)


def members(tmp_path: Path, clock: FakeClock) -> list[Member]:
    ports, found = FreePorts(), []
    for name, about in (("a-1", {"outbound": 15001}), ("job-1", {}), ("gov-1", {"alone": True})):
        words = ("x",) if name == "job-1" else ("x", "{port}")
        one = Member(Instance(name, "g", "s", words, tmp_path, **about), ports)
        one.keeper = Keeper(Launcher(), lambda *_: None, clock, Random(1))
        found.append(one)
    return found


async def test_it_is_said_once_when_all_are_ready_and_know_of_each_other(
    tmp_path: Path, plane: Plane, clock: FakeClock
) -> None:
    report = FakeReport()
    announcement = Announcement(plane, report, clock)
    everyone = members(tmp_path, clock)
    await announcement.consider(everyone)
    assert plane.asked is None, "not all are ready"
    for one in everyone:
        one.keeper.set(State.READY)
    await announcement.consider(everyone)
    assert plane.asked == (2, 1), "two have sidecars, one of them listens"
    assert not report.said
    plane.agree = True
    await announcement.consider(everyone)
    await announcement.consider(everyone)
    told = [line for line in report.said if "all 3 instances are ready" in line]
    assert len(told) == 1
    assert "(as s)" in "".join(report.said)


async def test_it_is_said_after_a_while_though_they_do_not(
    tmp_path: Path, plane: Plane, clock: FakeClock
) -> None:
    report = FakeReport()
    announcement = Announcement(plane, report, clock)
    everyone = members(tmp_path, clock)
    for one in everyone:
        one.keeper.set(State.READY)
    await announcement.consider(everyone)
    assert not report.said
    await clock.advance(AGREE_TIME + 0.1)
    await announcement.consider(everyone)
    assert report.said
