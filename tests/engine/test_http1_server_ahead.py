"""Large reads are parsed a slice at a time: what a client may make this side hold is bounded."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import pytest

from hms_addons.engine.http1_server import SLICE
from hms_addons.engine.request_reader import PIPELINE
from tests.engine.test_http1_server_upgrade import NEXT, WEBSOCKET, Upgrading
from tests.fakes.lane import FakeLane, Wire, echo, settle

if TYPE_CHECKING:
    from hms_addons.engine.framing import RequestHead
    from hms_addons.engine.http1_server import Http1Server
    from hms_addons.http_message import Answer

SMALL = b"GET /%d HTTP/1.1\r\nHost:a\r\n\r\n"
READ = 256 * 1024


class Gated(FakeLane):
    """Answers nothing before `gate` is set."""

    def __init__(self) -> None:
        super().__init__(self._wait)
        self.gate = asyncio.Event()

    async def _wait(self, connection: Http1Server, request: RequestHead) -> Answer:
        await self.gate.wait()
        return await echo(connection, request)


def many(size: int = READ) -> tuple[bytes, list[str]]:
    """As many small requests as a read holds, and their targets."""
    count = size // len(SMALL % 9999)
    return b"".join(SMALL % n for n in range(count)), [f"/{n}" for n in range(count)]


async def test_a_read_full_of_requests_is_kept_as_bytes_while_the_first_one_hangs() -> None:
    wire = Wire(Gated())
    data, _ = many()
    wire.connection.data_received(data)
    await settle()
    waiting = wire.connection._pending
    assert PIPELINE <= len(waiting) <= SLICE // len(SMALL % 0)
    assert sum(sys.getsizeof(request) for request in waiting) < SLICE * 16
    assert not wire.transport.reading
    assert not wire.connection.idle
    wire.transport.reset()
    assert await wire.gone()


async def test_what_waits_as_bytes_is_served_in_order() -> None:
    lane = Gated()
    wire = Wire(lane)
    data, targets = many()
    # TLS hands on what it has decrypted although it was asked to pause.
    wire.connection.data_received(data[:-100])
    wire.connection.data_received(data[-100:])
    await settle()
    lane.gate.set()
    await settle(40 * len(targets))
    assert [seen.target for seen in lane.seen] == targets
    assert [response.status for response in wire.responses()] == [200] * len(targets)
    assert wire.transport.reading
    assert wire.connection.idle
    await wire.send(SMALL % 7)
    assert lane.seen[-1].target == "/7"
    wire.transport.leave()
    assert await wire.gone()


async def test_a_body_in_what_waits_arrives_whole() -> None:
    lane = Gated()
    wire = Wire(lane)
    data, targets = many(SLICE * 2)
    chunk = b"%x\r\n%b\r\n" % (100_000, b"x" * 100_000)
    body = b"POST /body HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk * 3
    wire.connection.data_received(data + body + b"0\r\n\r\n" + data)
    await settle()
    lane.gate.set()
    await settle(80 * len(targets))
    assert [seen.target for seen in lane.seen] == [*targets, "/body", *targets]
    assert lane.seen[len(targets)].body == b"x" * 300_000
    assert wire.transport.reading
    wire.transport.leave()
    assert await wire.gone()


@pytest.mark.parametrize("take_up", [True, False])
async def test_an_upgrade_among_what_waits(take_up: bool) -> None:
    data, targets = many(SLICE * 2)
    if take_up:
        lane = Upgrading()
        wire = Wire(lane)
        wire.connection.data_received(data + WEBSOCKET + NEXT * 1000)
        lane.gate.set()
        await settle(40 * len(targets))
        assert bytes(lane.received) == NEXT * 1000
    else:
        declining = FakeLane()
        wire = Wire(declining)
        wire.connection.data_received(data + WEBSOCKET + NEXT * 1000)
        await settle(40 * (len(targets) + 1000))
        assert [seen.target for seen in declining.seen] == [*targets, "/chat", *["/next"] * 1000]
    wire.transport.leave()
    assert await wire.gone()


async def test_close_among_what_waits_is_the_end() -> None:
    data, targets = many(SLICE * 2)
    wire = Wire()
    wire.connection.data_received(
        data + b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" + data
    )
    await settle(40 * len(targets))
    assert [seen.target for seen in wire.lane.seen] == [*targets, "/last"]
    await wire.clock.advance(3)
    assert await wire.gone()


async def test_a_drain_ends_after_the_answer_whatever_waits() -> None:
    lane = Gated()
    wire = Wire(lane)
    wire.connection.data_received(many()[0])
    await settle()
    wire.connection.drain()
    lane.gate.set()
    await settle()
    (answer,) = wire.responses()
    assert answer.headers["connection"] == "close"
    await wire.clock.advance(3)
    assert await wire.gone()


async def test_too_many_fields_of_an_unfinished_head_are_refused_at_once() -> None:
    wire = Wire()
    wire.connection.data_received(b"GET / HTTP/1.1\r\nHost: a\r\n" + b"a:\r\n" * 4000)
    await settle()
    (answer,) = wire.responses()
    assert answer.status == 431
    await wire.clock.advance(3)
    assert await wire.gone()


async def test_a_head_that_begins_behind_a_long_body_is_measured_all_the_same() -> None:
    """It was not, beyond what came in reads of its own."""
    wire = Wire()
    length = 400_000
    head = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % length
    wire.connection.data_received(head + b"x" * 1000)
    field = b"X-Long: %b\r\n" % (b"y" * 60_000)
    late = b"GET /b HTTP/1.1\r\nHost: a\r\n" + field
    wire.connection.data_received(b"x" * (length - 1000) + late)
    wire.connection.data_received(b"X-More: %b\r\n\r\n" % (b"z" * 10_000))
    await settle()
    assert [response.status for response in wire.responses()] == [200, 431]
    await wire.clock.advance(3)
    assert await wire.gone()
