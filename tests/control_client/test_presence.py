from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from hms_addons.control_client.failures import ControlAwayError
from hms_addons.control_client.presence import (
    MAX_METADATA,
    MAX_METADATA_LENGTH,
    TTL,
    Presence,
    Traits,
    own_host,
    parse_metadata,
)
from hms_addons.errors import MeshError
from hms_addons.tasks import TaskSet
from tests.fakes.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping


class FakeRegistry:
    """Writes down what it is told; `away` makes it fail, `stuck` makes it never answer."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str | None]] = []
        self.bodies: list[Mapping[str, Any]] = []
        self.away = 0
        self.stuck = False

    async def register(self, instance: str, body: Mapping[str, Any]) -> None:
        self.calls.append((instance, body["address"]))
        self.bodies.append(body)
        await self._fare()

    async def deregister(self, instance: str) -> None:
        self.calls.append((instance, None))
        await self._fare()

    async def _fare(self) -> None:
        if self.stuck:
            await asyncio.Event().wait()
        if self.away:
            self.away -= 1
            raise ControlAwayError("gone")


class Bench:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.registry = FakeRegistry()
        self.address: str | None = "h:1"
        self.changes = 0
        self.presence = Presence(
            self.registry, "i", Traits("v2", 3, "b"), lambda: self.address, self.clock, Random(0)
        )
        self.presence.on_change = self._count
        self.tasks = TaskSet("test")

    def _count(self) -> None:
        self.changes += 1


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    made.tasks.start(made.presence.run(), "presence")
    await made.clock.advance(0)
    yield made
    await made.tasks.close()
    assert made.clock.pending == 0


async def test_each_answer_is_told_of_and_no_failure(bench: Bench) -> None:
    heard: list[float] = []
    bench.presence.on_heard = lambda: heard.append(bench.clock.monotonic())
    bench.registry.away = 3
    for _ in range(60):
        await bench.clock.advance(0.25)
    assert len(heard) == len(bench.registry.calls) - 1 - 3


async def test_it_is_renewed_three_times_in_a_lease(bench: Bench) -> None:
    assert bench.registry.calls == [("i", "h:1")]
    for _ in range(30):
        await bench.clock.advance(TTL / 30)
    assert len(bench.registry.calls) in {4, 5}
    assert (bench.presence.listed, bench.changes) == ("h:1", 1)


async def test_a_change_is_told_at_once_and_no_change_is_not(bench: Bench) -> None:
    bench.presence.poke()
    await bench.clock.advance(0)
    assert len(bench.registry.calls) == 1
    bench.address = "h:2"
    bench.presence.poke()
    await bench.clock.advance(0)
    assert bench.registry.calls[-1] == ("i", "h:2")
    bench.address = None
    bench.presence.poke()
    await bench.clock.advance(0)
    assert [address for _, address in bench.registry.calls] == ["h:1", "h:2", None]
    assert bench.presence.listed is None


async def test_a_failure_is_made_good_before_the_lease_ends(bench: Bench) -> None:
    bench.registry.away = 2
    for _ in range(50):
        await bench.clock.advance(TTL / 50)
    assert len(bench.registry.calls) >= 5
    assert not bench.registry.away


async def test_without_an_address_it_is_not_listed() -> None:
    bench = Bench()
    bench.address = None
    bench.tasks.start(bench.presence.run(), "presence")
    await bench.clock.advance(TTL)
    assert bench.registry.calls == []
    await bench.tasks.close()
    assert not await bench.presence.leave()


async def test_leaving(bench: Bench) -> None:
    await bench.tasks.close()
    bench.registry.away = 1
    assert await bench.presence.leave(), "tried once more"
    assert bench.registry.calls[-1] == ("i", None)
    assert not await bench.presence.leave(), "it is gone already"


async def test_leaving_a_control_plane_that_is_away_takes_no_longer_than_it_must(
    bench: Bench,
) -> None:
    await bench.tasks.close()
    bench.registry.stuck = True
    leaving = asyncio.ensure_future(bench.presence.leave())
    await bench.clock.advance(3.1)
    assert await leaving is False


async def test_an_announcement_that_was_not_answered_is_taken_back_too() -> None:
    bench = Bench()
    bench.registry.stuck = True
    bench.tasks.start(bench.presence.run(), "presence")
    await bench.clock.advance(0)
    await bench.tasks.close()
    bench.registry.stuck = False
    assert await bench.presence.leave()
    assert bench.registry.calls[-1] == ("i", None)


async def test_the_address_that_a_connection_comes_from() -> None:
    assert await own_host("https://127.0.0.1:15010") == "127.0.0.1"
    with pytest.raises(OSError, match=r".*"):
        await own_host("https://no-such-host.invalid:1")


# -- what else is told -----------------------------------------------------------------------------


def test_metadata_is_written_as_names_and_values() -> None:
    assert parse_metadata([]) == ()
    assert parse_metadata(["team=blue", "build=7, note = a=b ,empty=,"]) == (
        ("team", "blue"),
        ("build", "7"),
        ("note", "a=b"),
        ("empty", ""),
    )


@pytest.mark.parametrize(
    ("word", "why"),
    [
        ("team", "give name=value"),
        ("=blue", "give name=value"),
        ("a=1,a=2", "a is there twice"),
        ("a=" + "x" * (MAX_METADATA_LENGTH + 1), "at most 256 characters"),
        ("x" * (MAX_METADATA_LENGTH + 1) + "=a", "at most 256 characters"),
        (",".join(f"k{n}=" for n in range(MAX_METADATA + 1)), "65 of them; at most 64"),
        (",".join(f"k{n:02}={'x' * 130}" for n in range(31)), "4123 bytes; at most 4096"),
    ],
)
def test_metadata_that_the_control_plane_would_not_take_is_refused(word: str, why: str) -> None:
    with pytest.raises(MeshError, match=f"--metadata.*{why}"):
        parse_metadata([word])


async def test_a_priority_is_registered_where_there_is_one(bench: Bench) -> None:
    """A control plane of before would refuse the key."""
    for priority in (0, 2):
        traits = Traits(priority=priority)
        presence = Presence(bench.registry, "i", traits, lambda: "h:1", bench.clock, Random(0))
        task = bench.tasks.start(presence.run(), "run")
        await bench.clock.advance(0)
        task.cancel()
        assert bench.registry.bodies[-1].get("priority", 0) == priority
        assert ("priority" in bench.registry.bodies[-1]) == bool(priority)


async def test_metadata_is_registered(bench: Bench) -> None:
    traits = Traits("v2", 3, "b", (("team", "blue"),))
    presence = Presence(bench.registry, "i", traits, lambda: "h:1", bench.clock, Random(0))
    task = bench.tasks.start(presence.run(), "run")
    await bench.clock.advance(0)
    task.cancel()
    assert bench.registry.bodies[-1] == {
        "address": "h:1",
        "version": "v2",
        "weight": 3,
        "zone": "b",
        "metadata": {"team": "blue"},
        "ttl": TTL,
    }
