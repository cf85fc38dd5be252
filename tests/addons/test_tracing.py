"""The built-in plugin `tracing`: which requests are recorded, and where their spans go."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from hms_addons.addons import tracing
from hms_addons.addons.tracing import UNNAMED, Tracing
from hms_addons.config.snapshot_tracing import Tracing as Spec
from hms_addons.engine.identifiers import new_traceparent
from hms_addons.errors import ConfigError, Fault, Flag
from hms_addons.hookspecs import hookimpl
from hms_addons.http_message import Answer
from hms_addons.plugins import PluginManager
from hms_addons.trace_context import is_traceparent
from tests.fakes.clock import FakeClock
from tests.fakes.exchange import make_exchange, make_snapshot, sent
from tests.fakes.mesh import FakeMesh
from tests.integration.otlp_kit import Span, read_spans

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from hms_addons.config.snapshot import Snapshot
    from hms_addons.exchange import Exchange

URL = "http://127.0.0.1:4318/v1/traces"
TRACE = "12345678901234567890123456789012"
CALLER = f"00-{TRACE}-1234567890123456-01"
UNRECORDED = f"00-{TRACE}-1234567890123456-00"
MADE = "00-" + "a" * 32 + "-" + "b" * 16 + "-00"


class World:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.mesh = FakeMesh()
        self.requests: list[httpx.Request] = []
        self.hang = False
        self.plugin = Tracing(
            clock=self.clock,
            rng=random.Random(1),
            instance="auth-svc-1",
            version="v2",
            environ={"TOKEN": "hunter2", "EMPTY": " "},
            transport=httpx.MockTransport(self.answer),
        )

    async def answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if self.hang:
            await asyncio.Event().wait()
        return httpx.Response(200)

    def configure(self, **changes: Any) -> Snapshot:
        settings: dict[str, Any] = {"url": URL, "sample": 1.0}
        snapshot = make_snapshot(service="auth-svc", tracing=Spec(**settings | changes))
        self.plugin.hms_configure(snapshot)
        return snapshot

    def begin(self, snapshot: Snapshot, traceparent: str | None = None, **changes: Any) -> Exchange:
        """A request as it is when plugins see it: with a `traceparent`, its caller's or the engine's."""
        exchange = make_exchange(snapshot=snapshot, **changes)
        if traceparent is not None:
            exchange.head[b"traceparent"] = traceparent.encode()
        exchange.set_request_header(b"TraceParent", (traceparent or MADE).encode())
        self.plugin.hms_identify(exchange)
        return exchange

    def serve(self, snapshot: Snapshot, traceparent: str | None = None) -> Exchange:
        exchange = self.begin(snapshot, traceparent)
        exchange.answer = Answer(200, b"OK", ())
        self.plugin.hms_complete(exchange)
        return exchange

    async def spans(self) -> list[Span]:
        """Those that have gone out, once all have."""
        await self.clock.advance(1.1)
        for _ in range(100):
            await asyncio.sleep(0)
        return [span for request in self.requests for span in read_spans(request.content)]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    world.plugin.hms_startup(world.mesh.mesh)
    yield world
    world.hang = False
    end = asyncio.ensure_future(world.plugin.hms_shutdown())
    await world.clock.advance(3.0)
    await end
    assert not world.clock.pending


async def test_a_request_of_a_recorded_trace_is_recorded_whatever_the_sample(world: World) -> None:
    exchange = world.serve(world.configure(sample=0.0), CALLER)
    (value,) = sent(exchange, "traceparent")
    assert is_traceparent(value.encode())
    assert value.startswith(f"00-{TRACE}-")
    assert "-1234567890123456-" not in value
    (span,) = await world.spans()
    assert (span.trace, span.parent) == (TRACE, "1234567890123456")
    assert value == f"00-{TRACE}-{span.id}-01"


async def test_one_of_an_unrecorded_trace_is_not_and_its_header_stays(world: World) -> None:
    exchange = world.serve(world.configure(sample=1.0), UNRECORDED)
    assert sent(exchange, "traceparent") == [UNRECORDED]
    assert exchange.trace is None
    assert await world.spans() == []


async def test_one_that_comes_from_a_sidecar_without_tracing_is_not_recorded(world: World) -> None:
    """As `tracing.sample` says it: the trace has begun there, with a no."""
    exchange = world.serve(world.configure(sample=1.0), new_traceparent().decode())
    assert exchange.trace is None


async def test_of_those_that_begin_here_a_share_is_recorded(world: World) -> None:
    snapshot = world.configure(sample=0.25)
    recorded = sum(world.serve(snapshot).trace is not None for _ in range(1000))
    assert 200 < recorded < 300
    assert not any(world.serve(world.configure(sample=0.0)).trace for _ in range(100))
    fresh = world.serve(world.configure(sample=1.0))
    (value,) = sent(fresh, "traceparent")
    assert value.endswith("-03")
    assert value != MADE


async def test_who_sends_them_is_said(world: World) -> None:
    world.serve(world.configure(resource={"deployment.environment.name": "prod"}))
    (span,) = await world.spans()
    assert {
        "service.name": "auth-svc",
        "service.instance.id": "auth-svc-1",
        "service.version": "v2",
        "telemetry.distro.name": "hms-svc",
        "deployment.environment.name": "prod",
    }.items() <= span.resource.items()


async def test_a_sidecar_without_a_name_has_one_of_its_own_making(world: World) -> None:
    plugin = Tracing(clock=world.clock, transport=httpx.MockTransport(world.answer))
    plugin.hms_configure(make_snapshot(tracing=Spec(url=URL)))
    assert plugin._resource(Spec(url=URL), make_snapshot())["service.name"] == UNNAMED
    assert plugin._instance is not None
    assert plugin._instance.startswith(f"{UNNAMED}-")
    await plugin.hms_shutdown()


async def test_a_request_that_no_plugin_has_seen_is_shown_all_the_same(world: World) -> None:
    """Its target could not be read, or a script answered it."""
    for traceparent, recorded in ((CALLER, True), (UNRECORDED, False), ("00-bad", True)):
        world.requests.clear()
        exchange = make_exchange(snapshot=world.configure())
        exchange.path = ""
        exchange.set_request_header(b"traceparent", traceparent.encode())
        exchange.fail(Fault.BAD_REQUEST, "not a path")
        world.plugin.hms_complete(exchange)
        spans = await world.spans()
        assert [span.attributes["hms.flag"] for span in spans] == ["DPE"] * recorded
        parent = "1234567890123456" if traceparent == CALLER else ""
        assert [span.parent for span in spans] == [parent] * recorded


async def test_a_refusal_by_any_plugin_is_shown(world: World) -> None:
    exchange = world.begin(world.configure())
    exchange.deny(403, Flag.RBAC, "no")
    world.plugin.hms_complete(exchange)
    (span,) = await world.spans()
    assert span.failed


def test_it_decides_before_any_plugin_may_refuse() -> None:
    class Refusing:
        @hookimpl
        def hms_identify(self, exchange: Exchange) -> None:
            exchange.deny(403, Flag.RBAC, "no")

    plugins = PluginManager()
    plugins.register(Refusing(), "refusing")
    plugins.register(Tracing(), "tracing")
    assert next(iter(plugins.hooks("hms_identify"))).plugin == "tracing"


async def test_it_is_idle_where_nobody_has_asked_for_it(world: World) -> None:
    plugin = world.plugin
    assert set(plugin.hms_idle_hooks(make_snapshot())) == {"hms_identify", "hms_complete"}
    assert not plugin.hms_idle_hooks(world.configure())
    plugin.hms_configure(make_snapshot())
    assert world.mesh.shown("tracing") is None


async def test_a_changed_collector_applies_to_later_spans(world: World) -> None:
    old = world.configure()
    early = world.begin(old)
    new = world.configure(url="http://127.0.0.1:9/v1/traces", headers={"x-a": "b"})
    world.serve(new)
    early.answer = Answer(200, b"OK", ())
    world.plugin.hms_complete(early)
    await world.spans()
    asked = sorted(str(request.url) for request in world.requests)
    assert asked == [URL, "http://127.0.0.1:9/v1/traces"]
    # The old one leaves with the next change, and what it has sent still counts.
    world.configure(url="http://127.0.0.1:9/v1/traces", headers={"x-a": "b"}, sample=0.5)
    await world.spans()
    assert world.mesh.measured("tracing")["hms_spans_exported_total",] == 2
    assert world.plugin._retired == []


async def test_another_sample_keeps_the_exporter(world: World) -> None:
    world.configure()
    before = world.plugin._exporters()
    world.configure(sample=0.5)
    assert world.plugin._exporters() == before


async def test_a_refused_candidate_changes_nothing(world: World) -> None:
    old = world.configure()
    world.configure(url="http://127.0.0.1:9/v1/traces")
    world.plugin.hms_configure(old)
    world.serve(old)
    await world.spans()
    assert {str(request.url) for request in world.requests} == {URL}


async def test_secrets_come_from_the_environment_and_are_shown_nowhere(world: World) -> None:
    snapshot = world.configure(headers_env={"Authorization": "TOKEN"}, headers={"x-a": "b"})
    world.serve(snapshot)
    await world.spans()
    (request,) = world.requests
    assert (request.headers["authorization"], request.headers["x-a"]) == ("hunter2", "b")
    assert "hunter2" not in f"{world.mesh.shown('tracing')} {world.plugin!r} {snapshot!r}"


@pytest.mark.parametrize("variable", ["MISSING", "EMPTY"])
async def test_a_secret_that_is_not_there_refuses_the_configuration(
    world: World, variable: str
) -> None:
    with pytest.raises(ConfigError, match=f"the environment variable {variable}, which is not set"):
        world.configure(headers_env={"Authorization": variable})


async def test_without_the_extra_the_configuration_is_refused_with_the_remedy(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracing, "has_otel", lambda: False)
    with pytest.raises(ConfigError, match=r"pip install 'hms-svc\[otel\]'"):
        world.configure()
    world.plugin.hms_configure(make_snapshot())


async def test_a_collector_that_hangs_delays_neither_requests_nor_the_end(world: World) -> None:
    world.hang = True
    snapshot = world.configure()
    for _ in range(5000):
        world.serve(snapshot)
    await world.spans()
    measured = world.mesh.measured("tracing")
    assert measured["hms_spans_dropped_total", "queue_full"] > 0
    end = asyncio.ensure_future(world.plugin.hms_shutdown())
    await world.clock.advance(2.1)
    for _ in range(20):
        await asyncio.sleep(0)
    assert end.done()
    measured = world.mesh.measured("tracing")
    dropped = sum(n for key, n in measured.items() if key[0] == "hms_spans_dropped_total")
    assert dropped == 5000
    assert measured["hms_spans_exported_total",] == 0


async def test_metrics_tell_nothing_of_what_is_not_configured(world: World) -> None:
    assert world.mesh.measured("tracing") == {}
    world.configure()
    assert world.mesh.measured("tracing")["hms_spans_dropped_total", "shutdown"] == 0
