"""A graceful end over real `Http1Server`s: idle ones at once, busy ones when they are done."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from hms_addons.engine.drain import drain
from hms_addons.http_message import Answer
from tests.fakes.lane import FakeLane, Wire, settle

if TYPE_CHECKING:
    from hms_addons.engine.framing import RequestHead
    from hms_addons.engine.http1_server import Http1Server

GET = b"GET / HTTP/1.1\r\nHost: a.svc\r\n\r\n"


class Slow:
    """A handler that answers when it is let go."""

    def __init__(self) -> None:
        self.go = asyncio.Event()

    async def __call__(self, connection: Http1Server, request: RequestHead) -> Answer:
        await self.go.wait()
        return Answer(200, b"OK", (), b"late")


async def ended(wire: Wire, task: asyncio.Task[int], seconds: float) -> int:
    """Move the clock until the drain is over, at most so many seconds."""
    for _ in range(round(seconds / 0.05) + 2):
        await wire.clock.advance(0.05)
        if task.done():
            break
    return await asyncio.wait_for(task, 1)


async def test_nothing_to_drain_takes_no_time() -> None:
    wire = Wire()
    wire.transport.leave()
    await settle()
    assert await asyncio.wait_for(drain([wire.lane.connections, set()], wire.clock, 30), 1) == 0


async def test_idle_connections_are_closed_at_once() -> None:
    wire = Wire()
    await wire.send(GET)
    task = asyncio.create_task(drain([wire.lane.connections], wire.clock, 30))
    await settle()
    assert wire.transport.is_closing()
    assert not wire.transport.aborted
    assert await ended(wire, task, 0.1) == 0
    assert await wire.gone()


async def test_a_busy_connection_finishes_and_says_close() -> None:
    handler = Slow()
    wire = Wire(FakeLane(handler))
    await wire.send(GET)
    task = asyncio.create_task(drain([wire.lane.connections], wire.clock, 30))
    await wire.clock.advance(10)
    assert not task.done()
    assert not wire.transport.is_closing()
    handler.go.set()
    assert await ended(wire, task, 0.2) == 0
    [answer] = wire.responses()
    assert (answer.body, answer.headers["connection"]) == (b"late", "close")
    assert await wire.gone()


async def test_what_is_not_done_after_the_grace_is_cut_off() -> None:
    wire = Wire(FakeLane(Slow()))
    await wire.send(GET)
    task = asyncio.create_task(drain([wire.lane.connections], wire.clock, 2))
    await wire.clock.advance(1.9)
    assert not task.done()
    assert await ended(wire, task, 0.3) == 1
    assert wire.transport.aborted
    assert wire.responses() == []
    assert await wire.gone()
    assert isinstance(wire.lane.failures[0], asyncio.CancelledError)


async def test_no_grace_cuts_at_once_and_counts_each_group() -> None:
    wires = [Wire(FakeLane(Slow())), Wire(FakeLane(Slow()))]
    for wire in wires:
        await wire.send(GET)
    assert await drain([wire.lane.connections for wire in wires], wires[0].clock, 0) == 2
    for wire in wires:
        assert await wire.gone()


async def test_a_connection_that_comes_while_draining_is_drained_too() -> None:
    handler = Slow()
    lane = FakeLane(handler)
    first = Wire(lane)
    await first.send(GET)
    task = asyncio.create_task(drain([lane.connections], first.clock, 30))
    await settle()
    late = Wire(lane)
    await first.clock.advance(0.1)
    assert late.transport.is_closing()
    handler.go.set()
    assert await ended(first, task, 0.2) == 0
