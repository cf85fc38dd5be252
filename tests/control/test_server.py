"""The control plane's port over real sockets and real TLS."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509

from hms_addons.clock import SYSTEM_CLOCK
from hms_addons.control.ca.authority import CertificateAuthority
from hms_addons.control.server import ControlServer
from hms_addons.control.server_protocol import Limits
from hms_addons.identity.tls_context import client_context
from hms_addons.listening import listen
from hms_addons.tasks import TaskSet
from tests.fakes import pki
from tests.fakes.asgi import Echo

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"


async def until(check: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not check():  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0.01)


async def ask_in_vain(client: Client) -> str:
    """Why there is no answer."""
    client.writer.write(GET)
    try:
        await asyncio.wait_for(client.reader.readuntil(b"\r\n\r\n"), 5)
    except (ssl.SSLError, ConnectionError, asyncio.IncompleteReadError) as error:
        return str(error)
    raise AssertionError("it was answered")


class Running:
    """A server on a free port, and what it serves."""

    def __init__(self, **options: Any) -> None:
        self.app = Echo()
        self.server = ControlServer(self.app, SYSTEM_CLOCK, **options)
        self.tasks = TaskSet("test")
        self.port = 0

    async def start(self) -> None:
        self.server.use(pki.svid("control"), pki.bundle())
        listening = listen("test", "127.0.0.1", 0)
        self.port = listening.getsockname()[1]
        self.tasks.start(self.server.run_on(listening), "server")
        await asyncio.wait_for(self.server.ready.wait(), 5)

    async def stop(self) -> None:
        self.server.stop()
        await until(lambda: not len(self.tasks))

    async def connect(self, context: ssl.SSLContext) -> Client:
        opening = asyncio.open_connection("127.0.0.1", self.port, ssl=context, server_hostname="")
        return Client(*await asyncio.wait_for(opening, 5))


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def ask(self, request: bytes = GET) -> bytes:
        """The answer's body; empty if the connection was closed without one."""
        self.writer.write(request)
        return await self.answer()

    async def answer(self) -> bytes:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 5)
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            return await self.reader.readexactly(length)
        return b""

    @property
    def serial(self) -> int:
        der = self.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return x509.load_der_x509_certificate(der).serial_number

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await asyncio.wait_for(self.writer.wait_closed(), 5)


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    made = Running()
    await made.start()
    yield made
    made.app.released.set()
    await made.stop()
    assert made.server.open_connections == 0


def anonymous() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=pki.bundle().to_pem().decode())
    return context


async def test_a_client_certificate_is_optional(running: Running) -> None:
    client = await running.connect(anonymous())
    assert await client.ask() == b"GET /a nobody 0"
    assert await client.ask() == b"GET /a nobody 0"
    await client.close()


async def test_the_application_learns_who_called(running: Running) -> None:
    client = await running.connect(client_context(pki.svid("claims-svc"), pki.bundle()))
    assert await client.ask() == b"GET /a spiffe://mpsa.mil/svc/claims-svc 0"
    await client.close()


async def test_a_certificate_of_another_ca_fails_the_handshake(running: Running) -> None:
    stranger = pki.svid("claims-svc", authority=CertificateAuthority.create("mpsa.mil"))
    # TLS 1.3: the client is done before the server has looked, and learns it when it reads.
    client = await running.connect(client_context(stranger, pki.bundle()))
    assert "UNKNOWN_CA" in await ask_in_vain(client)
    await client.close()
    assert not running.app.scopes


@pytest.mark.parametrize("kind", ["no_uri", "two_uris", "other_trust_domain", "cert_sign"])
async def test_a_certificate_of_ours_that_is_no_svid_does_not_count(
    running: Running, kind: str, tmp_path: Path
) -> None:
    context = pki.context_presenting(pki.bad_svid(kind), tmp_path, server=False)
    client = await running.connect(context)
    answer = await client.ask()
    assert b"not an X.509-SVID" in answer or b"not of the trust domain" in answer
    await client.close()


async def test_a_renewed_certificate_is_shown_without_dropping_a_connection(
    running: Running,
) -> None:
    before = await running.connect(anonymous())
    await before.ask()
    renewed = pki.svid("control", authority=pki.ca())
    running.server.use(renewed, pki.bundle())
    after = await running.connect(anonymous())
    assert await before.ask() == b"GET /a nobody 0"
    assert await after.ask() == b"GET /a nobody 0"
    assert after.serial == renewed.serial != before.serial
    await before.close()
    await after.close()


async def test_a_retired_root_lets_nobody_in_any_more(running: Running) -> None:
    old, new = pki.ca(), CertificateAuthority.create("mpsa.mil")
    caller = client_context(pki.svid("claims-svc"), old.bundle.with_roots(new.bundle.roots))
    both = old.trusting(new.bundle.roots).bundle
    running.server.use(pki.svid("control"), both)
    idle, waiting = await running.connect(caller), await running.connect(caller)
    assert await idle.ask() == b"GET /a spiffe://mpsa.mil/svc/claims-svc 0"
    waiting.writer.write(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
    await until(lambda: running.app.waiting)

    running.server.use(pki.svid("control", authority=new), new.bundle)
    assert await asyncio.wait_for(idle.reader.read(), 5) == b""  # closed, unasked
    running.app.released.set()
    assert (await waiting.answer()).startswith(b"GET /wait spiffe://mpsa.mil/svc/claims-svc")
    assert await asyncio.wait_for(waiting.reader.read(), 5) == b""
    fresh = await running.connect(caller)
    assert "UNKNOWN_CA" in await ask_in_vain(fresh)
    for client in (idle, waiting, fresh):
        await client.close()


async def test_a_retired_root_is_no_concern_of_others(running: Running) -> None:
    """They may be about to ask: to close them would cost a request."""
    old, new = pki.ca(), CertificateAuthority.create("mpsa.mil")
    both = old.trusting(new.bundle.roots).bundle
    running.server.use(pki.svid("control"), both)
    renewed = client_context(pki.svid("claims-svc", authority=new.subordinate()), both)
    clients = [await running.connect(context) for context in (anonymous(), renewed)]
    for client in clients:
        await client.ask()
    running.server.use(pki.svid("control", authority=new), new.bundle)
    assert await clients[0].ask() == b"GET /a nobody 0"
    assert await clients[1].ask() == b"GET /a spiffe://mpsa.mil/svc/claims-svc 0"
    for client in clients:
        await client.close()


async def test_a_new_root_beside_the_old_one_closes_nothing(running: Running) -> None:
    client = await running.connect(anonymous())
    await client.ask()
    more = CertificateAuthority.create("mpsa.mil").bundle.roots
    running.server.use(pki.svid("control"), pki.bundle().with_roots(more))
    assert await client.ask() == b"GET /a nobody 0"
    await client.close()


async def test_connections_are_bounded() -> None:
    running = Running(max_connections=2)
    await running.start()
    one, two = await running.connect(anonymous()), await running.connect(anonymous())
    with pytest.raises((ConnectionError, ssl.SSLError)):
        await running.connect(anonymous())
    assert await one.ask() == b"GET /a nobody 0"
    assert repr(running.server) == "<ControlServer mpsa.mil connections=2>"
    await two.close()
    await until(lambda: running.server.open_connections == 1)
    three = await running.connect(anonymous())
    assert await three.ask() == b"GET /a nobody 0"
    await one.close()
    await three.close()
    await running.stop()


async def test_what_speaks_no_tls_is_closed_and_not_counted(running: Running) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    writer.write(GET)
    await asyncio.wait_for(reader.read(), 5)  # an alert
    writer.close()
    await until(lambda: not running.server.open_connections)


async def test_limits_are_the_connections() -> None:
    running = Running(limits=Limits(head_bytes=100))
    await running.start()
    client = await running.connect(anonymous())
    answer = await client.ask(b"GET / HTTP/1.1\r\nX: " + b"y" * 200 + b"\r\n\r\n")
    assert b'"status": 431' in answer
    await client.close()
    await running.stop()


async def test_stopping_answers_what_is_in_flight_and_closes_what_is_idle(
    running: Running,
) -> None:
    idle, waiting = await running.connect(anonymous()), await running.connect(anonymous())
    await idle.ask()
    waiting.writer.write(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
    await until(lambda: running.app.waiting)
    running.server.stop()
    assert await asyncio.wait_for(idle.reader.read(), 5) == b""
    running.app.released.set()
    assert (await waiting.answer()).startswith(b"GET /wait")
    assert await asyncio.wait_for(waiting.reader.read(), 5) == b""
    with pytest.raises(ConnectionError):
        await running.connect(anonymous())
    await idle.close()
    await waiting.close()
