"""A running sidecar that changes while requests are in flight, and how it ends with them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509

from hms_addons.bootstrap import build_plugins
from hms_addons.control.ca.authority import CertificateAuthority
from hms_addons.errors import ConfigError
from hms_addons.hookspecs import hookimpl
from hms_addons.http_message import Answer
from hms_addons.identity import tls_context
from hms_addons.identity.identity_holder import IdentityHolder, SecretMaterial
from hms_addons.listening import ListenError
from hms_addons.sidecar import Sidecar
from tests.fakes import pki
from tests.fakes.clock import FakeClock
from tests.fakes.configs import snapshot_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from hms_addons.config.snapshot import Snapshot
    from hms_addons.exchange import Exchange
    from hms_addons.identity.svid import Svid


class Probe:
    """Answers every request itself, `/slow` only once it is let go; and writes down what happens."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.go = asyncio.Event()
        self.versions: list[str] = []
        self.refuses: set[str] = set()
        self.on_configure: Any = lambda: None
        self.idle: dict[str, tuple[str, ...]] = {}

    @hookimpl
    def hms_configure(self, snapshot: Snapshot) -> None:
        self.versions.append(str(snapshot.service))
        self.on_configure()
        if str(snapshot.service) in self.refuses:
            raise ConfigError("not with me")

    @hookimpl
    def hms_idle_hooks(self, snapshot: Snapshot) -> tuple[str, ...]:
        return self.idle.get(str(snapshot.service), ())

    @hookimpl(tryfirst=True)
    async def hms_forward(self, exchange: Exchange, upstream: Any) -> Answer:
        self.log.append(f"forward {exchange.path}")
        if exchange.path == "/slow":
            await self.go.wait()
        body = f"{exchange.snapshot.service} by {exchange.listener.name}".encode()
        return Answer(200, b"OK", (), body)

    @hookimpl
    def hms_complete(self, exchange: Exchange) -> None:
        flag = exchange.failure.flag if exchange.failure else "ok"
        self.log.append(f"complete {exchange.path} {flag}")

    @hookimpl
    def hms_shutdown(self) -> None:
        self.log.append("shutdown")


class Client:
    """A keep-alive connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, port: int, **options: Any) -> Client:
        return cls(*await asyncio.open_connection("127.0.0.1", port, **options))

    async def ask(self, path: str = "/") -> str:
        self.send(path)
        return await self.answer()

    def send(self, path: str) -> None:
        self.writer.write(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())

    async def answer(self) -> str:
        """The body of the next answer; "closed" if there is none any more."""
        async with asyncio.timeout(5):
            try:
                head = await self.reader.readuntil(b"\r\n\r\n")
            except (asyncio.IncompleteReadError, ConnectionResetError):
                return "closed"
            length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
            return (await self.reader.readexactly(length)).decode()

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            await self.writer.wait_closed()


class World:
    def __init__(self) -> None:
        self.clock = FakeClock(wall=time.time())
        self.probe = Probe()
        plugins = build_plugins(None, Random(0))
        plugins.register(self.probe, "probe")
        self.sidecar = Sidecar(plugins, clock=self.clock, rng=Random(0))

    def port(self, name: str) -> int:
        port = self.sidecar.port_of(name)
        assert port is not None
        assert port.address is not None
        return port.address[1]

    async def until(self, entry: str) -> None:
        """Wait for something to happen."""
        async with asyncio.timeout(5):
            while entry not in self.probe.log:  # noqa: ASYNC110 - nobody tells of it
                await asyncio.sleep(0.001)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    await made.sidecar.stop()
    assert len(made.sidecar._tasks) == 0
    for lane in made.sidecar.lanes.values():
        assert lane.in_flight == 0


def config(version: str, more: str = "", **listeners: int) -> Snapshot:
    """Inbound listeners on these ports; `version` is the service's name."""
    lines = [
        f"  - {{name: {name}, direction: inbound, host: 127.0.0.1, port: {port}, "
        f"app: 'http://127.0.0.1:1', {more}}}"
        for name, port in listeners.items()
    ]
    return snapshot_of("\n".join([f"service: {version}", "listeners:", *lines]) + "\n")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# --- the end ------------------------------------------------------------------------------------------


async def test_plugins_are_shut_down_after_the_last_request_has_ended(world: World) -> None:
    await world.sidecar.start(config("v1", a=0))
    client = await Client.connect(world.port("a"))
    client.send("/slow")
    await world.until("forward /slow")
    await world.sidecar.stop()
    assert world.probe.log == ["forward /slow", "complete /slow DC", "shutdown"]
    assert await client.answer() == "closed"
    await client.close()


async def test_requests_of_a_listener_that_went_end_with_the_sidecar(world: World) -> None:
    await world.sidecar.start(config("v1", a=0))
    client = await Client.connect(world.port("a"))
    client.send("/slow")
    await world.until("forward /slow")
    await world.sidecar.apply(config("v2", b=0))
    assert world.sidecar.port_of("a") is None
    await world.sidecar.stop()
    assert world.probe.log == ["forward /slow", "complete /slow DC", "shutdown"]
    await client.close()


async def test_a_drain_waits_for_requests_of_a_listener_that_went(world: World) -> None:
    await world.sidecar.start(config("v1", a=0))
    client = await Client.connect(world.port("a"))
    client.send("/slow")
    await world.until("forward /slow")
    await world.sidecar.apply(config("v2", b=0))
    world.sidecar.drain()
    await world.clock.advance(5)
    world.probe.go.set()
    assert await client.answer() == "v1 by a"
    assert await client.answer() == "closed"
    await client.close()


# --- a change ---------------------------------------------------------------------------------------


async def test_a_request_in_flight_ends_on_the_snapshot_it_began_with(world: World) -> None:
    await world.sidecar.start(config("v1", a=0))
    client = await Client.connect(world.port("a"))
    client.send("/slow")
    await world.until("forward /slow")
    await world.sidecar.apply(config("v2", a=0))
    world.probe.go.set()
    assert await client.answer() == "v1 by a"
    assert await client.ask() == "v2 by a", "the connection goes on, with the new one"
    await client.close()


async def test_a_request_in_flight_ends_with_the_hooks_it_began_with(world: World) -> None:
    world.probe.idle = {"v2": ("hms_complete",)}
    await world.sidecar.start(config("v1", a=0))
    client = await Client.connect(world.port("a"))
    client.send("/slow")
    await world.until("forward /slow")
    await world.sidecar.apply(config("v2", a=0))
    world.probe.go.set()
    assert await client.answer() == "v1 by a"
    assert await client.ask() == "v2 by a"
    assert world.probe.log == ["forward /slow", "complete /slow ok", "forward /"]
    await client.close()


async def test_hooks_that_cannot_be_told_refuse_the_change(world: World) -> None:
    world.probe.idle = {"v2": ("hms_nothing",)}
    await world.sidecar.start(config("v1", a=0))
    with pytest.raises(ConfigError, match="calls hms_nothing idle"):
        await world.sidecar.apply(config("v2", a=0))
    assert world.probe.versions == ["v1", "v2", "v1"], "it is told to go back"
    client = await Client.connect(world.port("a"))
    assert await client.ask() == "v1 by a"
    await client.close()


async def test_a_listener_is_renamed_without_closing_its_port(world: World) -> None:
    port = free_port()
    await world.sidecar.start(config("v1", a=port))
    client = await Client.connect(port)
    assert await client.ask() == "v1 by a"
    await world.sidecar.apply(config("v2", b=port))
    assert world.port("b") == port
    assert world.sidecar.port_of("a") is None
    assert await client.ask() == "v2 by b"
    await client.close()


async def test_two_listeners_swap_their_ports(world: World) -> None:
    one, two = free_port(), free_port()
    await world.sidecar.start(config("v1", a=one, b=two))
    await world.sidecar.apply(config("v2", a=two, b=one))
    for port, name in ((one, "b"), (two, "a")):
        client = await Client.connect(port)
        assert await client.ask() == f"v2 by {name}"
        await client.close()
    assert (world.port("a"), world.port("b")) == (two, one)


async def test_a_refused_change_tells_its_own_reason_though_going_back_fails(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await world.sidecar.start(config("v1", a=0))
    with socket.create_server(("127.0.0.1", 0)) as holder:
        world.probe.refuses.add("v1")  # now that the old one is in force
        with pytest.raises(ListenError, match="the port is in use"):
            await world.sidecar.apply(config("v2", a=0, b=holder.getsockname()[1]))
    assert world.probe.versions == ["v1", "v2", "v1"]
    assert "failed to go back" in caplog.text
    rejected = world.sidecar.rejected
    assert rejected is not None
    assert "the port is in use" in rejected["reason"]


async def test_a_change_that_is_cancelled_is_made_whole_or_not_at_all(world: World) -> None:
    await world.sidecar.start(config("v1", a=0))
    ports = [free_port() for _ in range(3)]
    change = config("v2", "", a=0, **{f"p{port}": port for port in ports})
    task = asyncio.create_task(world.sidecar.apply(change))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert set(world.sidecar.lanes) == {"a"}
    task = asyncio.create_task(world.sidecar.apply(change))
    world.probe.on_configure = task.cancel
    with pytest.raises(asyncio.CancelledError):
        await task
    world.probe.on_configure = lambda: None
    assert set(world.sidecar.lanes) == {"a", *(f"p{port}" for port in ports)}
    for port in ports:
        client = await Client.connect(port)
        await client.close()
    assert world.probe.versions == ["v1", "v2"]


# --- TLS ----------------------------------------------------------------------------------------------


async def test_a_plain_connection_does_not_outlive_the_change_to_strict(
    world: World, tmp_path: Path
) -> None:
    """It is kept, as requests may be in flight; but what it asks for now needs a peer."""
    files = pki.write_secret(tmp_path, pki.svid("auth-svc"))
    names = f"certificate: {files.certificate}, key: {files.key}, bundle: {files.bundle}"
    text = (
        "service: v2\nlisteners:\n"
        "  - {name: a, direction: inbound, host: 127.0.0.1, port: 0, app: 'http://127.0.0.1:1', "
        f"tls: strict, secret: mine}}\nsecrets:\n  mine: {{{names}}}\n"
    )
    await world.sidecar.start(config("v1", a=0))
    plain = await Client.connect(world.port("a"))
    assert await plain.ask() == "v1 by a"
    await world.sidecar.apply(snapshot_of(text))
    assert '"flag": "RBAC"' in await plain.ask()
    assert await plain.answer() == "closed"
    await plain.close()
    context = tls_context.client_context(pki.svid("claims-svc"), pki.bundle())
    secured = await Client.connect(world.port("a"), ssl=context)
    assert await secured.ask() == "v2 by a"
    await secured.close()


def strict(files: pki.SecretFiles) -> str:
    names = f"certificate: {files.certificate}, key: {files.key}, bundle: {files.bundle}"
    return (
        "service: v1\nlisteners:\n"
        "  - {name: a, direction: inbound, host: 127.0.0.1, port: 0, app: 'http://127.0.0.1:1', "
        f"tls: strict, secret: mine}}\nsecrets:\n  mine: {{{names}}}\n"
    )


async def test_peers_of_a_root_that_was_taken_out_may_finish_and_must_go(
    world: World, tmp_path: Path
) -> None:
    other = CertificateAuthority.create(pki.TRUST_DOMAIN)
    both = pki.bundle().with_roots(other.bundle.roots)
    files = pki.write_secret(tmp_path, pki.svid("auth-svc"), both)
    await world.sidecar.start(snapshot_of(strict(files)))

    async def connect(svid: Svid) -> Client:
        client = await Client.connect(world.port("a"), ssl=tls_context.client_context(svid, both))
        assert await client.ask() == "v1 by a"
        return client

    good = await connect(pki.svid("claims-svc"))
    idle, busy = [await connect(pki.svid("claims-svc", authority=other)) for _ in range(2)]
    busy.send("/slow")
    await world.until("forward /slow")
    files.bundle.write_bytes(pki.bundle().to_pem())
    await world.clock.advance(1)
    assert await idle.answer() == "closed"
    world.probe.go.set()
    assert await busy.answer() == "v1 by a", "what is in flight is finished"
    assert await busy.answer() == "closed"
    assert await good.ask() == "v1 by a"
    with pytest.raises((ssl.SSLError, ConnectionError, AssertionError)):
        await connect(pki.svid("claims-svc", authority=other))
    for client in (good, idle, busy):
        await client.close()


async def test_a_peer_whose_certificate_expires_may_finish_and_must_go(
    world: World, tmp_path: Path
) -> None:
    files = pki.write_secret(tmp_path, pki.svid("auth-svc"))
    await world.sidecar.start(snapshot_of(strict(files)))
    clients = []
    for lifetime in (3600.0, 3600.0, 7200.0):
        svid = pki.svid("claims-svc", lifetime=lifetime)
        context = tls_context.client_context(svid, pki.bundle())
        clients.append(client := await Client.connect(world.port("a"), ssl=context))
        assert await client.ask() == "v1 by a"
    idle, busy, young = clients
    busy.send("/slow")
    await world.until("forward /slow")
    await world.clock.advance(3590)
    assert [await idle.ask(), await young.ask()] == ["v1 by a", "v1 by a"]
    await world.clock.advance(20)
    assert await idle.answer() == "closed"
    world.probe.go.set()
    assert await busy.answer() == "v1 by a"
    assert await busy.answer() == "closed"
    assert await young.ask() == "v1 by a"
    for client in clients:
        await client.close()
    await world.sidecar.stop()
    await asyncio.sleep(0.01)
    assert world.clock.pending == 0


async def test_what_the_control_plane_provides_is_shown_and_renewed() -> None:
    """No file names the secret; the listener follows the provided identity, swap by swap."""
    holder = IdentityHolder("control plane")
    text = (
        "service: auth-svc\nlisteners:\n  - {name: a, direction: inbound, host: 127.0.0.1, port: 0, "
        "app: 'http://127.0.0.1:1', tls: strict, secret: mesh_certs}\n"
    )
    sidecar = Sidecar(build_plugins(None, Random(0)), rng=Random(0), provided=holder)
    try:
        with pytest.raises(ConfigError, match="nobody provides its secret 'mesh_certs'"):
            await sidecar.start(snapshot_of(text, control=True))
        for generation, lifetime in enumerate((7200.0, 3600.0), 1):
            svid = pki.svid("auth-svc", lifetime=lifetime)
            holder.replace(SecretMaterial(svid, pki.bundle()), time.time())
            if generation == 1:
                await sidecar.start(snapshot_of(text, control=True))
            assert await shown_serial(sidecar) == svid.serial
            (certificate,) = sidecar.certificates()
            assert (certificate["secret"], certificate["generation"]) == ("mesh_certs", generation)
    finally:
        await sidecar.stop()


async def test_it_is_not_ready_while_a_certificate_that_it_needs_has_expired() -> None:
    listener = (
        "{name: a, direction: inbound, host: 127.0.0.1, port: 0, app: 'http://127.0.0.1:1'%s}"
    )
    cluster = "clusters: [{name: b, tls_context: {sds: mesh_certs}}]\n"
    clock, holder = FakeClock(wall=time.time()), IdentityHolder("control plane")
    sidecar = Sidecar(build_plugins(None, Random(0)), clock=clock, rng=Random(0), provided=holder)

    def needs(listener_too: str, rest: str) -> Snapshot:
        text = f"listeners:\n  - {listener % listener_too}\n{rest}"
        return snapshot_of(text, control=True)

    holder.replace(SecretMaterial(pki.svid("auth-svc", lifetime=3600), pki.bundle()), clock.wall())
    try:
        await sidecar.start(needs(", tls: strict, secret: mesh_certs", ""))
        assert sidecar.ready
        clock.step(3700)
        assert not sidecar.ready
        assert sidecar.not_ready == "the certificate of mesh_certs has expired: see /certs"
        assert sidecar.certificates()[0]["problem"].startswith("expired at ")
        await sidecar.apply(needs("", cluster))
        assert not sidecar.ready, "a cluster needs it, too"
        await sidecar.apply(needs("", ""))
        assert sidecar.ready, "nothing needs it"
        await sidecar.apply(needs("", cluster))
        renewed = SecretMaterial(pki.svid("auth-svc", lifetime=7200), pki.bundle())
        holder.replace(renewed, clock.wall())
        assert sidecar.ready
        assert sidecar.certificates()[0]["problem"] is None
    finally:
        await sidecar.stop()


async def test_a_peer_that_cannot_renew_its_svid_is_ended_when_the_own_one_is_renewed() -> None:
    holder, clock = IdentityHolder("control plane"), FakeClock(wall=time.time())
    own = SecretMaterial(pki.svid("auth-svc"), pki.bundle())
    holder.replace(own, time.time())
    text = (
        "service: auth-svc\nlisteners:\n  - {name: a, direction: inbound, host: 127.0.0.1, port: 0, "
        "app: 'http://127.0.0.1:1', tls: strict, secret: mesh_certs}\n"
    )
    sidecar = Sidecar(build_plugins(None, Random(0)), clock=clock, rng=Random(0), provided=holder)
    try:
        await sidecar.start(snapshot_of(text, control=True))
        port = sidecar.port_of("a")
        assert port is not None
        assert port.address is not None
        peers = []
        for lifetime in (600.0, None):
            svid = pki.svid("claims-svc", lifetime=lifetime)
            context = tls_context.client_context(svid, pki.bundle())
            peers.append(await Client.connect(port.address[1], ssl=context))
            assert '"flag": "UF"' in await peers[-1].ask()
        clock.step(700)  # issuing it may have taken a while
        holder.replace(own, time.time())
        assert await peers[0].answer() == "closed"
        assert '"flag": "UF"' in await peers[1].ask()
        for peer in peers:
            await peer.close()
    finally:
        await sidecar.stop()


async def shown_serial(sidecar: Sidecar) -> int:
    """The serial number of the certificate that the listener `a` shows to a new peer."""
    listener = sidecar.port_of("a")
    assert listener is not None
    assert listener.address is not None
    context = tls_context.client_context(pki.svid("claims-svc"), pki.bundle())
    async with asyncio.timeout(10):
        _, writer = await asyncio.open_connection(*listener.address, ssl=context)
        der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        await writer.wait_closed()
    return x509.load_der_x509_certificate(der).serial_number
