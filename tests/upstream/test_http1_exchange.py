"""How an exchange lets go of its connection: early, late, in good order, or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hms_addons.http_message import HIGH_WATER, BodyStream
from hms_addons.upstream.outcome import Outcome
from tests.fakes.upstream import settle
from tests.upstream.test_http1_client import CHUNKED, GET, LONG, OK, Rig, failure

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    rig = Rig()
    yield rig
    await rig.end()


async def test_the_slot_is_back_before_the_answer_is_seen(rig: Rig) -> None:
    waiter = rig.send()
    rig.say(OK)
    assert rig.diary == ["reusable"]
    assert waiter.done()


async def test_an_idle_connection_closes_when_its_time_is_up(rig: Rig) -> None:
    waiter = rig.send(GET, 110.0)
    rig.say(OK)
    await waiter
    rig.connection.park(160.0)
    rig.clock.tick(59.9)
    assert rig.diary == ["reusable"]
    rig.clock.tick(0.1)
    assert rig.diary == ["reusable", "lost"]
    assert not rig.transport.aborted


# -- backpressure ----------------------------------------------------------------------------------


async def test_an_unread_stream_stops_the_upstream(rig: Rig) -> None:
    waiter = rig.send()
    rig.say(LONG % (10 * HIGH_WATER))
    stream = (await waiter).body
    assert isinstance(stream, BodyStream)
    rig.say(b"x" * HIGH_WATER)
    assert rig.transport.reading
    rig.say(b"x")
    assert not rig.transport.reading
    while not rig.transport.reading:
        await stream.read()
    assert "buffered=0" in repr(stream)


async def test_a_stream_drained_late_does_not_touch_the_next_exchange(rig: Rig) -> None:
    first = rig.send()
    rig.say(LONG % (HIGH_WATER * 5) + b"x" * (HIGH_WATER * 4))
    old = (await first).body
    assert isinstance(old, BodyStream)
    assert not rig.transport.reading
    rig.say(b"x" * HIGH_WATER)  # what was in the socket's buffer already
    assert rig.diary == ["reusable"]
    assert rig.transport.reading, "the next exchange must not inherit the pause"
    second = rig.send()
    rig.say(LONG % (HIGH_WATER * 5) + b"y" * (HIGH_WATER * 4))
    assert not rig.transport.reading
    async for _ in old:
        pass
    old.close()
    assert not rig.transport.reading, "nor be resumed by the one before"
    (await second).release()
    assert rig.diary == ["reusable", "finished", "lost"]


async def test_abandoning_a_stream_closes_the_connection(rig: Rig) -> None:
    waiter = rig.send()
    rig.say(CHUNKED)
    (await waiter).release()
    assert rig.transport.aborted
    assert rig.diary == ["finished", "lost"]


# -- giving up -------------------------------------------------------------------------------------


async def test_giving_up_a_waiting_exchange_closes_the_connection(rig: Rig) -> None:
    waiter = rig.send()
    waiter.cancel()
    rig.connection.give_up(waiter)
    assert rig.diary == ["finished", "lost"]


async def test_giving_up_too_late_leaves_the_next_exchange_alone(rig: Rig) -> None:
    first = rig.send()
    rig.say(OK)
    second = rig.send()
    rig.connection.give_up(first)  # its coroutine was cancelled before it could take the answer
    rig.say(OK)
    assert (await second).body == b"ok"


async def test_giving_up_an_unread_stream_closes_its_connection(rig: Rig) -> None:
    waiter = rig.send()
    rig.say(CHUNKED)
    rig.connection.give_up(waiter)
    assert rig.diary == ["finished", "lost"]


@pytest.mark.parametrize(
    "head",
    [CHUNKED, b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: a\r\nConnection: upgrade\r\n\r\n"],
)
async def test_an_answer_that_comes_with_the_cancellation_is_let_go(rig: Rig, head: bytes) -> None:
    waiter = rig.send(upgrade=b"a")
    waiter.cancel()
    rig.say(head)  # in the same turn of the loop, before whoever waited runs again
    rig.connection.give_up(waiter)
    await settle()
    assert rig.diary == ["finished", "lost", "gone"]


async def test_an_aborted_exchange_fails_its_stream(rig: Rig) -> None:
    waiter = rig.send()
    rig.say(CHUNKED)
    stream = (await waiter).body
    assert isinstance(stream, BodyStream)
    rig.connection.abort()
    with pytest.raises(ConnectionResetError):
        await stream.read()


async def test_an_aborted_exchange_fails_its_answer(rig: Rig) -> None:
    waiter = rig.send()
    rig.connection.abort()
    assert await failure(waiter) == (Outcome.RESET, "the connection was given up")
    assert rig.diary == ["finished", "lost"]
