from __future__ import annotations

import asyncio
import socket
import time
from contextlib import asynccontextmanager
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import Counter as PrometheusCounter

from hms_addons.bootstrap import build_plugins
from hms_addons.errors import ConfigError
from hms_addons.hookspecs import hookimpl
from hms_addons.http_message import Answer
from hms_addons.identity import tls_context
from hms_addons.listening import ListenError
from hms_addons.plugins import PluginError
from hms_addons.sidecar import DRAIN_GRACE, Sidecar
from tests.fakes import pki
from tests.fakes.clock import FakeClock
from tests.fakes.configs import snapshot_of
from tests.fakes.upstream_server import RawServer, read_head

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator
    from pathlib import Path

    from hms_addons.config.snapshot import Snapshot
    from hms_addons.hookspecs import AdminRequest


class Probe:
    """A plugin that keeps which versions it was configured with, and may refuse one."""

    def __init__(self) -> None:
        self.configured: list[Snapshot] = []
        self.refuses: str | None = None
        self.fails_to_start = False
        self.stopped = 0

    @hookimpl
    def hms_configure(self, snapshot: Snapshot) -> None:
        self.configured.append(snapshot)
        if snapshot.service == self.refuses:
            raise ConfigError("not with me")

    @hookimpl
    def hms_startup(self, mesh: Any) -> None:
        if self.fails_to_start:
            raise RuntimeError("no database")

    @hookimpl
    def hms_shutdown(self) -> None:
        self.stopped += 1


class Running:
    """A sidecar and what surrounds it."""

    def __init__(self) -> None:
        self.clock = FakeClock(wall=time.time())
        self.probe = Probe()
        self.drained = 0
        plugins = build_plugins(None, Random(0))
        plugins.register(self.probe, "probe")
        self.sidecar = Sidecar(
            plugins, clock=self.clock, rng=Random(0), on_drained=self._count_drained
        )

    def _count_drained(self) -> None:
        self.drained += 1

    def port(self, name: str = "peers") -> int:
        listener = self.sidecar.port_of(name)
        assert listener is not None
        assert listener.address is not None
        return listener.address[1]

    async def ask(self, name: str = "peers", tls: ssl.SSLContext | None = None) -> bytes:
        """The status line that a listener answers with, over a connection of its own."""
        return (await ask(self.port(name), tls))[0]


async def ask(port: int, tls: ssl.SSLContext | None = None) -> tuple[bytes, str | None]:
    """A status line, and the SPIFFE ID that was shown."""
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
        shown = None
        if tls is not None:
            ssl_object = writer.get_extra_info("ssl_object")
            shown = str(tls_context.verify_peer(ssl_object, None, pki.TRUST_DOMAIN))
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        try:
            return (await reader.readline()).rstrip(), shown
        finally:
            writer.close()
            await writer.wait_closed()


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_head(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    await writer.drain()


@asynccontextmanager
async def running(*texts: str) -> AsyncIterator[Running]:
    """A started sidecar, stopped at the end; nothing of it is left then."""
    made = Running()
    try:
        await made.sidecar.start(snapshot_of(*texts))
        yield made
    finally:
        await made.sidecar.stop()
        await made.clock.advance(0)
        assert len(made.sidecar._tasks) == 0


def config(target: int, *, service: str = "auth-svc", **more: Any) -> str:
    """An inbound listener `peers` before an app on the port `target`; `more` are its settings."""
    lines = [f"service: {service}", "listeners:", "  - name: peers", "    direction: inbound"]
    settings = {"host": "127.0.0.1", "port": 0, "app": f"http://127.0.0.1:{target}", **more}
    lines += [f"    {key}: {value}" for key, value in settings.items()]
    return "\n".join(lines) + "\n"


def secret(folder: Path, service: str = "auth-svc") -> str:
    files = pki.write_secret(folder, pki.svid(service), name=service)
    names = f"certificate: {files.certificate}, key: {files.key}, bundle: {files.bundle}"
    return f"secrets:\n  mine: {{ {names} }}\n"


def client() -> ssl.SSLContext:
    return tls_context.client_context(pki.svid("claims-svc"), pki.bundle())


async def test_start_serves_and_stop_leaves_nothing() -> None:
    async with RawServer(app) as server, running(config(server.port)) as mesh:
        port = mesh.port()
        assert await mesh.ask() == b"HTTP/1.1 200 OK"
        assert mesh.sidecar.ready
        assert "ready=True" in repr(mesh.sidecar)
        status = mesh.sidecar.status()
        [listener] = status["listeners"]
        assert listener["address"] == f"127.0.0.1:{port}"
        assert listener["direction"] == "inbound"
        assert status["service"] == "auth-svc"
        assert status["rejected"] is None
        assert status["plugins"][0] == {"name": "mtls", "source": "built-in"}
        assert mesh.sidecar.clusters()
        assert set(mesh.sidecar.lanes) == set(mesh.sidecar.bindings) == {"peers"}
    assert not is_open(port)
    assert mesh.probe.stopped == 1
    assert not mesh.sidecar.ready
    await mesh.sidecar.stop()
    assert mesh.probe.stopped == 1, "stop is idempotent"


async def refused(mesh: Running, snapshot: Snapshot, reason: str) -> None:
    """Apply what is refused; the old configuration goes on, whole."""
    old = mesh.sidecar.snapshot
    port = mesh.port()
    with pytest.raises((ConfigError, ListenError), match=reason):
        await mesh.sidecar.apply(snapshot)
    assert mesh.sidecar.snapshot is old
    assert mesh.port() == port
    assert await mesh.ask() == b"HTTP/1.1 200 OK"
    assert mesh.sidecar.ready
    assert reason in mesh.sidecar.status()["rejected"]["reason"]
    assert mesh.probe.configured[-1] is old


async def test_a_bad_secret_is_refused(tmp_path: Path) -> None:
    bad = secret(tmp_path)
    (tmp_path / "auth-svc.key").write_text("no key")
    async with RawServer(app) as server, running(config(server.port)) as mesh:
        await refused(mesh, snapshot_of(config(server.port), bad), "auth-svc.key")
        assert mesh.sidecar.certificates() == []


async def test_a_plugin_that_refuses(tmp_path: Path) -> None:
    async with RawServer(app) as server, running(config(server.port)) as mesh:
        mesh.probe.refuses = "other-svc"
        snapshot = snapshot_of(config(server.port, service="other-svc"), secret(tmp_path))
        await refused(mesh, snapshot, "plugin 'probe' refused the configuration: not with me")
        assert mesh.sidecar.certificates() == []
        mesh.probe.refuses = None
        await mesh.sidecar.apply(snapshot)
        assert mesh.sidecar.status()["rejected"] is None
        assert mesh.sidecar.status()["service"] == "other-svc"


async def test_what_plugins_count_and_what_was_refused_is_told() -> None:
    async with RawServer(app) as server, running(config(server.port)) as mesh:
        mesh.sidecar.add_metrics("probe", PrometheusCounter("probes", "Probes.", registry=None))
        mesh.probe.refuses = "other-svc"
        for number in (1, 2):
            with pytest.raises(ConfigError):
                await mesh.sidecar.apply(snapshot_of(config(server.port, service="other-svc")))
            assert mesh.sidecar.status()["rejections_total"] == number
        mesh.sidecar.add_metrics("broken", "no collector")  # type: ignore[arg-type] # a plugin's fault
        found = await mesh.sidecar.metrics("text/plain")
        assert b"\nprobes_total 0.0\n" in found.body
        assert mesh.sidecar.status()["plugin_errors"] == [
            {"plugin": "broken", "hook": "collect", "count": 1}
        ]


async def test_an_unknown_balancer_is_refused_before_any_plugin_is_asked() -> None:
    async with RawServer(app) as server, running(config(server.port)) as mesh:
        asked = len(mesh.probe.configured)
        cluster = "clusters:\n  - {name: b, endpoints: [127.0.0.1:1], load_balancer: tarot}\n"
        await refused(mesh, snapshot_of(config(server.port), cluster), "tarot")
        assert len(mesh.probe.configured) == asked


async def test_an_occupied_port_closes_what_was_opened_and_puts_plugins_back() -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        unused = free.getsockname()[1]
        free.close()
        more = "".join(
            f"  - {{name: {name}, port: {port}, routes: []}}\n"
            for name, port in (("first", unused), ("second", holder.getsockname()[1]))
        )
        async with RawServer(app) as server, running(config(server.port)) as mesh:
            await refused(mesh, snapshot_of(config(server.port) + more), "the port is in use")
            assert not is_open(unused)
            assert set(mesh.sidecar.lanes) == {"peers"}


async def test_a_first_configuration_that_cannot_be_had_leaves_nothing() -> None:
    holder = socket.create_server(("127.0.0.1", 0))
    with holder, pytest.raises(ListenError, match="the port is in use"):
        async with running(config(1, port=holder.getsockname()[1])):
            pass


async def test_plugins_are_shut_down_after_one_that_failed_to_start() -> None:
    mesh = Running()
    mesh.probe.fails_to_start = True
    later = Probe()
    mesh.sidecar.plugins.register(later, "later")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(PluginError, match="probe.*no database"):
        await mesh.sidecar.start(snapshot_of(config(1, port=port)))
    assert not mesh.sidecar.ready
    assert not is_open(port)
    assert mesh.probe.stopped == 1
    assert later.stopped == 0, "it was never started"
    await mesh.sidecar.stop()
    assert mesh.probe.stopped == 1


async def test_what_is_opened_answers_before_there_is_a_configuration() -> None:
    mesh = Running()
    calls: list[str] = []
    ports: list[int] = []

    async def handler(request: AdminRequest) -> Answer:
        del request
        return Answer(204, b"No Content", (), local=True)

    class Opens:
        @hookimpl
        async def hms_open(self, mesh: Any) -> None:
            calls.append(f"open {mesh.snapshot} {mesh.not_ready}")
            ports.append((await mesh.serve("127.0.0.1", 0, handler))[1])

        @hookimpl
        def hms_startup(self, mesh: Any) -> None:
            calls.append(f"startup {mesh.not_ready}")

    mesh.sidecar.plugins.register(Opens(), "opens")
    await mesh.sidecar.open()
    assert (await ask(ports[0]))[0] == b"HTTP/1.1 204 No Content"
    assert not mesh.sidecar.ready
    mesh.sidecar.refuse("no such thing")
    assert "can be used" in (mesh.sidecar.not_ready or "")
    await mesh.sidecar.start(snapshot_of(config(1)))
    assert mesh.sidecar.ready
    assert calls == [
        "open None waiting for the first configuration",
        "startup the sidecar is starting",
    ]
    await mesh.sidecar.stop()
    assert not is_open(ports[0])


async def test_a_drain_before_the_start_ends_it_and_bids_no_farewell() -> None:
    mesh = Running()
    calls: list[str] = []

    class Opens:
        @hookimpl
        def hms_open(self) -> None:
            calls.append("open")

        @hookimpl
        def hms_drain(self) -> None:
            calls.append("drain")

    mesh.sidecar.plugins.register(Opens(), "opens")
    await mesh.sidecar.open()
    mesh.sidecar.drain()
    await mesh.clock.advance(1)
    assert mesh.drained == 1
    assert mesh.sidecar.not_ready == "the sidecar is draining"
    await mesh.sidecar.stop()
    assert calls == ["open"]


async def test_nobody_is_served_before_the_plugins_have_started() -> None:
    mesh = Running()
    begun, go = asyncio.Event(), asyncio.Event()

    class Slow:
        @hookimpl
        async def hms_startup(self, mesh: Any) -> None:
            del mesh
            begun.set()
            await go.wait()

    mesh.sidecar.plugins.register(Slow(), "slow")
    async with RawServer(app) as server:
        starting = asyncio.create_task(mesh.sidecar.start(snapshot_of(config(server.port))))
        await begun.wait()
        # The port is taken, so that an occupied one would have been an error by now.
        early = asyncio.create_task(mesh.ask())
        done, _ = await asyncio.wait({early}, timeout=0.05)
        assert not done
        assert not mesh.sidecar.lanes["peers"].connections
        assert not mesh.sidecar.ready
        go.set()
        await starting
        assert mesh.sidecar.ready
        assert await early == b"HTTP/1.1 200 OK", "it has only waited"
        await mesh.sidecar.stop()


async def test_what_was_tried_out_is_started_without_a_second_time(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    made = Running()
    snapshot = snapshot_of(secret(tmp_path) + config(1, tls="strict"))
    try:
        with caplog.at_level("INFO"):
            await made.sidecar.apply(snapshot)
            await made.sidecar.start(snapshot)
        assert made.sidecar.ready
        assert len(made.probe.configured) == 1
        assert caplog.text.count("is in force") == 1
    finally:
        await made.sidecar.stop()


async def test_a_listener_moves() -> None:
    async with RawServer(app) as server, running(config(server.port)) as mesh:
        old = mesh.port()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            new = free.getsockname()[1]
        await mesh.sidecar.apply(snapshot_of(config(server.port, port=new)))
        assert mesh.port() == new
        assert await mesh.ask() == b"HTTP/1.1 200 OK"
        assert not is_open(old)


async def test_a_listener_goes_and_another_comes() -> None:
    async with RawServer(app) as server, running(config(server.port)) as mesh:
        old = mesh.port()
        text = config(server.port).replace("name: peers", "name: others")
        await mesh.sidecar.apply(snapshot_of(text))
        assert await mesh.ask("others") == b"HTTP/1.1 200 OK"
        assert mesh.sidecar.port_of("peers") is None
        assert not is_open(old)


async def test_a_listener_that_stays_keeps_its_port_and_takes_its_new_app() -> None:
    async with RawServer(app) as one, RawServer(app) as other, running(config(one.port)) as mesh:
        assert await mesh.ask() == b"HTTP/1.1 200 OK"
        port = mesh.port()
        await mesh.sidecar.apply(snapshot_of(config(other.port)))
        assert mesh.port() == port
        assert await mesh.ask() == b"HTTP/1.1 200 OK"
        assert (one.accepted, other.accepted) == (1, 1)


async def test_tls_and_its_identity_change_for_new_connections(tmp_path: Path) -> None:
    async with RawServer(app) as server, running(config(server.port)) as mesh:
        port = mesh.port()
        for service in ("auth-svc", "payments-svc"):
            secured = config(server.port, tls="strict", secret="mine")
            await mesh.sidecar.apply(snapshot_of(secured, secret(tmp_path, service)))
            status, shown = await ask(port, client())
            assert status == b"HTTP/1.1 200 OK"
            assert shown == f"spiffe://{pki.TRUST_DOMAIN}/svc/{service}"
        [certificate] = mesh.sidecar.certificates()
        assert certificate["spiffe_id"] == f"spiffe://{pki.TRUST_DOMAIN}/svc/payments-svc"
        assert certificate["generation"] == 1
        assert certificate["remaining_s"] > 0
        assert certificate["problem"] is None
        assert "key" not in certificate


async def test_the_trust_domain_is_the_svids_unless_it_is_named(tmp_path: Path) -> None:
    async with running(config(1), secret(tmp_path)) as mesh:
        assert mesh.sidecar.snapshot is not None
        assert mesh.sidecar.snapshot.trust_domain == pki.TRUST_DOMAIN
        assert mesh.probe.configured[-1].trust_domain == pki.TRUST_DOMAIN
        await refused_domain(mesh, snapshot_of("trust_domain: other.example", secret(tmp_path)))


async def refused_domain(mesh: Running, snapshot: Snapshot) -> None:
    with pytest.raises(ConfigError, match="other.example"):
        await mesh.sidecar.apply(snapshot)


async def test_quit_waits_for_nobody() -> None:
    async with RawServer(app) as server, running(config(server.port)) as mesh:
        assert mesh.sidecar.ready
        mesh.sidecar.quit()
        assert mesh.drained == 1
        assert not mesh.sidecar.ready


async def test_drain_closes_the_ports_and_says_when_it_is_done() -> None:
    async with RawServer(app) as server, running(config(server.port)) as mesh:
        port = mesh.port()
        mesh.sidecar.drain()
        mesh.sidecar.drain()
        assert mesh.sidecar.draining
        assert not mesh.sidecar.ready
        await mesh.clock.advance(DRAIN_GRACE + 1)
        assert not is_open(port)
        assert mesh.drained == 1


async def test_a_plugins_own_port() -> None:
    asked: list[str] = []

    async def handler(request: AdminRequest) -> Answer:
        asked.append(request.path)
        return Answer(204, b"No Content", (), local=True)

    async with running(config(1)) as mesh:
        _, port = await mesh.sidecar.serve("127.0.0.1", 0, handler)
        assert (await ask(port))[0] == b"HTTP/1.1 204 No Content"
        assert asked == ["/"]
    assert not is_open(port)


async def test_explain_needs_a_configuration() -> None:
    mesh = Running()
    with pytest.raises(ConfigError, match="no configuration yet"):
        mesh.sidecar.explain("GET /", {})
    await mesh.sidecar.stop()
