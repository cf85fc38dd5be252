"""`governance`: the policy version that every request carries, from HMS-GOV.

`GET {url}/policy-header` is asked by one background task per sidecar, shortly before the last
answer runs out: never by a request, so whatever the load there is one question per TTL, and no
request waits but those that come before the very first answer.

    answered ──ttl──▶ fresh ──max_stale──▶ stale, still sent ──▶ gone: 503 `GOV`, or without it
"""

from __future__ import annotations

import importlib
import random
from typing import TYPE_CHECKING, Any

from hms_addons.clock import SYSTEM_CLOCK
from hms_addons.config.policy_source import PolicySource
from hms_addons.errors import Fault
from hms_addons.hookspecs import hookimpl
from hms_addons.tasks import TaskSet

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Collection, Iterator

    import httpx

    from hms_addons.clock import Clock
    from hms_addons.config.snapshot import Snapshot
    from hms_addons.exchange import Exchange
    from hms_addons.hookspecs import Mesh


class Governance:
    """The built-in plugin `governance`.

    Args:
        clock: when to ask, and how long an answer counts.
        rng: spreads the questions of many sidecars.
        transport: stands in for the network (httpx's own seam); None is the network.
    """

    def __init__(
        self,
        *,
        clock: Clock = SYSTEM_CLOCK,
        rng: random.Random | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._clock = clock
        self._rng = rng or random.Random()  # noqa: S311 - jitter, not a secret
        self._transport = transport
        self._tasks = TaskSet("governance")
        self._started = False
        # What the newest snapshot asks for, and the one before: a candidate may be refused yet.
        self._snapshot: Snapshot | None = None
        self._source: PolicySource | None = None
        self._old_snapshot: Snapshot | None = None
        self._old_source: PolicySource | None = None
        self.unversioned = 0
        """Requests that went without the header, because `on_failure` is `open`."""
        self.refused = 0
        """Requests that were refused, because it is `closed`."""

    def __repr__(self) -> str:
        return f"<Governance {self._source}>"

    @hookimpl
    def hms_configure(self, snapshot: Snapshot) -> None:
        """Ask where the snapshot says; an answer stays in use as long as the same one is asked."""
        source = self._source_for(snapshot)
        self._old_snapshot, self._snapshot = self._snapshot, snapshot
        if source is self._source:
            self._old_source = source
            return
        self._old_source, self._source = self._source, source
        if self._old_source is not None:
            self._old_source.stop()
        if source is not None and self._started:
            source.start()

    def _source_for(self, snapshot: Snapshot) -> PolicySource | None:
        spec = snapshot.governance
        if spec is None:
            return None
        # Here, before the sidecar is ready: its import takes 0.3 s, during which nothing else runs.
        importlib.import_module("httpx")
        for known in (self._source, self._old_source):
            if known is not None and known.asks(spec, snapshot.headers):
                return known
        source = PolicySource(
            spec,
            snapshot.headers,
            clock=self._clock,
            rng=self._rng,
            tasks=self._tasks,
            transport=self._transport,
        )
        if self._source is not None:
            source.inherit(self._source)
        return source

    @hookimpl
    def hms_idle_hooks(self, snapshot: Snapshot) -> Collection[str]:
        """Nothing to do where nobody governs."""
        return () if snapshot.governance is not None else ("hms_prepare",)

    @hookimpl
    def hms_startup(self, mesh: Mesh) -> None:
        """Begin to ask. Does not wait: without an answer the sidecar starts all the same."""
        mesh.add_status("governance", self._status)
        mesh.add_metrics("governance", self)
        self._started = True
        if self._source is not None:
            self._source.start()

    def _status(self) -> dict[str, Any] | None:
        """JSON-ready; None where nothing is asked for."""
        if self._source is None:
            return None
        return self._source.status() | {"unversioned": self.unversioned, "refused": self.refused}

    def collect(self) -> Iterator[Any]:
        """For `/metrics`: the version in force, how old it is, and who went without one."""
        # Here: a sidecar that nobody scrapes need not hold it.
        core = importlib.import_module("prometheus_client.core")
        source = self._source
        if source is not None:
            found = source.status()
            info = core.GaugeMetricFamily(
                "hms_policy_version_info",
                "1 for the policy version that requests carry.",
                labels=("version",),
            )
            age = core.GaugeMetricFamily(
                "hms_policy_version_age_seconds", "Since HMS-GOV's last answer that could be used."
            )
            changes = core.CounterMetricFamily(
                "hms_policy_version_changes", "Answers that differed from the one before."
            )
            if found["version"] is not None:
                info.add_metric((found["version"],), 1)
            if found["age_s"] is not None:
                age.add_metric((), found["age_s"])
            changes.add_metric((), found["changes"])
            yield from (info, age, changes)
        without = core.CounterMetricFamily(
            "hms_requests_without_policy_version",
            "Requests for which there was no policy version: sent without (open), or refused (closed).",
            labels=("on_failure",),
        )
        without.add_metric(("open",), self.unversioned)
        without.add_metric(("closed",), self.refused)
        yield without

    @hookimpl
    async def hms_shutdown(self) -> None:
        """Stop asking."""
        self._started = False
        await self._tasks.close()

    @hookimpl
    def hms_prepare(self, exchange: Exchange) -> Awaitable[None] | None:
        """Set the policy version header; a plain call but for requests before the first answer."""
        source = self._old_source if exchange.snapshot is self._old_snapshot else self._source
        if source is None:
            return None
        if self._clock.monotonic() < source.serves_until:
            _apply(source, exchange)
        elif source.first is not None:
            return self._wait(exchange, source, source.first)
        else:
            self._go_without(exchange, source)
        return None

    async def _wait(self, exchange: Exchange, source: PolicySource, first: asyncio.Event) -> None:
        """Wait for the one question that is under way; it ends within `timeout`."""
        await first.wait()
        if self._clock.monotonic() < source.serves_until:
            _apply(source, exchange)
        else:
            self._go_without(exchange, source)

    def _go_without(self, exchange: Exchange, source: PolicySource) -> None:
        if source.spec.fail_open:
            self.unversioned += 1
            _strip(source, exchange)
            return
        self.refused += 1
        exchange.fail(
            Fault.NO_POLICY_VERSION, source.complaint(), retry_after=source.next_question_in()
        )


def _apply(source: PolicySource, exchange: Exchange) -> None:
    """Set what governance asks for."""
    if source.others:
        _strip(source, exchange)
    exchange.add_vouched(source.fields)


def _strip(source: PolicySource, exchange: Exchange) -> None:
    """Remove what a caller has sent under names that governance uses.

    The policy version header, and those that `governance.headers` names, went before any plugin ran,
    with the mesh's own ones.
    """
    others = source.others
    if others:
        data = exchange.flow.request.data
        for section in (data.headers, data.trailers):
            if section is not None:
                # Servers that turn both into `_` cannot tell `X_A` from `X-A`.
                section.fields = tuple(
                    field
                    for field in section.fields
                    if field[0].lower().replace(b"_", b"-") not in others
                )
