from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from hms_addons.control_client.failures import ControlAwayError, ControlError, ControlRefusedError
from hms_addons.control_client.reports import INTERVAL, Reports
from hms_addons.tasks import TaskSet
from tests.fakes.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping


class Bench:
    """Reports to itself."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.heard: list[Any] = []
        self.answers: list[int | None] = []
        self.state = 0
        self.away = False
        self.refusal: ControlError | None = None
        self.silent = False
        self.goodbyes = 0
        self.reports = Reports(
            self, "s", lambda: {"state": self.state}, self.answered, self.clock, Random(0)
        )
        self.tasks = TaskSet("test")

    async def report(self, sidecar: str, body: Mapping[str, Any]) -> int | None:
        assert sidecar == "s"
        if self.away:
            raise ControlAwayError("gone")
        if self.refusal is not None:
            raise self.refusal
        self.heard.append(body["state"])
        return 7

    async def leave(self, sidecar: str) -> None:
        assert sidecar == "s"
        self.goodbyes += 1
        if self.silent:
            await asyncio.Event().wait()
        if self.away:
            raise ControlAwayError("gone")

    async def answered(self, sequence: int | None) -> None:
        self.answers.append(sequence)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    made.tasks.start(made.reports.run(), "reports")
    await made.clock.advance(0)
    yield made
    await made.tasks.close()
    assert made.clock.pending == 0


async def test_every_ten_seconds(bench: Bench) -> None:
    assert (bench.heard, bench.answers) == ([0], [7])
    for _ in range(60):
        await bench.clock.advance(INTERVAL / 10)
    assert len(bench.heard) in {6, 7}


async def test_a_change_is_told_at_once_and_many_together(bench: Bench) -> None:
    await bench.clock.advance(0.6)
    for bench.state in range(1, 6):
        bench.reports.changed()
    await bench.clock.advance(0)
    assert bench.heard == [0, 5]
    bench.state = 6
    bench.reports.changed()
    await bench.clock.advance(0.4)
    assert bench.heard == [0, 5], "not faster than two a second"
    await bench.clock.advance(0.2)
    assert bench.heard == [0, 5, 6]


async def test_it_goes_on_when_the_control_plane_is_back(bench: Bench) -> None:
    bench.away = True
    bench.reports.changed()
    for _ in range(30):
        await bench.clock.advance(1)
    assert bench.heard == [0]
    bench.away = False
    for _ in range(11):
        await bench.clock.advance(1)
    assert len(bench.heard) >= 2


async def test_a_refusal_is_told_once_until_a_report_is_heard(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    async def refused(error: ControlError | None) -> list[tuple[str, str]]:
        caplog.clear()
        bench.refusal = error
        bench.reports.changed()
        for _ in range(30):
            await bench.clock.advance(1)
        return [(record.levelname, record.getMessage()) for record in caplog.records]

    caplog.set_level("INFO", "hms_addons.control_client.reports")
    refusal = ControlRefusedError("409: too many sidecars", 409)
    told = [("WARNING", "`hms status` does not show s: 409: too many sidecars")]
    assert await refused(refusal) == told
    assert await refused(ControlAwayError("gone")) == []
    assert await refused(refusal) == []
    assert await refused(None) == []
    assert await refused(refusal) == told


async def test_who_has_reported_says_goodbye_once(bench: Bench) -> None:
    assert await bench.reports.leave(3.0)
    assert not await bench.reports.leave(3.0)
    assert bench.goodbyes == 1


async def test_who_has_told_nothing_needs_no_goodbye() -> None:
    bench = Bench()
    assert not await bench.reports.leave(3.0)
    assert bench.goodbyes == 0


async def test_a_goodbye_is_said_once_more_on_a_new_connection_and_then_given_up(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.away = True
    assert not await bench.reports.leave(3.0)
    assert bench.goodbyes == 2
    assert "will show s as gone" in caplog.text


async def test_a_goodbye_that_nobody_answers_holds_nothing_up(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.silent = True
    leaving = bench.tasks.start(bench.reports.leave(3.0), "leave")
    await bench.clock.advance(2.9)
    assert not leaving.done()
    await bench.clock.advance(0.2)
    assert leaving.result() is False
    assert "no answer" in caplog.text
