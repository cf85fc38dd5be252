"""Queries that are passed on, over real sockets on loopback; time stands still."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from hms_addons.dns.forwarder import PATIENCE, Forwarder
from hms_addons.dns.wire import parse_query
from tests.dns.queries import foreign_answer, query
from tests.dns.resolver import ADDRESS, Resolver, knows, resolver, silent
from tests.fakes.clock import FakeClock

DATA = query("example.com") + b"\0\0\x29\x10\0\0\0\0\0\0\0"
QUERY = parse_query(DATA)


async def asked(forwarder: Forwarder, *resolvers: Resolver, stream: bool = False) -> bytes | None:
    async with asyncio.timeout(30):
        addresses = [one.address for one in resolvers]
        return await forwarder.ask(QUERY, DATA, addresses, stream=stream)


@pytest.mark.parametrize("stream", [False, True])
async def test_query_and_answer_pass_byte_for_byte(stream: bool) -> None:
    forwarder = Forwarder(FakeClock())
    async with resolver() as there:
        assert await asked(forwarder, there, stream=stream) == foreign_answer(DATA, ADDRESS)
        assert [data for data, _ in there.asked] == [DATA]
    assert not forwarder.own


async def test_what_does_not_answer_the_query_is_not_its_answer() -> None:
    """A forged one, that comes first, with another identifier or for another name."""
    forged = [foreign_answer(query("example.com", identifier=8), b"\6\6\6\6"), b"x"]
    forged.append(foreign_answer(query("example.org"), b"\6\6\6\6"))
    async with resolver(lambda data: [*forged, *knows(data)]) as there:
        assert await asked(Forwarder(FakeClock()), there) == foreign_answer(DATA, ADDRESS)
    async with resolver(lambda data: forged[:1]) as there:
        assert await asked(Forwarder(FakeClock()), there, stream=True) is None


@pytest.mark.parametrize("stream", [False, True])
async def test_the_next_is_asked_when_one_is_away_or_silent(stream: bool) -> None:
    clock = FakeClock()
    async with resolver() as gone:
        pass
    async with resolver(silent) as mute, resolver() as there:
        task = asyncio.create_task(asked(Forwarder(clock), gone, mute, there, stream=stream))
        async with asyncio.timeout(30):
            await mute.arrived.wait()
        await clock.advance(PATIENCE)
        assert await task == foreign_answer(DATA, ADDRESS)


async def test_a_packet_may_be_lost_once() -> None:
    clock = FakeClock()
    async with resolver(silent) as there:
        task = asyncio.create_task(asked(Forwarder(clock), there))
        async with asyncio.timeout(30):
            await there.arrived.wait()
        there.say = knows
        await clock.advance(PATIENCE)
        assert await task == foreign_answer(DATA, ADDRESS)
        first, second = there.asked
        assert first[1] != second[1], "each goes out of a port of its own"


async def test_nobody_knows() -> None:
    async with resolver() as gone:
        pass
    for stream in (False, True):
        assert await asked(Forwarder(FakeClock()), gone, stream=stream) is None
    assert await asked(Forwarder(FakeClock())) is None


@pytest.mark.parametrize("stream", [False, True])
async def test_the_sockets_that_ask_are_known_and_cancelling_closes_them(stream: bool) -> None:
    clock = FakeClock()
    forwarder = Forwarder(clock)
    async with resolver(silent) as there:
        task = asyncio.create_task(asked(forwarder, there, stream=stream))
        async with asyncio.timeout(30):
            await there.arrived.wait()
        assert forwarder.own == {there.asked[0][1]}
        assert repr(forwarder) == "<Forwarder waiting=1>"
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    assert not forwarder.own
    assert clock.pending == 0
