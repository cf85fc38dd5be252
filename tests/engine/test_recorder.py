"""What is recorded, what is left out, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import io
from typing import TYPE_CHECKING, Any

import pytest
from mitmproxy.io import FlowReader, tnetstring
from mitmproxy.test.tflow import terr, tflow

from hms_addons.engine.flow_events import FlowEvents
from hms_addons.engine.recorder import Recorder, Recording
from hms_addons.errors import MeshError
from hms_addons.recording_wish import RecordingWish
from tests.fakes.clock import FakeClock

if TYPE_CHECKING:
    from mitmproxy.http import HTTPFlow

    from hms_addons.http_message import BodyStream

BOTH = RecordingWish(30.0, "both", 100)


def flow(direction: str = "inbound", **headers: str) -> HTTPFlow:
    made = tflow(resp=True)
    made.metadata["hms"] = {"direction": direction}
    made.request.headers.update(headers)
    return made


def recording(wish: RecordingWish = BOTH) -> Recording:
    return Recording(wish, tnetstring.dumps)


def passes(one: Recording, *flows: HTTPFlow) -> None:
    for each in flows:
        one.requestheaders(each)
        one.response(each)


async def read(stream: BodyStream) -> list[HTTPFlow]:
    content = b"".join([piece async for piece in stream])
    return list(FlowReader(io.BytesIO(content)).stream())  # type: ignore[arg-type] # all are HTTP


async def test_mitmproxy_reads_what_is_recorded() -> None:
    one, flow_ = recording(), flow()
    flow_.comment = "inbound"
    passes(one, flow_)
    one.end()
    (found,) = await read(one.stream)
    assert found.request.path == flow_.request.path
    assert found.response is not None
    assert found.response.content == b"message"
    assert found.metadata == {"hms": {"direction": "inbound"}}
    assert one.state() == {"recorded": 1, "dropped": 0, "incomplete": 0}
    assert repr(one) == "<Recording ended recorded=1 dropped=0>"


async def test_secrets_are_left_out_and_the_flow_itself_keeps_them() -> None:
    one, flow_ = recording(), flow(Authorization="Bearer hunter2", Cookie="a=hunter2")
    assert flow_.response is not None
    flow_.response.headers["Set-Cookie"] = "a=hunter2"
    flow_.backup()
    flow_.request.path = "/a?token=hunter2"
    flow_.metadata["script"] = "hunter2"
    passes(one, flow_)
    one.end()
    content = b"".join([piece async for piece in one.stream])
    assert b"hunter2" not in content
    assert content.count(b"[redacted]") == 4
    assert flow_.request.headers["Authorization"] == "Bearer hunter2"


async def test_bodies_that_are_too_long_or_streamed_are_left_out() -> None:
    one, long, streamed = recording(), flow(), flow()
    long.request.content = b"x" * 101
    assert streamed.response is not None
    streamed.response.data.content = None
    passes(one, long, streamed)
    one.end()
    first, second = await read(one.stream)
    assert first.request.raw_content is None
    assert second.response is not None
    assert second.response.raw_content is None
    assert one.incomplete == 2


async def test_only_what_begins_and_goes_where_it_is_wanted() -> None:
    one = recording(RecordingWish(30.0, "inbound", 100))
    passes(one, flow("outbound"), tflow(resp=True))
    begun_before = flow()
    one.response(begun_before)
    failed = flow()
    one.requestheaders(failed)
    failed.error = terr()
    one.error(failed)
    one.error(failed)
    one.end()
    assert [found.id for found in await read(one.stream)] == [failed.id]


async def test_who_reads_slowly_loses_flows_and_is_told_how_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hms_addons.engine.recorder.MOST_WAITING", 1)
    one = recording()
    passes(one, flow(), flow())
    assert (one.recorded, one.dropped) == (1, 1)
    assert await one.stream.read()
    passes(one, flow())
    assert one.recorded == 2


async def test_what_cannot_be_written_is_dropped() -> None:
    one, strange = recording(), flow()
    strange.metadata["hms"] = {"direction": "inbound", "x": object()}
    passes(one, strange)
    assert (one.recorded, one.dropped) == (0, 1)


async def test_a_reader_waits_for_the_next_flow_and_hears_of_the_end() -> None:
    one = recording()
    reading = asyncio.ensure_future(one.stream.read())
    await asyncio.sleep(0)
    passes(one, flow())
    assert await reading
    reading = asyncio.ensure_future(one.stream.read())
    await asyncio.sleep(0)
    one.end()
    assert await reading == b""


# -- the recorder -------------------------------------------------------------------------------


@pytest.fixture
def events() -> FlowEvents:
    return FlowEvents()


async def test_nobody_is_watched_before_or_after(events: FlowEvents) -> None:
    clock = FakeClock()
    recorder = Recorder(events, clock)
    assert recorder.state() == {"recording": False, "last": None}
    stream = await recorder.begin(BOTH)
    assert events.watched
    assert recorder.state()["recording"]
    await _fire(events, flow())
    await clock.advance(30.0)
    assert not events.watched
    assert len(await read(stream)) == 1
    assert recorder.state() == {
        "recording": False,
        "last": {"recorded": 1, "dropped": 0, "incomplete": 0},
    }


async def _fire(events: FlowEvents, one: Any) -> None:
    await events.fire_flow(events.requestheaders, one)
    await events.fire_flow(events.response, one)


async def test_one_at_a_time(events: FlowEvents) -> None:
    clock = FakeClock()
    recorder = Recorder(events, clock)
    stream = await recorder.begin(BOTH)
    await clock.advance(10.0)
    with pytest.raises(MeshError, match="somebody records already; that ends in 20 s"):
        await recorder.begin(BOTH)
    stream.close()
    assert not events.watched, "who reads no more ends it"
    assert not clock.pending
    await recorder.begin(BOTH)
    recorder.close()
    assert not events.watched
    with pytest.raises(MeshError, match="about to end"):
        await recorder.begin(BOTH)
