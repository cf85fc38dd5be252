"""Connections are taken off a socket, and wait there when there is nothing left to take them with."""

from __future__ import annotations

import asyncio
import logging
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from hms_addons.engine.acceptor import BATCH, COMPLAIN_EVERY, REST, SHORT_REST, Acceptor
from hms_addons.listening import listen
from tests.fakes.clock import FakeClock
from tests.fakes.files import no_files_left

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Greeter(asyncio.Protocol):
    """Says hello."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(b"hello")
        transport.close()


class Rig:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.room: list[int] = []
        self.asked = 0
        listening = listen("one", "127.0.0.1", 0)
        self.address = listening.getsockname()
        self.acceptor = Acceptor("one", listening, Greeter, self.clock, self._make_room)

    def _make_room(self) -> int:
        self.asked += 1
        return self.room.pop() if self.room else 0

    def connect(self) -> socket.socket:
        client = socket.create_connection(self.address)
        client.setblocking(False)
        return client


@asynccontextmanager
async def rig() -> AsyncIterator[Rig]:
    made = Rig()
    made.acceptor.start()
    yield made
    made.acceptor.close()
    made.acceptor.close()
    for _ in range(5):
        await asyncio.sleep(0)
    assert made.clock.pending == 0


async def heard(client: socket.socket) -> bytes:
    with client:
        return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 100), 5)


async def turns(count: int = 200) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_more_than_a_batch_is_taken() -> None:
    async with rig() as made:
        clients = [made.connect() for _ in range(BATCH + 5)]
        assert [await heard(client) for client in clients] == [b"hello"] * len(clients)
        assert repr(made.acceptor) == "<Acceptor one open>"
    assert repr(made.acceptor) == "<Acceptor one closed>"


@pytest.mark.parametrize(("freed", "rest"), [(0, REST), (3, SHORT_REST)])
async def test_out_of_files_it_rests_and_the_client_waits(
    caplog: pytest.LogCaptureFixture, freed: int, rest: float
) -> None:
    async with rig() as made:
        made.room = [freed]
        with no_files_left(spare=1):
            client = made.connect()
            await turns()
            assert made.asked == 1, "it is not asked again and again"
            assert repr(made.acceptor) == "<Acceptor one resting>"
        await made.clock.advance(rest)
        assert await heard(client) == b"hello"
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "one: no connection can be accepted for now: too many open files; raise this" in (
        record.message
    )
    assert ("3 idle ones are closed" in record.message) is bool(freed)


async def test_it_complains_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    async with rig() as made:
        with no_files_left(spare=1):
            client = made.connect()
            await turns()
            for _ in range(30):
                await made.clock.advance(REST)
                await turns(3)
            assert made.asked == 31
            assert len(caplog.records) == 1
            await made.clock.advance(COMPLAIN_EVERY)
            await turns(3)
            assert len(caplog.records) == 2
            client.close()


async def test_it_may_be_closed_while_it_rests() -> None:
    async with rig() as made:
        with no_files_left(spare=1):
            client = made.connect()
            await turns()
            made.acceptor.close()
        await made.clock.advance(2 * REST)
        assert repr(made.acceptor) == "<Acceptor one closed>"
        client.close()


async def test_a_protocol_that_cannot_be_made_costs_its_connection_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    made = Rig()

    def broken() -> asyncio.Protocol:
        raise RuntimeError("no such luck")

    acceptor = Acceptor("one", made.acceptor._listening, broken, made.clock, lambda: 0)
    acceptor.start()
    assert await heard(made.connect()) == b""
    assert await heard(made.connect()) == b""
    assert "no such luck" in caplog.text
    acceptor.close()
