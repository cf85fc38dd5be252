"""Mirroring: a copy of some requests goes to another cluster, whose answers nobody sees.

A copy never slows the original: it is made and sent in a task of its own, waits in no queue, and is
left out, and counted, where the other cluster's breaker or the memory for held bodies has no room. It
is an ordinary request to that cluster: it occupies its slots, has a timeout, and its outcome counts for
the endpoint that it met (as Envoy's shadow requests do). The original's end is not the copy's.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from hms_addons.errors import ExchangeFailed, Flag
from hms_addons.exchange import Draft, Exchange
from hms_addons.http_message import BodyStream
from hms_addons.upstream.forwarding import Forwarding
from hms_addons.upstream.outcome import UpstreamError

if TYPE_CHECKING:
    import asyncio
    import random

    from mitmproxy.http import HTTPFlow

    from hms_addons.config.snapshot import Route
    from hms_addons.config.snapshot_forwarding import Mirror
    from hms_addons.http_message import Fields
    from hms_addons.tasks import TaskSet
    from hms_addons.upstream.cluster_manager import ClusterManager

MARK: Final = (b"X-HMS-Mirror", b"1")
MAX_HELD: Final = 64 * 1024 * 1024
"""Bytes of request bodies that copies in flight may hold, all together."""
MAX_DRAINED: Final = 1024 * 1024
"""Bytes of an answer that are read so that its connection can be used again."""

_PORT = re.compile(rb"(:[0-9]*)?\Z")


class Mirrors:
    """Sends copies, and counts what became of them.

    Args:
        manager: the clusters.
        tasks: for the copies.
        rng: draws which requests are mirrored.

    Attributes:
        counts: by cluster and outcome: `answered`, `failed`, `dropped` (no room), `streaming` and
            `upgrade` (requests that are not copied).
    """

    def __init__(self, manager: ClusterManager, tasks: TaskSet, rng: random.Random) -> None:
        self._manager = manager
        self._tasks = tasks
        self._rng = rng
        self._held = 0
        self.in_flight = 0
        self.counts: Counter[tuple[str, str]] = Counter()

    def __repr__(self) -> str:
        return f"<Mirrors in_flight={self.in_flight} held={self._held}>"

    def send(self, exchange: Exchange, route: Route) -> None:
        """Send the copies that `route` asks for; never waits, never raises for want of anything."""
        for mirror in route.mirrors:
            if self._rng.random() * 100 < mirror.percent:
                self._send(exchange, mirror)

    def _send(self, exchange: Exchange, mirror: Mirror) -> None:
        name = mirror.cluster
        if self._tasks.closed or (exchange.cluster is not None and exchange.cluster.name == name):
            return  # where the request itself goes, a copy would execute it twice
        content = exchange.content or b""
        why_not = self._why_not(exchange, name, len(content))
        if why_not is not None:
            self.counts[name, why_not] += 1
            return
        self._held += len(content)
        self.in_flight += 1
        task = self._tasks.start(self._carry(_copy(exchange, mirror), name), f"mirror to {name}")

        def over(_: asyncio.Task[Any]) -> None:
            self._held -= len(content)
            self.in_flight -= 1

        task.add_done_callback(over)

    def _why_not(self, exchange: Exchange, name: str, size: int) -> str | None:
        if exchange.body is not None:
            return "streaming"
        if b"upgrade" in exchange.head:
            return "upgrade"
        cluster = self._manager.get(name)
        if cluster is None or self._held + size > MAX_HELD or not cluster.breaker.has_room:
            return "dropped"
        return None

    async def _carry(self, copy: Exchange, name: str) -> None:
        try:
            answer = await Forwarding(copy, self._manager).run()
            try:
                if isinstance(answer.body, BodyStream):
                    await _drain(answer.body)
            finally:
                answer.release()
        except ExchangeFailed as failed:
            outcome = "dropped" if failed.failure.flag is Flag.UO else "failed"
        except (UpstreamError, OSError):
            outcome = "failed"
        else:
            outcome = "answered"
        self.counts[name, outcome] += 1

    def forget(self, name: str) -> None:
        """The cluster is no more."""
        for key in [key for key in self.counts if key[0] == name]:
            del self.counts[key]

    def describe(self, name: str) -> dict[str, int] | None:
        """What became of copies for a cluster, for `/clusters`; None if there were none."""
        counts = {outcome: n for (cluster, outcome), n in self.counts.items() if cluster == name}
        return dict(sorted(counts.items())) or None


async def _drain(body: BodyStream) -> None:
    async for _ in body:
        if body.received > MAX_DRAINED:
            return


def _copy(exchange: Exchange, mirror: Mirror) -> Exchange:
    """The same request as an exchange of its own; its body is not copied but shared."""
    fields = _marked(exchange.fields)
    draft = Draft(
        exchange.method_bytes, exchange.target, fields, exchange.content, exchange, _make_flow
    )
    copy = Exchange(
        None, exchange.snapshot, exchange.listener, exchange.started, draft, exchange.id
    )
    copy.route = mirror.route
    copy.cluster = exchange.snapshot.clusters[mirror.cluster]
    copy.head = exchange.head
    copy.path, copy.query, copy.service = exchange.path, exchange.query, exchange.service
    copy.peer, copy.principal = exchange.peer, exchange.principal
    copy.request_id = exchange.request_id
    return copy


def _marked(fields: Fields) -> Fields:
    """Envoy, too, writes `-shadow` behind the host, before the port."""
    kept = []
    for name, value in fields:
        lower = name.lower()
        if lower == b"host":
            kept.append((name, _PORT.sub(rb"-shadow\1", value, count=1)))
        elif lower != b"x-hms-mirror":
            kept.append((name, value))
    return (*kept, MARK)


def _make_flow(_: Exchange, draft: Draft) -> HTTPFlow:
    """Only for a plugin that looks at the flow of a copy (`hms_pick_endpoint`)."""
    original: Exchange = draft.origin
    flow: HTTPFlow = original.flow.copy()
    flow.request.data.headers.fields = draft.fields
    return flow
