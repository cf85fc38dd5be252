from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from hms_addons.config.control_source import WAIT, ControlSource
from hms_addons.config.poll_pace import LONGEST_PAUSE
from hms_addons.control_client.failures import ControlAwayError, ControlRefusedError
from hms_addons.control_client.pushed import PushedSnapshot
from hms_addons.errors import ConfigError
from hms_addons.state_folder import StateFolder
from hms_addons.tasks import TaskSet
from tests.fakes.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from hms_addons.config.snapshot import Snapshot


def pushed(version: int, *clusters: str, digest: str | None = None, **more: Any) -> PushedSnapshot:
    document = {"clusters": [{"name": name} for name in clusters], **more}
    return PushedSnapshot(version, digest or f"{version:04x}", document)


class FakeFeed:
    """A control plane whose answers a test puts in; without one it makes the caller wait."""

    where = "https://c:1"

    def __init__(self) -> None:
        self.answers: asyncio.Queue[PushedSnapshot | Exception | None] = asyncio.Queue()
        self.asked: list[tuple[str | None, float]] = []

    async def snapshot(self, known: str | None, wait: float) -> PushedSnapshot | None:
        self.asked.append((known, wait))
        answer = await self.answers.get()
        if isinstance(answer, Exception):
            raise answer
        return answer


class Bench:
    def __init__(self, folder: Path, *files: Path) -> None:
        self.clock = FakeClock()
        self.feed = FakeFeed()
        self.source = ControlSource(
            self.feed, StateFolder(folder), "x", self.clock, Random(0), files=files
        )
        self.applied: list[Snapshot] = []
        self.refused: list[str] = []
        self.refuses = False
        self.cost = 0.0
        """Seconds that putting one in force takes."""
        self.tasks = TaskSet("test")

    async def apply(self, snapshot: Snapshot) -> None:
        if self.refuses:
            raise ConfigError("the port is taken")
        if self.cost:
            await self.clock.sleep(self.cost)
        self.applied.append(snapshot)

    async def begin(self, first: PushedSnapshot) -> None:
        """Load the first, and follow."""
        self.feed.answers.put_nowait(first)
        (candidate,) = await self.source.load()
        self.source.accept(candidate.pushed)
        self.tasks.start(self.source.watch(self.apply, self.refused.append), "watch")
        await self.clock.advance(0)

    async def say(self, answer: PushedSnapshot | Exception | None) -> None:
        self.feed.answers.put_nowait(answer)
        await self.clock.advance(0)
        await self.clock.advance(0.11)

    @property
    def versions(self) -> list[str]:
        return [snapshot.version for snapshot in self.applied]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path)
    yield made
    await made.tasks.close()
    made.source.close()


async def test_the_first_and_each_change(bench: Bench) -> None:
    await bench.begin(pushed(1, "a"))
    await bench.say(pushed(2, "b"))
    assert bench.versions == ["2.0002"]
    assert "b" in bench.applied[0].clusters
    assert bench.applied[0].source == "control plane https://c:1"
    assert bench.feed.asked == [(None, WAIT), ("1.0001", WAIT), ("2.0002", WAIT)]
    assert bench.source.status()["in_sync"] is True
    assert (bench.source.status()["version"], bench.source.status()["digest"]) == (2, "0002")


async def test_of_a_storm_of_changes_the_last_counts(bench: Bench) -> None:
    """A change that took 5 ms is followed by 195 ms without another: 2.5 % of the time is spent on them."""
    await bench.begin(pushed(1, "a"))
    bench.cost = 0.005
    bench.feed.answers.put_nowait(pushed(2, "b"))
    await bench.clock.advance(0)
    await bench.clock.advance(0.005)
    assert bench.versions == ["2.0002"], "the first waits for nothing"
    asked = len(bench.feed.asked)
    await bench.clock.advance(0.19)
    assert len(bench.feed.asked) == asked
    await bench.clock.advance(0.006)
    assert len(bench.feed.asked) == asked + 1


async def test_after_a_costly_change_the_next_is_at_most_a_second_away(bench: Bench) -> None:
    await bench.begin(pushed(1, "a"))
    bench.cost = 3.0
    bench.feed.answers.put_nowait(pushed(2, "b"))
    await bench.clock.advance(0)
    await bench.clock.advance(3.0)
    assert bench.versions == ["2.0002"]
    asked = len(bench.feed.asked)
    await bench.clock.advance(LONGEST_PAUSE - 0.01)
    assert len(bench.feed.asked) == asked
    await bench.clock.advance(0.02)
    assert len(bench.feed.asked) == asked + 1


async def test_a_refused_version_is_not_asked_for_again(bench: Bench) -> None:
    await bench.begin(pushed(1, "a"))
    await bench.say(pushed(2, clusters=5))
    assert bench.applied == []
    assert "clusters: expected a list" in bench.refused[0]
    assert bench.feed.asked[-1] == ("2.0002", WAIT)
    assert bench.source.refused is not None
    assert bench.source.refused.pushed.version == 2
    assert bench.source.in_force == pushed(1, "a")
    bench.refuses = True
    await bench.say(pushed(3, "c"))
    assert bench.source.refused.reason == "the port is taken"
    bench.refuses = False
    await bench.say(pushed(4, "d"))
    assert bench.source.refused is None
    assert bench.versions == ["4.0004"]


async def test_an_older_version_is_never_taken_and_not_asked_for_in_a_hurry(bench: Bench) -> None:
    await bench.begin(pushed(10, "a"))
    await bench.say(pushed(3))
    assert bench.applied == []
    assert "older than 10" in bench.source.status()["problem"]
    asked = len(bench.feed.asked)
    await bench.clock.advance(0.8)
    assert len(bench.feed.asked) == asked
    await bench.clock.advance(0.2)
    assert bench.feed.asked[-1] == ("3.0003", WAIT)
    await bench.clock.advance(WAIT)
    await bench.say(None)
    assert bench.source.trouble, "nothing new there is still older"
    await bench.clock.advance(1.1)
    await bench.say(pushed(11, "b"))
    assert bench.versions == ["11.000b"]
    assert bench.source.trouble is None


async def test_answers_that_come_at_once_are_not_asked_for_at_once(bench: Bench) -> None:
    await bench.begin(pushed(1))
    for answer in (None, pushed(1), None, pushed(1)):
        asked = len(bench.feed.asked)
        await bench.say(answer)
        await bench.clock.advance(0.5)
        assert len(bench.feed.asked) == asked
        await bench.clock.advance(0.6)
        assert len(bench.feed.asked) == asked + 1


async def test_a_failure_is_followed_by_longer_and_longer_pauses(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    await bench.begin(pushed(1))
    for _ in range(12):
        await bench.say(ControlAwayError("nobody there"))
        await bench.clock.advance(31)
    assert bench.source.status()["problem"] == "nobody there"
    assert caplog.text.count("no contact with the control plane") == 1, "said once"
    for _ in range(2):
        await bench.say(ControlRefusedError("its SVID expired", 401))
        await bench.clock.advance(31)
    assert caplog.text.count("its SVID expired") == 1, "a refusal that comes later is said as well"
    await bench.say(ControlAwayError("nobody there"))
    await bench.clock.advance(31)
    asked = len(bench.feed.asked)
    await bench.say(ControlAwayError("nobody there"))
    await bench.clock.advance(10)
    assert len(bench.feed.asked) == asked
    await bench.clock.advance(21)
    assert len(bench.feed.asked) == asked + 1
    assert bench.feed.asked[-1] == ("1.0001", 0.0), "to know at once that it is back"
    await bench.say(None)
    assert bench.source.trouble is None
    assert bench.feed.asked[-1] == ("1.0001", WAIT)
    await bench.say(ControlAwayError("busy", retry_after=20))
    asked = len(bench.feed.asked)
    await bench.clock.advance(19)
    assert len(bench.feed.asked) == asked
    await bench.clock.advance(2)
    assert len(bench.feed.asked) == asked + 1


async def test_after_an_outage_it_asks_as_soon_as_something_else_has_got_through(
    bench: Bench,
) -> None:
    await bench.begin(pushed(1))
    for _ in range(12):
        await bench.say(ControlAwayError("nobody there"))
        await bench.clock.advance(31)
    await bench.say(ControlAwayError("nobody there"))
    asked = len(bench.feed.asked)
    await bench.clock.advance(2)
    assert len(bench.feed.asked) == asked
    bench.source.heard()
    await bench.clock.advance(0)
    assert len(bench.feed.asked) == asked + 1
    await bench.say(pushed(2, "pushed-meanwhile"))
    assert bench.versions == ["2.0002"]


async def test_the_last_good_one_is_what_a_start_falls_back_on(
    bench: Bench, tmp_path: Path
) -> None:
    await bench.begin(pushed(5, "a"))
    await bench.tasks.close()
    bench.source.close()
    again = Bench(tmp_path)
    again.feed.answers.put_nowait(ControlRefusedError("who are you", 401))
    (only,) = await again.source.load()
    assert only.pushed == pushed(5, "a")
    assert again.source.trouble == "who are you"
    again = Bench(tmp_path)
    again.feed.answers.put_nowait(pushed(6, "b"))
    assert [c.pushed.version for c in await again.source.load()] == [6, 5]
    again = Bench(tmp_path)
    again.feed.answers.put_nowait(pushed(4))
    assert [c.pushed.version for c in await again.source.load()] == [5]
    assert "older" in (again.source.trouble or "")
    again = Bench(tmp_path)
    again.feed.answers.put_nowait(pushed(6, clusters=5))
    assert [c.pushed.version for c in await again.source.load()] == [5]
    assert again.source.refused is not None
    assert again.source.refused.pushed.version == 6


async def test_without_a_last_good_one_it_waits(bench: Bench) -> None:
    loading = asyncio.ensure_future(bench.source.load())
    await bench.say(ControlAwayError("nobody there"))
    await bench.clock.advance(1)
    await bench.say(pushed(1, clusters=5))
    await bench.clock.advance(1)
    assert bench.feed.asked[-1] == ("1.0001", WAIT)
    await bench.say(pushed(2, "a"))
    assert [c.pushed.version for c in await loading] == [2]


async def test_local_files_go_over_it_and_have_a_part_in_the_name(tmp_path: Path) -> None:
    local = tmp_path / "local.yaml"
    local.write_text('clusters: [{name: a, endpoints: ["h:1"]}]')
    bench = Bench(tmp_path / "state", local)
    bench.feed.answers.put_nowait(pushed(1, "a"))
    (candidate,) = await bench.source.load()
    assert len(candidate.snapshot.clusters["a"].endpoints) == 1
    assert candidate.snapshot.version.startswith("1.0001+")
    assert candidate.snapshot.source == f"control plane https://c:1, {local}"


async def test_a_document_without_end_is_refused(bench: Bench) -> None:
    await bench.begin(pushed(1))
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    await bench.say(pushed(2, plugins={"p": {"x": deep}}))
    assert bench.refused == ["it is nested too deeply"]
    while deep:  # taken apart by hand: the destructor would recurse, too
        deep = deep[0]
