"""One HMS-GOV and its last answer, without requests; with them: tests/addons/test_governance.py."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from hms_addons.config.policy_source import PolicySource
from hms_addons.config.snapshot import Governance, HeaderNames
from hms_addons.tasks import TaskSet
from tests.fakes.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Bench:
    """A source on a clock that stands still, and what HMS-GOV answers."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.tasks = TaskSet("test")
        self.answer: Any = {"version": "1"}
        self.asked = 0
        self.hang = False

    async def _respond(self, request: httpx.Request) -> httpx.Response:
        self.asked += 1
        if self.hang:
            await asyncio.Event().wait()
        if isinstance(self.answer, httpx.Response):
            return self.answer
        return httpx.Response(200, json=self.answer, request=request)

    def source(self, **spec: Any) -> PolicySource:
        return PolicySource(
            Governance(**{"url": "http://u:secret@gov:1/"} | spec),
            HeaderNames(),
            clock=self.clock,
            rng=random.Random(1),
            tasks=self.tasks,
            transport=httpx.MockTransport(self._respond),
        )

    async def started(self, **spec: Any) -> PolicySource:
        source = self.source(**spec)
        source.start()
        await self.clock.advance(0)
        return source


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    await bench.tasks.close()
    assert bench.clock.pending == 0


async def test_before_the_first_answer_there_is_nothing(bench: Bench) -> None:
    source = bench.source()
    assert source.fields == ()
    assert source.status() == {
        "url": "http://gov:1",
        "version": None,
        "headers": {},
        "age_s": None,
        "stale": False,
        "serves_for_s": 0.0,
        "changes": 0,
        "error": None,
    }
    assert "it has not been asked yet" in source.complaint()


async def test_status_tells_what_is_sent_and_how_old_it_is(bench: Bench) -> None:
    bench.answer = {"version": "1", "X-Zone": "eu"}
    source = await bench.started(ttl=10.0, max_stale=100.0)
    bench.answer = httpx.Response(500)
    await bench.clock.advance(9)
    assert source.status() == {
        "url": "http://gov:1",
        "version": "1",
        "headers": {"X-Policy-Version": "1", "X-Zone": "eu"},
        "age_s": 9.0,
        "stale": False,
        "serves_for_s": 101.0,
        "changes": 0,
        "error": "the answer cannot be used: its status is 500, not 200",
    }
    await bench.clock.advance(1)
    assert source.status()["stale"]
    await bench.clock.advance(100)
    found = source.status()
    assert (found["version"], found["headers"], found["serves_for_s"]) == (None, {}, 0.0)
    assert json.loads(json.dumps(found)) == found
    assert "only one that is too old" in source.complaint()


async def test_a_change_is_counted_and_logged(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    source = await bench.started(ttl=10.0)
    bench.answer = {"version": "2"}
    await bench.clock.advance(10)
    bench.answer = {"version": "2", "X-Zone": "eu"}
    await bench.clock.advance(10)
    await bench.clock.advance(10)
    assert source.changes == 2
    assert "policy version 1, from http://gov:1" in caplog.messages
    assert "policy version 2 instead of 1" in caplog.messages
    assert "policy version 2 has another X-Zone" in caplog.messages
    ours = [record for record in caplog.records if record.name.startswith("hms_addons")]
    assert not any("secret" in record.getMessage() for record in ours)


async def test_one_that_is_away_is_asked_as_often_as_one_that_answers(bench: Bench) -> None:
    source = await bench.started(ttl=4.0, max_stale=1000.0)
    bench.answer = httpx.Response(503)
    for _ in range(10):
        await bench.clock.advance(4)
        assert source.next_question_in() <= 4.0
    assert bench.asked >= 11


async def test_names_that_it_has_used_stay_its_own(bench: Bench) -> None:
    bench.answer = {"version": "1", "X-Zone": "eu"}
    source = await bench.started(ttl=10.0)
    bench.answer = {"version": "1"}
    await bench.clock.advance(10)
    assert source.fields == ((b"X-Policy-Version", b"1"),)
    assert source.others == {b"x-zone"}
    heir = bench.source(ttl=20.0)
    heir.inherit(source)
    assert (heir.fields, heir.others) == (source.fields, source.others)


async def test_an_answer_that_never_comes_is_given_up(bench: Bench) -> None:
    bench.hang = True
    source = await bench.started(timeout=2.0)
    assert source.first is not None
    await bench.clock.advance(2)
    assert source.first is None
    assert source.error == "no whole answer within 2s"
    source.stop()
    await bench.clock.advance(0)
    assert len(bench.tasks) == 0


async def test_repr(bench: Bench) -> None:
    source = await bench.started()
    assert repr(source) == "<PolicySource http://gov:1 version=1 error=None>"
    source.stop()
