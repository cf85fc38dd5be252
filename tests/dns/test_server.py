"""One DNS listener, over real sockets on loopback; time stands still."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from hms_addons.config.snapshot_interception import DnsListener
from hms_addons.dns import server as server_module
from hms_addons.dns.server import IDLE, DnsServer
from hms_addons.listening import ListenError
from tests.dns.queries import query, read
from tests.dns.resolver import ADDRESS, resolver, silent
from tests.fakes.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

HERE = b"\x7f\0\0\x01"
SERVFAIL, NXDOMAIN, REFUSED = 2, 3, 5


def listener(**changes: Any) -> DnsListener:
    settings: dict[str, Any] = {
        "name": "names",
        "host": "127.0.0.1",
        "port": 0,
        "services": frozenset({"auth-svc"}),
    }
    return DnsListener(**settings | changes)


class Client:
    """Asks the server; each query out of a socket of its own."""

    def __init__(self, server: DnsServer, clock: FakeClock) -> None:
        self.server = server
        self.clock = clock
        assert server.address is not None
        self.address = server.address

    async def ask(self, data: bytes) -> bytes:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.setblocking(False)
            asking.connect(self.address)
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(30):
                await loop.sock_sendall(asking, data)
                return await loop.sock_recv(asking, 65535)

    async def stream(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(*self.address)

    async def ask_stream(self, *queries: bytes) -> list[bytes]:
        reader, writer = await self.stream()
        try:
            async with asyncio.timeout(30):
                for data in queries:
                    writer.write(len(data).to_bytes(2) + data)
                return [
                    await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
                    for _ in queries
                ]
        finally:
            writer.close()
            await writer.wait_closed()


@asynccontextmanager
async def running(**changes: Any) -> AsyncIterator[Client]:
    clock = FakeClock()
    server = DnsServer(listener(**changes), clock, system=lambda: ())
    server.bind()
    server.start()
    try:
        yield Client(server, clock)
    finally:
        await server.close()
        assert server.address is None
        assert clock.pending == 0


async def test_the_meshs_names_by_udp_and_tcp() -> None:
    async with running() as client:
        assert read(await client.ask(query("auth-svc.svc"))) == (0, [HERE])
        both = await client.ask_stream(query("Auth-svc.SVC."), query("nope.svc"))
        assert list(map(read, both)) == [(0, [HERE]), (NXDOMAIN, [])]
        assert client.server.counts == {"answered": 2, "unknown": 1}


async def test_all_others_are_passed_on() -> None:
    async with resolver() as there, running(resolvers=(there.address,)) as client:
        assert read(await client.ask(query("example.com"))) == (0, [ADDRESS])
        (reply,) = await client.ask_stream(query("example.org"))
        assert read(reply) == (0, [ADDRESS])
        assert [data for data, _ in there.asked] == [query("example.com"), query("example.org")]
        assert client.server.counts == {"forwarded": 2}
        await client.ask(query("nope.svc"))
        assert len(there.asked) == 2, "a name of the mesh's is told to nobody"


async def test_the_systems_resolvers_are_asked_unless_others_are_named() -> None:
    async with resolver() as there, running() as client:
        client.server._system = lambda: (there.address,)
        assert read(await client.ask(query("example.com"))) == (0, [ADDRESS])


async def test_or_they_are_refused() -> None:
    async with running(forwards=False) as client:
        assert read(await client.ask(query("example.com"))) == (REFUSED, [])
        assert client.server.counts == {"refused": 1}


async def test_what_is_malformed() -> None:
    async with running() as client:
        assert read(await client.ask(query("a.svc")[:-1]))[0] == 1
        reader, writer = await client.stream()
        writer.write(b"\0\x03abc")
        assert await reader.read() == b"", "what cannot be answered ends the connection"
        writer.close()
        await writer.wait_closed()
        assert client.server.counts == {"malformed": 2}


async def test_nobody_to_ask_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    async with running() as client:
        client.server._system = lambda: (client.address,)
        for _ in range(3):
            assert read(await client.ask(query("example.com"))) == (SERVFAIL, [])
        assert client.server.counts == {"failed": 3}
    (line,) = [record.message for record in caplog.records]
    assert "names none but this listener" in line
    assert "dns: {resolvers" in line


async def test_a_query_of_its_own_that_comes_back_is_not_sent_round_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    # As where the machine leads it back: who has asked is this server.
    async with resolver(silent) as there, running(resolvers=(there.address,)) as client:
        task = asyncio.create_task(client.ask(query("example.com")))
        async with asyncio.timeout(30):
            await there.arrived.wait()
        data, peer = there.asked[0]
        reply = client.server._reply(data, peer)
        assert isinstance(reply, bytes)
        assert read(reply) == (SERVFAIL, [])
        assert client.server.counts["looped"] == 1
        there._packets.sendto(reply, peer)
        assert read(await task) == (SERVFAIL, [])
    assert "hms iptables up --uid" in caplog.text


async def test_queries_that_wait_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "PASSED_ON", 1)
    async with resolver(silent) as there, running(resolvers=(there.address,)) as client:
        task = asyncio.create_task(client.ask(query("example.com")))
        async with asyncio.timeout(30):
            await there.arrived.wait()
        assert client.server.waiting == 1
        assert "waiting=1" in repr(client.server)
        assert read(await client.ask(query("example.org"))) == (SERVFAIL, [])
        assert read(await client.ask(query("auth-svc.svc"))) == (0, [HERE]), "own names need nobody"
        assert client.server.counts == {"overflow": 1, "answered": 1}
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "STREAMS", 1)
    async with running() as client:
        reader, writer = await client.stream()
        data = query("auth-svc.svc")
        writer.write(len(data).to_bytes(2) + data)
        await reader.readexactly(2)
        other, leaving = await client.stream()
        assert await other.read() == b""
        for one in (writer, leaving):
            one.close()
            await one.wait_closed()
        assert client.server.counts["overflow"] == 1


async def test_a_connection_that_asks_nothing_is_closed() -> None:
    async with running() as client:
        reader, writer = await client.stream()
        writer.write(b"\0")
        await client.ask(query("auth-svc.svc"))  # by then the connection is being served
        assert client.clock.pending == 1
        await client.clock.advance(IDLE)
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()


async def test_another_configuration_of_the_same_address() -> None:
    async with running() as client:
        client.server.configure(listener(services=frozenset({"pay"}), addresses=("10.0.0.1",)))
        assert read(await client.ask(query("pay.svc"))) == (0, [b"\x0a\0\0\x01"])
        assert read(await client.ask(query("auth-svc.svc"))) == (NXDOMAIN, [])


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
async def test_an_address_that_is_taken_is_said(kind: socket.SocketKind) -> None:
    with socket.socket(socket.AF_INET, kind) as holder:
        holder.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            holder.listen()
        server = DnsServer(listener(port=holder.getsockname()[1]), FakeClock())
        with pytest.raises(
            ListenError, match=r"listener 'names' \(dns\) cannot listen on .*in use"
        ):
            server.bind()
        assert server.address is None
        await server.close()
