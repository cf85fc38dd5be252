"""Bound ports and their TLS, over real sockets."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import pytest
from cryptography import x509

from hms_addons.clock import SYSTEM_CLOCK
from hms_addons.engine import listener as listener_module
from hms_addons.engine.listener import PortListener
from hms_addons.identity.tls_context import client_context, server_context
from hms_addons.listening import ListenError
from tests.fakes import pki
from tests.fakes.files import no_files_left
from tests.fakes.lane import FakeLane

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

GET = b"GET /a HTTP/1.1\r\nHost: a.svc\r\n\r\n"


@asynccontextmanager
async def listening(
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[tuple[PortListener, FakeLane]]:
    """An open listener, closed with all its connections at the end."""
    lane = FakeLane()
    listener = PortListener("peers", lane, SYSTEM_CLOCK)
    listener.open("127.0.0.1", 0, tls)
    try:
        yield listener, lane
    finally:
        listener.close()
        for connection in tuple(lane.connections):
            connection.abort()
        for _ in range(5):
            await asyncio.sleep(0)


class Client:
    """A connection that asks and reads one answer."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def to(cls, listener: PortListener, tls: ssl.SSLContext | None = None) -> Client:
        assert listener.address is not None
        name = "" if tls else None
        opening = asyncio.open_connection(*listener.address, ssl=tls, server_hostname=name)
        return cls(*await asyncio.wait_for(opening, 5))

    async def get(self) -> bytes:
        self.writer.write(GET)
        return await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 5)

    @property
    def serial(self) -> int:
        """Of the certificate that the listener has shown."""
        der = self.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return x509.load_der_x509_certificate(der).serial_number

    async def close(self) -> None:
        self.writer.close()
        with suppress(ConnectionError, ssl.SSLError):  # the other end may have been faster
            await asyncio.wait_for(self.writer.wait_closed(), 5)


def server_of(service: str) -> ssl.SSLContext:
    return server_context(pki.svid(service), pki.bundle(), require_peer=True)


def client_of() -> ssl.SSLContext:
    return client_context(pki.svid("claims-svc"), pki.bundle())


def anonymous() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=pki.bundle().to_pem().decode())
    return context


async def test_port_0_is_a_free_one_and_serves() -> None:
    async with listening() as (listener, lane):
        assert listener.address is not None
        assert listener.address[1] > 0
        assert repr(listener) == f"<PortListener peers 127.0.0.1:{listener.address[1]}>"
        client = await Client.to(listener)
        assert (await client.get()).startswith(b"HTTP/1.1 200 OK\r\n")
        assert [seen.target for seen in lane.seen] == ["/a"]
        await client.close()


async def test_close_stops_accepting_and_what_is_there_goes_on() -> None:
    async with listening() as (listener, _):
        address = listener.address
        assert address is not None
        client = await Client.to(listener)
        await client.get()
        listener.close()
        listener.close()
        assert listener.address is None
        assert repr(listener) == "<PortListener peers closed>"
        with pytest.raises(ConnectionRefusedError):
            await asyncio.wait_for(asyncio.open_connection(*address), 5)
        assert (await client.get()).startswith(b"HTTP/1.1 200 ")
        await client.close()


async def test_an_occupied_port_is_named_with_a_remedy() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        listener = PortListener("peers", FakeLane(), SYSTEM_CLOCK)
        with pytest.raises(ListenError) as caught:
            listener.open("127.0.0.1", port)
    message = str(caught.value)
    assert message.startswith(f"listener 'peers' cannot listen on 127.0.0.1:{port}: the port is in")
    assert f"ss -ltnp 'sport = :{port}'" in message
    assert listener.address is None


async def test_an_address_of_another_machine_is_refused() -> None:
    listener = PortListener("peers", FakeLane(), SYSTEM_CLOCK)
    with pytest.raises(ListenError, match="listener 'peers' cannot listen on 192.0.2.1:15006: "):
        listener.open("192.0.2.1", 15006)


async def test_a_closed_port_can_be_opened_again_at_once() -> None:
    async with listening() as (listener, _):
        assert listener.address is not None
        host, port = listener.address
        client = await Client.to(listener)
        await client.get()
        listener.close()
        await asyncio.sleep(0)
        listener.open(host, port)
        again = await Client.to(listener)
        assert (await again.get()).startswith(b"HTTP/1.1 200 ")
        await client.close()
        await again.close()


async def test_a_new_identity_is_one_assignment() -> None:
    async with listening(server_of("auth-svc")) as (listener, _):
        old = await Client.to(listener, client_of())
        await old.get()
        listener.tls = server_of("pay-svc")
        new = await Client.to(listener, client_of())
        assert old.serial == pki.svid("auth-svc").serial
        assert new.serial == pki.svid("pay-svc").serial
        assert (await old.get()).startswith(b"HTTP/1.1 200 "), "the old connection goes on"
        assert (await new.get()).startswith(b"HTTP/1.1 200 ")
        await old.close()
        await new.close()


async def test_a_refused_handshake_is_logged_and_the_client_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "hms_addons.engine.listener")
    async with listening(server_of("auth-svc")) as (listener, lane):
        # With TLS 1.3 the client's handshake is over before the server has looked at its certificate.
        client = await Client.to(listener, anonymous())
        with pytest.raises(ssl.SSLError, match="(?i)certificate.required"):
            await client.get()
        await client.close()
        assert lane.connections == set()
        assert "listener peers: a TLS handshake failed: " in caplog.text
        good = await Client.to(listener, client_of())
        assert (await good.get()).startswith(b"HTTP/1.1 200 "), "others are served"
        await good.close()


async def test_plain_text_to_a_tls_port_serves_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "hms_addons.engine.listener")
    async with listening(server_of("auth-svc")) as (listener, lane):
        client = await Client.to(listener)
        client.writer.write(GET)
        answer = await asyncio.wait_for(client.reader.read(), 5)
        assert b"HTTP/1.1 200" not in answer
        assert lane.seen == []
        assert "a TLS handshake failed" in caplog.text
        await client.close()


async def test_a_bound_port_makes_clients_wait_until_it_accepts() -> None:
    listener = PortListener("peers", FakeLane(), SYSTEM_CLOCK)
    listener.bind("127.0.0.1", 0)
    client = await Client.to(listener)
    asking = asyncio.create_task(client.get())
    done, _ = await asyncio.wait({asking}, timeout=0.05)
    assert not done
    listener.accept()
    assert (await asking).startswith(b"HTTP/1.1 200 ")
    await client.close()
    listener.close()


async def test_of_too_many_handshakes_the_oldest_is_given_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(listener_module, "HANDSHAKES", 2)
    caplog.set_level(logging.INFO, "hms_addons.engine.listener")
    async with listening(server_of("auth-svc")) as (listener, lane):
        silent = [await Client.to(listener) for _ in range(3)]
        assert await asyncio.wait_for(silent[0].reader.read(), 5) == b""
        assert "closed in the handshake" in caplog.text
        assert len(listener._shaking) == 2
        good = await Client.to(listener, client_of())  # at the cost of the next
        assert (await good.get()).startswith(b"HTTP/1.1 200 ")
        assert await asyncio.wait_for(silent[1].reader.read(), 5) == b""
        assert len(listener._shaking) == 1
        assert len(lane.connections) == 1
        await good.close()
        listener.close()
        assert await asyncio.wait_for(silent[2].reader.read(), 5) == b"", "closed with the port"
        for client in silent:
            await client.close()
    assert not listener._shaking


async def test_when_no_more_can_be_opened_the_longest_idle_are_closed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with listening() as (listener, lane):
        clients = []
        for _ in range(3):
            clients.append(client := await Client.to(listener))
            await client.get()
        busy = clients[0]
        busy.writer.write(b"GET /b HTTP/1.1\r\nHost:")
        await busy.writer.drain()
        while lane_idle(lane) == 3:  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0.001)
        with no_files_left(spare=1):
            late = socket.socket()
            late.setblocking(False)
            assert listener.address is not None
            with suppress(BlockingIOError):
                late.connect(listener.address)
            # Both idle ones go, which makes room for the new one.
            for client in clients[1:]:
                assert await asyncio.wait_for(client.reader.read(), 5) == b""
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(late, GET)
            assert (await asyncio.wait_for(loop.sock_recv(late, 100), 5)).startswith(
                b"HTTP/1.1 200"
            )
            late.close()
        busy.writer.write(b" a\r\n\r\n")
        assert (await asyncio.wait_for(busy.reader.readuntil(b"\r\n\r\n"), 5)).startswith(
            b"HTTP/1.1 2"
        )
        assert caplog.text.count("no connection can be accepted for now: too many open files") == 1
        assert "2 idle ones are closed" in caplog.text
        for client in clients:
            await client.close()


def lane_idle(lane: FakeLane) -> int:
    return sum(connection.idle for connection in lane.connections)
