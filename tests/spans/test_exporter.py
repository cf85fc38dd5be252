"""The queue of spans: bounded, in batches, and nobody's burden when the collector is away."""

from __future__ import annotations

import asyncio
import logging
import random
from typing import TYPE_CHECKING

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)

from hms_addons.http_message import Answer
from hms_addons.spans.exporter import DELAY, MAX_BATCH, MAX_QUEUED, MAX_TRIES, SpanExporter
from hms_addons.spans.otlp import Batch
from hms_addons.spans.record import RequestRecord, record_of
from hms_addons.tasks import TaskSet
from hms_addons.trace_context import Trace
from tests.fakes.clock import FakeClock
from tests.fakes.exchange import make_exchange
from tests.integration.otlp_kit import read_spans

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

URL = "http://127.0.0.1:4318/v1/traces"
PARTIAL = ExportTraceServiceResponse(
    partial_success=ExportTracePartialSuccess(rejected_spans=2, error_message="too old")
).SerializeToString()


class FakeCollector:
    """Answers as it is told; `None` hangs, an error is raised by httpx."""

    def __init__(self) -> None:
        self.answers: list[httpx.Response | Exception | None] = []
        self.batches: list[int] = []
        self.hanging = 0

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.batches.append(len(read_spans(request.content)))
        answer = self.answers.pop(0) if self.answers else httpx.Response(200)
        if answer is None:
            self.hanging += 1
            try:
                await asyncio.Event().wait()
            finally:
                self.hanging -= 1
        assert answer is not None
        if isinstance(answer, Exception):
            raise answer
        return answer


class World:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.tasks = TaskSet("test")
        self.collector = FakeCollector()
        self.exporter = SpanExporter(
            URL,
            {"authorization": "hunter2"},
            10.0,
            {"service.name": "auth-svc"},
            clock=self.clock,
            rng=random.Random(1),
            tasks=self.tasks,
            transport=httpx.MockTransport(self.collector),
        )

    def offer(self, number: int = 1) -> None:
        for _ in range(number):
            self.exporter.offer(record())

    async def turns(self) -> None:
        """As many as it takes for everything but time to happen."""
        for _ in range(200):
            await asyncio.sleep(0)

    async def pass_time(self, seconds: float) -> None:
        await self.clock.advance(seconds)
        await self.turns()


def record() -> RequestRecord:
    exchange = make_exchange()
    exchange.answer = Answer(200, b"OK", ())
    return record_of(exchange, Trace(), 1001.0, 1_800_000_000.0)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    world.exporter.start()
    yield world
    await world.tasks.close()
    assert not world.clock.pending
    assert not world.collector.hanging


async def test_spans_wait_for_each_other_but_not_for_long(world: World) -> None:
    world.offer(3)
    await world.pass_time(DELAY - 0.1)
    assert world.collector.batches == []
    world.offer(2)
    await world.pass_time(0.2)
    assert world.collector.batches == [5]
    world.offer()
    await world.pass_time(DELAY)
    assert world.collector.batches == [5, 1]
    assert world.exporter.exported == 6
    assert world.exporter.status() == {
        "url": URL, "exported": 6, "dropped": {}, "queued": 0, "error": None
    }  # fmt: skip
    assert repr(world.exporter) == f"<SpanExporter {URL} queued=0 exported=6>"


async def test_a_whole_batch_goes_at_once(world: World) -> None:
    world.offer(MAX_BATCH * 2 + 7)
    await world.pass_time(0)
    await world.turns()
    assert world.collector.batches == [MAX_BATCH, MAX_BATCH]
    await world.pass_time(DELAY)
    assert world.collector.batches == [MAX_BATCH, MAX_BATCH, 7]


async def test_while_a_collector_hangs_the_queue_is_bounded_and_drops_are_counted(
    world: World,
) -> None:
    world.collector.answers = [None]
    world.offer(MAX_BATCH)
    await world.turns()
    assert world.collector.hanging == 1
    world.offer(MAX_QUEUED + 100)
    assert world.exporter.dropped == {"queue_full": 100}
    assert world.exporter.status()["queued"] == MAX_QUEUED + MAX_BATCH
    await world.pass_time(10.0)  # the batch's time is up, and it is sent again
    assert world.exporter.error == "no answer within 10s"
    for _ in range(20):
        await world.pass_time(1.0)
    assert world.exporter.exported == MAX_QUEUED + MAX_BATCH
    assert world.exporter.dropped == {"queue_full": 100}
    assert world.exporter.error is None


@pytest.mark.parametrize("status", [400, 401, 413, 500])
async def test_what_is_refused_is_not_sent_again(world: World, status: int) -> None:
    world.collector.answers = [httpx.Response(status)]
    world.offer(4)
    await world.pass_time(DELAY)
    world.offer(1)
    await world.pass_time(DELAY)
    assert world.collector.batches == [4, 1]
    assert world.exporter.dropped == {"refused": 4}
    assert world.exporter.exported == 1


@pytest.mark.parametrize(
    "answer",
    [UnicodeError("not allowed"), httpx.Response(302, headers={"Location": "http://xn--a/"})],
)
async def test_no_answer_ends_tracing(world: World, answer: httpx.Response | Exception) -> None:
    world.collector.answers = [answer]
    world.offer(4)
    await world.pass_time(DELAY)
    world.offer(1)
    await world.pass_time(DELAY)
    assert world.collector.batches == [4, 1]
    assert world.exporter.dropped == {"refused": 4}
    assert world.exporter.exported == 1


class BrokenBatch(Batch):
    """Cannot take the third record."""

    def add(self, record: RequestRecord) -> None:
        if len(self) == 2:
            message = "a fault of ours"
            raise ValueError(message)
        super().add(record)


async def test_a_batch_that_cannot_be_made_is_counted_and_the_next_one_goes_out(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("hms_addons.spans.otlp.Batch", BrokenBatch)
        world.offer(3)
        await world.pass_time(DELAY)
        world.offer(3)
        await world.pass_time(DELAY)
    assert world.exporter.dropped == {"failed": 6}
    assert world.exporter.status()["queued"] == 0
    assert world.exporter.error == "ValueError: a fault of ours"
    assert caplog.text.count("ValueError: a fault of ours; 3 were dropped so far") == 1
    assert caplog.text.count("does not take them") == 1
    world.offer(2)
    await world.pass_time(DELAY)
    assert world.collector.batches == [2]
    assert world.exporter.exported == 2
    assert world.exporter.error is None


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_what_may_be_taken_later_is_sent_again_some_times(world: World, status: int) -> None:
    world.collector.answers = [httpx.Response(status)] * MAX_TRIES
    world.offer(4)
    for _ in range(40):
        await world.pass_time(1.0)
    assert world.collector.batches == [4] * MAX_TRIES
    assert world.exporter.dropped == {"unreachable": 4}
    world.offer(1)
    for _ in range(10):
        await world.pass_time(1.0)
    assert world.exporter.exported == 1


async def test_it_is_left_alone_for_as_long_as_it_asks(world: World) -> None:
    world.collector.answers = [httpx.Response(429, headers={"Retry-After": "20"})]
    world.offer()
    await world.pass_time(DELAY)
    await world.pass_time(19.0)
    assert world.collector.batches == [1]
    await world.pass_time(1.1)
    assert world.collector.batches == [1, 1]
    assert world.exporter.exported == 1


async def test_what_it_takes_only_in_part_is_counted(world: World) -> None:
    world.collector.answers = [httpx.Response(200, content=PARTIAL)]
    world.offer(5)
    await world.pass_time(DELAY)
    assert world.exporter.exported == 3
    assert world.exporter.dropped == {"refused": 2}
    assert "too old" in str(world.exporter.error)


async def test_an_answer_that_is_no_protobuf_is_still_a_yes(world: World) -> None:
    world.collector.answers = [httpx.Response(200, content=b"<html>")]
    world.offer(5)
    await world.pass_time(DELAY)
    assert (world.exporter.exported, dict(world.exporter.dropped)) == (5, {})


async def test_the_log_is_told_once_a_minute_and_never_a_secret(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "hms_addons.spans.exporter")
    world.collector.answers = [httpx.Response(500)] * 50
    for _ in range(50):
        world.offer()
        await world.pass_time(DELAY)
    warnings = [entry for entry in caplog.records if entry.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert f"{URL} does not take them: status 500; 1 were dropped so far" in caplog.text
    await world.pass_time(20.0)
    world.offer()
    await world.pass_time(DELAY)
    assert f"{URL} takes them again" in caplog.text
    assert "hunter2" not in caplog.text


async def test_at_the_end_what_is_left_is_sent(world: World) -> None:
    world.offer(3)
    await world.turns()
    await world.exporter.close(2.0)
    assert world.collector.batches == [3]
    assert world.exporter.exported == 3
    world.offer()
    assert world.exporter.dropped == {"queue_full": 1}


async def test_the_end_waits_no_longer_than_it_may_for_one_that_hangs(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.collector.answers = [None, None]
    world.offer(3)
    await world.pass_time(DELAY)
    assert world.collector.hanging == 1
    world.offer(2)
    end = asyncio.ensure_future(world.exporter.close(2.0))
    await world.pass_time(1.9)
    assert not end.done()
    await world.pass_time(0.2)
    await end
    assert world.exporter.dropped == {"shutdown": 5}
    assert world.exporter.status()["queued"] == 0
    assert "5 spans are lost" in caplog.text


async def test_the_end_does_not_wait_for_a_retry(world: World) -> None:
    world.collector.answers = [httpx.Response(503)] * 9
    world.offer(3)
    await world.pass_time(DELAY)
    end = asyncio.ensure_future(world.exporter.close(2.0))
    await world.turns()
    assert end.done()
    assert world.exporter.dropped == {"unreachable": 3}


async def test_one_that_was_never_started_drops_what_it_has(world: World) -> None:
    other = World()
    other.offer(2)
    await other.exporter.close(2.0)
    assert other.exporter.dropped == {"shutdown": 2}


async def test_it_is_the_one_for_what_it_was_made_for(world: World) -> None:
    resource = {"service.name": "auth-svc"}
    assert world.exporter.sends(URL, {"authorization": "hunter2"}, 10.0, resource)
    assert not world.exporter.sends(URL, {}, 10.0, resource)
    assert not world.exporter.sends(URL, {"authorization": "hunter2"}, 9.0, resource)
    assert not world.exporter.sends(URL, {"authorization": "hunter2"}, 10.0, {})
