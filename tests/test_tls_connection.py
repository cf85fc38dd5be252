from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hms_addons.identity import tls_context
from hms_addons.tls_connection import HANDSHAKE_TIMEOUT, TlsConnection
from tests.fakes import pki
from tests.fakes.clock import FakeClock
from tests.fakes.transport import FakeTransport

if TYPE_CHECKING:
    from collections.abc import Iterator


def server_context(*, require_peer: bool = True) -> ssl.SSLContext:
    svid = pki.svid("auth-svc")
    return tls_context.server_context(svid, pki.bundle(), require_peer=require_peer)


def client_context() -> ssl.SSLContext:
    return tls_context.client_context(pki.svid("claims-svc"), pki.bundle())


def anonymous_context() -> ssl.SSLContext:
    """Of a client without a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=pki.bundle().to_pem().decode())
    return context


class Inner(asyncio.Protocol):
    """The protocol inside: keeps all that it is told."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.events: list[str] = []
        self.error: Exception | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.events.append("made")

    def data_received(self, data: bytes) -> None:
        self.received += data

    def eof_received(self) -> bool:
        self.events.append("eof")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.events.append("lost")
        self.error = exc

    def pause_writing(self) -> None:
        self.events.append("pause")

    def resume_writing(self) -> None:
        self.events.append("resume")


class Side:
    """One end: its TLS, the protocol inside, and the fake socket below."""

    def __init__(self, context: ssl.SSLContext, clock: FakeClock, *, server: bool) -> None:
        self.inner = Inner()
        self.failures: list[Exception] = []
        self.tls = TlsConnection(
            context,
            lambda: self.inner,
            clock,
            server_side=server,
            on_failed=self.failures.append,
        )
        self.raw = FakeTransport(self.tls)
        self.taken = 0

    def outgoing(self) -> bytes:
        """What was written since the last look."""
        data = bytes(self.raw.sent[self.taken :])
        self.taken += len(data)
        return data


class Pair:
    """Two connections back to back; nothing arrives until `run` carries it over."""

    def __init__(
        self, server: ssl.SSLContext | None = None, client: ssl.SSLContext | None = None
    ) -> None:
        self.clock = FakeClock()
        self.server = Side(server or server_context(), self.clock, server=True)
        self.client = Side(client or client_context(), self.clock, server=False)

    def run(self, sizes: Iterator[int] | None = None) -> None:
        """Carry bytes both ways, in pieces of `sizes`, until there are none."""
        moved = True
        while moved:
            moved = False
            for source, target in ((self.client, self.server), (self.server, self.client)):
                data = source.outgoing()
                moved = moved or bool(data)
                while data and not target.raw.lost:
                    size = next(sizes, len(data)) if sizes is not None else len(data)
                    target.tls.data_received(data[:size])
                    data = data[size:]

    def shake_hands(self) -> None:
        self.run()
        assert self.server.inner.events == ["made"]
        assert self.client.inner.events == ["made"]


@pytest.fixture
async def pair() -> Pair:
    made = Pair()
    made.shake_hands()
    return made


async def turn() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_a_handshake_tells_both_sides_who_is_there(pair: Pair) -> None:
    for side, peer in ((pair.server, "claims-svc"), (pair.client, "auth-svc")):
        found = tls_context.verify_peer(
            side.tls.get_extra_info("ssl_object"), None, pki.TRUST_DOMAIN
        )
        assert str(found) == f"spiffe://{pki.TRUST_DOMAIN}/svc/{peer}"
        assert side.tls.get_protocol() is side.inner
        assert side.failures == []
        assert repr(side.tls) == "<TlsConnection open>"
    assert pair.clock.pending == 0
    assert pair.server.tls.get_extra_info("peername") == ("192.0.2.7", 40000)


async def test_it_is_said_when_the_handshake_is_done() -> None:
    pair = Pair()
    done: list[list[str]] = []
    pair.client.tls.on_handshaken = lambda: done.append(list(pair.client.inner.events))
    assert "handshake" in repr(pair.client.tls)
    pair.run()
    assert done == [["made"]]


@pytest.mark.parametrize("size", [1, 16 * 1024, 16 * 1024 + 1, 256 * 1024, 1024 * 1024])
async def test_data_both_ways(pair: Pair, size: int) -> None:
    data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    pair.client.tls.write(data)
    pair.server.tls.writelines([data[:1], data[1:]])
    pair.run()
    assert pair.server.inner.received == data
    assert pair.client.inner.received == data


@given(data=st.binary(max_size=300), sizes=st.lists(st.integers(1, 900), max_size=60))
@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
def test_cut_anywhere(data: bytes, sizes: list[int]) -> None:
    async def run() -> None:
        pair = Pair()
        cuts = iter(sizes)
        pair.run(cuts)
        pair.client.tls.write(data * 100)
        pair.server.tls.write(data)
        pair.run(cuts)
        assert pair.server.inner.received == data * 100
        assert pair.client.inner.received == data

    asyncio.run(run())


async def test_data_that_arrives_together_with_finished() -> None:
    """TLS 1.3: the client's first request follows its Finished without a round trip."""
    pair = Pair()
    pair.server.tls.data_received(pair.client.outgoing())
    pair.client.tls.data_received(pair.server.outgoing())
    pair.client.tls.write(b"GET / HTTP/1.1\r\n\r\n")
    pair.server.tls.data_received(pair.client.outgoing())
    assert pair.server.inner.received == b"GET / HTTP/1.1\r\n\r\n"


async def test_close_is_seen_as_the_end(pair: Pair) -> None:
    pair.client.tls.write(b"last words")
    pair.client.tls.close()
    pair.client.tls.close()
    pair.run()
    await turn()
    assert pair.server.inner.received == b"last words"
    assert pair.server.inner.events == ["made", "eof", "lost"]
    assert pair.client.inner.events == ["made", "lost"]
    assert pair.server.inner.error is None
    assert pair.client.inner.error is None
    assert pair.server.failures == pair.client.failures == []
    assert repr(pair.client.tls) == "<TlsConnection closing>"


async def test_an_end_without_close_notify_is_a_cut(pair: Pair) -> None:
    """Else anybody on the wire could shorten a body that ends with its connection."""
    pair.server.raw.leave()
    await turn()
    assert pair.server.inner.events == ["made", "lost"]
    assert isinstance(pair.server.inner.error, ConnectionResetError)


async def test_a_reset_reaches_the_protocol_inside(pair: Pair) -> None:
    pair.server.raw.reset()
    assert isinstance(pair.server.inner.error, ConnectionResetError)


async def test_abort_sends_no_close_notify(pair: Pair) -> None:
    pair.client.tls.abort()
    assert pair.client.raw.aborted
    assert pair.client.outgoing() == b""
    await turn()
    assert pair.client.inner.events == ["made", "lost"]


@pytest.mark.parametrize("end", ["close", "abort"])
async def test_write_after_the_end_is_ignored(pair: Pair, end: str) -> None:
    getattr(pair.client.tls, end)()
    before = len(pair.client.raw.sent)
    pair.client.tls.write(b"too late")
    assert len(pair.client.raw.sent) == before
    assert pair.client.tls.is_closing()


async def test_bytes_that_are_no_tls_end_it(pair: Pair) -> None:
    pair.server.tls.data_received(b"\x17\x03\x03\x00\x20" + b"forged" * 6)
    await turn()
    assert pair.server.raw.aborted
    assert isinstance(pair.server.inner.error, ssl.SSLError)
    assert pair.server.inner.received == b""


async def test_a_client_without_a_certificate_is_told_why() -> None:
    pair = Pair(client=anonymous_context())
    pair.run()
    await turn()
    assert pair.server.inner.events == []
    [why] = pair.server.failures
    assert "peer did not return a certificate" in str(why).lower().replace("_", " ")
    # The client had finished its half: the alert is the first thing it reads.
    assert pair.client.inner.events == ["made", "lost"]
    assert "alert" in str(pair.client.inner.error).lower()
    assert pair.clock.pending == 0


async def test_a_server_of_another_ca_is_refused_with_an_alert() -> None:
    stranger = pki.svid("auth-svc", trust_domain="other.example")
    other = tls_context.server_context(stranger, pki.bundle("other.example"), require_peer=True)
    pair = Pair(server=other)
    pair.run()
    await turn()
    [why] = pair.client.failures
    assert isinstance(why, ssl.SSLCertVerificationError)
    assert "alert" in str(pair.server.failures[0]).lower()
    assert pair.client.inner.events == pair.server.inner.events == []


async def test_a_client_that_speaks_plainly_is_refused() -> None:
    pair = Pair()
    pair.server.tls.data_received(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    await turn()
    assert len(pair.server.failures) == 1
    assert pair.server.raw.lost
    assert pair.server.inner.events == []


async def test_a_handshake_has_its_time() -> None:
    pair = Pair()
    await pair.clock.advance(HANDSHAKE_TIMEOUT - 0.01)
    assert not pair.server.raw.is_closing()
    await pair.clock.advance(0.02)
    [why] = pair.server.failures
    assert isinstance(why, TimeoutError)
    assert "10 s" in str(why)
    assert pair.server.raw.lost
    assert pair.clock.pending == 0


async def test_a_peer_that_leaves_in_the_handshake_is_told_of_once() -> None:
    pair = Pair()
    pair.server.raw.leave()
    await turn()
    assert len(pair.server.failures) == 1
    assert pair.clock.pending == 1, "only the client still waits"


async def test_backpressure_is_passed_on(pair: Pair) -> None:
    pair.client.raw.stalled = True
    pair.client.tls.write(bytes(200_000))
    assert pair.client.inner.events[-1] == "pause"
    assert pair.client.tls.get_write_buffer_size() >= 200_000
    pair.client.raw.release()
    assert pair.client.inner.events[-1] == "resume"
    pair.server.tls.pause_reading()
    assert not pair.server.raw.reading
    assert not pair.server.tls.is_reading()
    pair.server.tls.resume_reading()
    assert pair.server.raw.reading


async def test_it_cannot_be_half_closed(pair: Pair) -> None:
    assert not pair.server.tls.can_write_eof()


async def test_over_real_sockets_with_the_standard_librarys_own_client() -> None:
    """What we speak is TLS, not just something that both our ends understand."""

    class Echo(Inner):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport: Any = transport
            assert isinstance(self.transport, TlsConnection)

        def data_received(self, data: bytes) -> None:
            self.transport.write(data)

    failures: list[Exception] = []
    loop = asyncio.get_running_loop()
    context = server_context()

    def accept() -> Any:
        return TlsConnection(
            context, Echo, FakeClock(), server_side=True, on_failed=failures.append
        )

    server = await loop.create_server(accept, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(
        *server.sockets[0].getsockname(), ssl=client_context()
    )
    data = bytes(range(256)) * 1024
    writer.write(data)
    async with asyncio.timeout(10):
        assert await reader.readexactly(len(data)) == data
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()
    assert failures == []
