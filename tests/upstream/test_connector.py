"""Real connections: TCP, mutual TLS, the wrong peer, and what the refusals are called."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import random
import socket
import time
from typing import TYPE_CHECKING, Any

import pytest

from hms_addons.clock import SYSTEM_CLOCK
from hms_addons.config.snapshot import EndpointSpec, RetryPolicy, UpstreamTls
from hms_addons.control.ca.authority import CertificateAuthority
from hms_addons.errors import ExchangeFailed, Flag
from hms_addons.identity import tls_context
from hms_addons.identity.identity_holder import Identity, SecretMaterial
from hms_addons.identity.spiffe_id import SpiffeId, SpiffeIdError
from hms_addons.upstream.cluster_manager import ClusterManager
from hms_addons.upstream.connector import os_failure, peer_ids
from hms_addons.upstream.endpoint import EndpointState
from hms_addons.upstream.outcome import Outcome
from tests.fakes import pki
from tests.fakes.clock import FakeClock
from tests.fakes.files import no_files_left
from tests.fakes.upstream import OK, World, make_cluster, make_route, settle
from tests.fakes.upstream_server import RawServer, saying

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Callable

    from hms_addons.clock import Clock


class RealWorld(World):
    """A world whose connector and clock are the real ones."""

    def __init__(
        self, port: int, *, host: str = "127.0.0.1", clock: Clock = SYSTEM_CLOCK, **cluster: Any
    ) -> None:
        super().__init__(0)
        self.manager = ClusterManager(clock, random.Random(1), self.identities.get)
        self.apply(make_cluster(endpoints=(EndpointSpec(host=host, port=port),), **cluster))

    def check_quiet(self) -> None:
        assert self.cluster.breaker.idle, self.cluster.breaker
        for endpoint in self.cluster.endpoints.values():
            assert (endpoint.active, endpoint.pool.active, endpoint.pool.connecting) == (0, 0, 0)

    async def close(self) -> None:
        await self.manager.close()
        assert not self.manager.connections
        assert not self.manager._tasks


@pytest.fixture
async def make() -> AsyncIterator[Callable[..., RealWorld]]:
    worlds: list[RealWorld] = []

    def make(*args: Any, **options: Any) -> RealWorld:
        worlds.append(RealWorld(*args, **options))
        return worlds[-1]

    yield make
    for world in worlds:
        await world.close()


async def failure(world: World) -> tuple[Flag, str]:
    with pytest.raises(ExchangeFailed) as caught:
        await world.forward()
    return caught.value.failure.flag, caught.value.failure.detail


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def test_plain(make: Any) -> None:
    async with RawServer(saying(OK, OK)) as server:
        world = make(server.port)
        assert await world.get(2) == [200, 200]
        assert server.accepted == 1
        (connection,) = world.manager.connections
        sock = connection.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_nobody_listens(make: Any) -> None:
    flag, detail = await failure(make(unused_port()))
    assert flag is Flag.UF
    assert ": connection refused; is the service running there" in detail


async def test_a_name_that_is_none(make: Any) -> None:
    flag, detail = await failure(make(80, host="no such host.invalid"))
    assert flag is Flag.UF
    assert "no such host.invalid:80: " in detail


async def test_no_files_left_is_not_the_endpoints_fault(make: Any) -> None:
    async with RawServer(saying(OK)) as server:
        world = make(server.port)
        with no_files_left():
            for _ in range(12):  # more than eject an endpoint
                exchange = world.exchange(route=make_route(RetryPolicy(attempts=5)))
                with pytest.raises(ExchangeFailed) as caught:
                    await world.forward(exchange)
                assert [attempt.outcome for attempt in exchange.attempts] == ["local"]
        failed = caught.value.failure
        assert (failed.status, failed.flag) == (503, Flag.UF)
        assert failed.title == "This sidecar could not connect"
        assert "too many files are open in this sidecar: raise its limit" in failed.detail
        assert failed.retry_after == 1.0
        (endpoint,) = world.cluster.endpoints.values()
        assert (endpoint.state, endpoint.failures) == (EndpointState.CLOSED, 0)
        world.check_quiet()
        assert await world.get() == [200]


@pytest.mark.parametrize(
    ("number", "outcome", "said"),
    [
        (errno.EMFILE, Outcome.LOCAL, "`ulimit -n`"),
        (errno.ENFILE, Outcome.LOCAL, "fs.file-max"),
        (errno.EADDRNOTAVAIL, Outcome.LOCAL, "ip_local_port_range"),
        (errno.ENOBUFS, Outcome.LOCAL, "tcp_mem"),
        (errno.ENOMEM, Outcome.LOCAL, "tcp_mem"),
        (errno.ECONNREFUSED, Outcome.CONNECT_FAILURE, "connection refused"),
        (errno.EHOSTUNREACH, Outcome.CONNECT_FAILURE, "no route to host"),
    ],
)
def test_whose_trouble_an_error_is(number: int, outcome: Outcome, said: str) -> None:
    error = os_failure(OSError(number, os.strerror(number)))
    assert error.outcome is outcome
    assert said in error.detail


# -- mutual TLS ------------------------------------------------------------------------------------

AUTH = UpstreamTls(secret="mesh", peers=frozenset({"svc/auth-svc"}))


def identity(service: str = "claims-svc", generation: int = 1) -> Identity:
    return Identity.of(SecretMaterial(pki.svid(service), pki.bundle()), generation)


def server_tls(service: str = "auth-svc", *, domain: str = pki.TRUST_DOMAIN) -> ssl.SSLContext:
    return tls_context.server_context(
        pki.svid(service, domain), pki.bundle(domain), require_peer=True
    )


async def test_mutual_tls(make: Any) -> None:
    async with RawServer(saying(OK, OK), server_tls()) as server:
        world = make(server.port, tls=AUTH)
        world.identities["mesh"] = identity()
        assert await world.get(2) == [200, 200]
        assert server.accepted == 1


@pytest.mark.parametrize(
    ("service", "domain", "complaint"),
    [
        (
            "claims-svc",
            pki.TRUST_DOMAIN,
            "expected spiffe://mpsa.mil/svc/auth-svc, found spiffe://",
        ),
        ("auth-svc", "other.example", "its certificate is not acceptable"),
    ],
)
async def test_the_wrong_peer_gets_no_byte(
    make: Any, service: str, domain: str, complaint: str
) -> None:
    heard = bytearray()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.extend(await reader.read())

    async with RawServer(listen, server_tls(service, domain=domain)) as server:
        world = make(server.port, tls=AUTH)
        world.identities["mesh"] = identity()
        flag, detail = await failure(world)
        assert flag is Flag.UF
        assert complaint in detail
        world.check_quiet()
    assert not heard


async def test_nobody_is_told_of_a_handshake_that_nobody_waits_for(make: Any) -> None:
    """Cancelled at each turn of the loop while it connects: asyncio has no future to complain of."""
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, found: complaints.append(found))
    async with RawServer(saying(OK), server_tls()) as server:
        for turns in range(12):
            world = make(server.port, tls=AUTH)
            world.identities["mesh"] = identity()
            task = asyncio.create_task(world.forward())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await settle()
            world.check_quiet()
            await world.manager.close()
    gc.collect()
    assert complaints == []


async def test_a_plain_server_where_tls_is_due(make: Any) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()

    async with RawServer(talk) as server:
        world = make(server.port, tls=AUTH)
        world.identities["mesh"] = identity()
        flag, detail = await failure(world)
        assert flag is Flag.UF
        assert "TLS failed" in detail


async def test_a_server_that_never_shakes_hands(make: Any) -> None:
    async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        await asyncio.get_running_loop().create_future()

    async with RawServer(stall) as server:
        world = make(server.port, tls=AUTH, connect_timeout=0.1)
        world.identities["mesh"] = identity()
        flag, detail = await failure(world)
        assert flag is Flag.UF
        assert "no connection within 0.1s" in detail
        world.check_quiet()


async def test_a_new_identity_retires_old_connections(make: Any) -> None:
    async with RawServer(saying(OK, OK), server_tls()) as server:
        world = make(server.port, tls=AUTH)
        world.identities["mesh"] = identity()
        await world.get()
        world.identities["mesh"] = identity(generation=2)
        await world.get()
        assert server.accepted == 2


async def test_an_idle_connection_goes_with_the_identity_it_was_made_with(make: Any) -> None:
    async with RawServer(saying(OK), server_tls()) as server:
        world = make(server.port, tls=AUTH)
        world.identities["mesh"] = identity()
        await world.get()
        (connection,) = world.manager.connections
        world.manager.secret_changed("other")
        world.manager.secret_changed("mesh")
        assert not connection.closed, "it is the same identity"
        world.identities["mesh"] = identity(generation=2)
        world.manager.secret_changed("mesh")
        assert connection.closed, "at once, not at the next request"


def tunnelling(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Any:
    answer = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"
    return saying(answer)(reader, writer)


UPGRADE = ((b"Host", b"auth-svc.svc"), (b"Connection", b"Upgrade"), (b"Upgrade", b"x"))


@pytest.mark.parametrize("trusted", [True, False])
async def test_a_tunnel_stays_while_its_peer_is_trusted(make: Any, trusted: bool) -> None:
    other = CertificateAuthority.create(pki.TRUST_DOMAIN)
    both = pki.bundle().with_roots(other.bundle.roots)
    context = tls_context.server_context(
        pki.svid("auth-svc", authority=other), both, require_peer=True
    )
    async with RawServer(tunnelling, context) as server:
        world = make(server.port, tls=AUTH)
        mine = pki.svid("claims-svc")
        world.identities["mesh"] = Identity.of(SecretMaterial(mine, both), 1)
        answer = await world.forward(world.exchange(fields=UPGRADE))
        assert answer.tunnel is not None
        (connection,) = world.manager.connections
        bundle = both if trusted else pki.bundle()
        world.identities["mesh"] = Identity.of(SecretMaterial(mine, bundle), 2)
        world.manager.secret_changed("mesh")
        assert connection.closed is not trusted
        answer.release()


async def test_a_peer_whose_certificate_expires_is_not_spoken_to_again() -> None:
    short = pki.svid("auth-svc", lifetime=3600)
    context = tls_context.server_context(short, pki.bundle(), require_peer=True)
    async with RawServer(saying(OK, OK, OK), context) as server:
        clock = FakeClock(wall=time.time())
        world = RealWorld(server.port, tls=AUTH, idle_timeout=86400.0, clock=clock)
        world.identities["mesh"] = identity()
        assert await world.get(2) == [200, 200]
        (connection,) = world.manager.connections
        await clock.advance(3590)
        assert await world.get() == [200]
        await clock.advance(20)
        assert connection.closed
        await world.close()
        assert clock.pending == 0


async def test_the_bundle_changes_while_a_connection_is_made(make: Any) -> None:
    other = CertificateAuthority.create(pki.TRUST_DOMAIN)
    both = pki.bundle().with_roots(other.bundle.roots)
    context = tls_context.server_context(
        pki.svid("auth-svc", authority=other), both, require_peer=True
    )
    async with RawServer(saying(OK), context) as server:
        world = make(server.port, tls=AUTH)
        mine = pki.svid("claims-svc")
        world.identities["mesh"] = Identity.of(SecretMaterial(mine, both), 1)
        request = asyncio.create_task(failure(world))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        world.identities["mesh"] = Identity.of(SecretMaterial(mine, pki.bundle()), 2)
        world.manager.secret_changed("mesh")
        flag, detail = await request
        assert flag is Flag.UF
        assert "the bundle, which has just changed" in detail
        world.check_quiet()


async def test_a_server_that_does_not_know_us(make: Any) -> None:
    """TLS 1.3: the client learns of it only after its own handshake, so the request is lost."""
    async with RawServer(saying(OK), server_tls()) as server:
        world = make(server.port, tls=AUTH)
        stranger = pki.svid("claims-svc", "other.example")
        world.identities["mesh"] = Identity.of(SecretMaterial(stranger, pki.bundle()), 1)
        flag, _ = await failure(world)
        assert flag in {Flag.UF, Flag.UC}
        world.check_quiet()


def test_peer_ids() -> None:
    peers = frozenset({"svc/auth-svc", "spiffe://other.example/svc/x"})
    assert {str(peer) for peer in peer_ids(peers, "mpsa.mil")} == {
        "spiffe://mpsa.mil/svc/auth-svc",
        "spiffe://other.example/svc/x",
    }
    assert peer_ids(frozenset({"/svc/a"}), "mpsa.mil") == {SpiffeId("mpsa.mil", "/svc/a")}
    with pytest.raises(SpiffeIdError):
        peer_ids(frozenset({"svc/../a"}), "mpsa.mil")
