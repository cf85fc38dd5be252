"""`tracing`: spans of requests and their tries, for an OpenTelemetry collector.

`traceparent` is every request's, traced or not: the engine passes it on, or makes it. Here it is decided which
requests are recorded, and their spans are handed to `hms_addons.spans`:

    hms_identify ──▶ exchange.trace ──▶ a span and a `traceparent` for each try ──▶ hms_complete

A request that came with a `traceparent` is recorded if its caller records it, so that traces are whole; of
those that came without, `sample` says how many.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import random
import socket
from collections import Counter
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from hms_addons.clock import SYSTEM_CLOCK
from hms_addons.config.installed import NO_OTEL, has_otel
from hms_addons.errors import ConfigError
from hms_addons.hookspecs import hookimpl
from hms_addons.http_message import get_field
from hms_addons.spans.record import DROP_REASONS, record_of
from hms_addons.tasks import TaskSet
from hms_addons.trace_context import Trace, is_sampled, is_traceparent

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    import httpx

    from hms_addons.clock import Clock
    from hms_addons.config.snapshot import Snapshot
    from hms_addons.config.snapshot_tracing import Tracing as TracingSpec
    from hms_addons.exchange import Exchange
    from hms_addons.hookspecs import Mesh
    from hms_addons.spans.exporter import SpanExporter

NAME: Final = "tracing"
CLOSING: Final = 2.0
"""Seconds that a collector is given to take what is left."""
UNNAMED: Final = "hms-sidecar"
"""The service of a sidecar that stands beside none."""


class _State(NamedTuple):
    """What one snapshot asks for."""

    snapshot: Snapshot
    sample: float
    exporter: SpanExporter | None


class Tracing:
    """The built-in plugin `tracing`.

    Args:
        clock: when requests ended, and when batches are sent.
        rng: draws the sample.
        instance: this sidecar's name (`service.instance.id`); None makes one up.
        version: the app's (`service.version`), where known.
        environ: where secret headers are looked up; None: the process's.
        transport: stands in for the network (httpx's own seam); None is the network.
    """

    def __init__(
        self,
        *,
        clock: Clock = SYSTEM_CLOCK,
        rng: random.Random | None = None,
        instance: str | None = None,
        version: str | None = None,
        environ: Mapping[str, str] | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._clock = clock
        self._rng = rng or random.Random()  # noqa: S311 - a sample, not a secret
        self._instance = instance
        self._version = version
        self._environ = os.environ if environ is None else environ
        self._transport = transport
        self._tasks = TaskSet(NAME)
        self._started = False
        self._state: _State | None = None
        self._previous: _State | None = None
        self._retired: list[SpanExporter] = []
        self._exported = 0  # by exporters that are no more
        self._dropped: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"<Tracing {self._state.exporter if self._state else None}>"

    # -- life -----------------------------------------------------------------------------------

    @hookimpl
    def hms_configure(self, snapshot: Snapshot) -> None:
        """Make ready what the snapshot asks for; an exporter stays as long as one asks for it."""
        before, newest = self._previous, self._state
        state = before if before is not None and before.snapshot is snapshot else None
        if state is None:
            spec = snapshot.tracing
            sample = 0.0 if spec is None else spec.sample
            exporter = None if spec is None else self._exporter_for(spec, snapshot)
            state = _State(snapshot, sample, exporter)
        self._previous, self._state = newest, state
        gone = None if before is None else before.exporter
        if gone is not None and gone not in self._exporters():
            self._retired.append(gone)
            self._tasks.start(self._retire(gone), "close")
        if self._started and state.exporter is not None:
            state.exporter.start()

    async def _retire(self, exporter: SpanExporter) -> None:
        """No request can come to it any more but one that outlived two changes."""
        await exporter.close(CLOSING)
        self._retired.remove(exporter)
        self._exported += exporter.exported
        self._dropped += exporter.dropped

    def _exporter_for(self, spec: TracingSpec, snapshot: Snapshot) -> SpanExporter:
        """The one that sends to the same place, or another.

        Raises:
            ConfigError: what it needs is not installed, or an environment variable is not set.
        """
        if not has_otel():
            message = f"tracing: {NO_OTEL}"
            raise ConfigError(message)
        headers = dict(spec.headers)
        for name, variable in spec.headers_env.items():
            value = self._environ.get(variable, "").strip()
            if not value or not value.isascii() or not value.isprintable():
                message = (
                    f"tracing: the header {name} is to come from the environment variable {variable}, "
                    "which is not set here, or holds what no header can; set it for the sidecar"
                )
                raise ConfigError(message)
            headers[name] = value
        resource = self._resource(spec, snapshot)
        for known in self._exporters():
            if known.sends(spec.url, headers, spec.timeout, resource):
                return known
        # Here, before the sidecar is ready: their imports take 0.2 s, during which nothing else runs.
        exporters = importlib.import_module("hms_addons.spans.exporter")
        found: SpanExporter = exporters.SpanExporter(
            spec.url,
            headers,
            spec.timeout,
            resource,
            clock=self._clock,
            rng=self._rng,
            tasks=self._tasks,
            transport=self._transport,
        )
        return found

    def _resource(self, spec: TracingSpec, snapshot: Snapshot) -> dict[str, str]:
        """Who sends them (OpenTelemetry's conventions: "Resource", "Service")."""
        service = snapshot.service or UNNAMED
        if self._instance is None:
            self._instance = f"{service}-{socket.gethostname()}-{os.getpid()}"
        found = {
            "service.name": service,
            "service.instance.id": self._instance,
            "telemetry.distro.name": "hms-svc",
            "telemetry.distro.version": _own_version(),
        }
        if self._version:
            found["service.version"] = self._version
        return {**found, **spec.resource}

    def _exporters(self) -> list[SpanExporter]:
        states = (self._state, self._previous)
        found = [s.exporter for s in states if s is not None and s.exporter is not None]
        return list(dict.fromkeys(found))

    @hookimpl
    def hms_idle_hooks(self, snapshot: Snapshot) -> Collection[str]:
        """Nothing is recorded where nobody has asked for it."""
        return () if snapshot.tracing is not None else ("hms_identify", "hms_complete")

    @hookimpl
    def hms_startup(self, mesh: Mesh) -> None:
        """Begin to send, and tell how that goes."""
        mesh.add_status(NAME, self._status)
        mesh.add_metrics(NAME, self)
        self._started = True
        for exporter in self._exporters():
            exporter.start()

    def _status(self) -> dict[str, Any] | None:
        """JSON-ready; None where nothing is recorded."""
        exporter = self._state.exporter if self._state is not None else None
        return None if exporter is None else exporter.status()

    def collect(self) -> Iterator[Any]:
        """For `/metrics`: spans that went out, and those that did not."""
        # Here: a sidecar that nobody scrapes need not hold it.
        core = importlib.import_module("prometheus_client.core")
        exported, dropped = self._exported, self._dropped.copy()
        for exporter in (*self._exporters(), *self._retired):
            exported += exporter.exported
            dropped += exporter.dropped
        if not (exported or dropped or self._exporters()):
            return
        family = core.CounterMetricFamily("hms_spans_exported", "Spans that a collector has taken.")
        family.add_metric((), exported)
        yield family
        about = (
            "Spans that no collector has got: no room, refused, unreachable, or the end came first."
        )
        family = core.CounterMetricFamily("hms_spans_dropped", about, labels=("reason",))
        for reason in DROP_REASONS:
            family.add_metric((reason,), dropped[reason])
        yield family

    @hookimpl
    async def hms_shutdown(self) -> None:
        """Send what is left; a collector that hangs is left behind."""
        self._started = False
        exporters = (*self._exporters(), *self._retired)
        await asyncio.gather(*(exporter.close(CLOSING) for exporter in exporters))
        await self._tasks.close()

    # -- a request ------------------------------------------------------------------------------

    @hookimpl(tryfirst=True)
    def hms_identify(self, exchange: Exchange) -> None:
        """Decide whether it is recorded; before anybody may refuse it, as refusals are shown too."""
        trace = self._decide(exchange, exchange.head.get(b"traceparent"))
        if trace is not None:
            exchange.follow(trace)

    def _decide(self, exchange: Exchange, parent: bytes | None) -> Trace | None:
        if parent is not None:
            return Trace(parent) if is_sampled(parent) else None
        state = self._state_for(exchange)
        if state is None or self._rng.random() >= state.sample:
            return None
        return Trace()

    def _state_for(self, exchange: Exchange) -> _State | None:
        state, previous = self._state, self._previous
        if state is not None and state.snapshot is exchange.snapshot:
            return state
        if previous is not None and previous.snapshot is exchange.snapshot:
            return previous
        return state

    @hookimpl
    def hms_complete(self, exchange: Exchange) -> None:
        """Hand its record over, if it is recorded."""
        trace = exchange.trace
        if trace is None:
            if exchange.path:
                return
            # It was refused before any plugin saw it, for its target say.
            parent = get_field(exchange.fields, b"traceparent")
            if parent is not None and not is_traceparent(parent):
                parent = None
            trace = self._decide(exchange, parent)
            if trace is None:
                return
        state = self._state_for(exchange)
        exporter = None if state is None else state.exporter
        if exporter is not None:
            clock = self._clock
            exporter.offer(record_of(exchange, trace, clock.monotonic(), clock.wall()))


def _own_version() -> str:
    try:
        return version("hms-svc")
    except PackageNotFoundError:
        return ""
