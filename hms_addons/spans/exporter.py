"""The queue of spans, and the one task that empties it. What finds no room is dropped, and counted.

    offer ──▶ queue (at most MAX_QUEUED spans) ──▶ batch (at most MAX_BATCH) ──▶ collector
                │ full                                 │ refused, or MAX_TRIES in vain
                └──────────────▶ dropped ◀─────────────┘

No request waits for any of it. All runs on the event loop, and lets it go on after every few spans: a
thread would hold the interpreter while it encodes, and with it every request.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from typing import TYPE_CHECKING, Any, Final

from hms_addons.clock import within
from hms_addons.spans.collector import Collector
from hms_addons.spans.otlp import SpanEncoder
from hms_addons.spans.record import MAX_TEXT

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping

    import httpx

    from hms_addons.clock import Clock
    from hms_addons.spans.collector import Reply
    from hms_addons.spans.record import RequestRecord
    from hms_addons.tasks import TaskSet

logger = logging.getLogger(__name__)

MAX_QUEUED: Final = 4096
"""Spans that wait, about 1 KB each."""
MAX_BATCH: Final = 512
"""Spans that go out at once, as in OpenTelemetry's own processors."""
DELAY: Final = 1.0
"""Seconds that a span waits at most for others to go with it."""
MAX_TRIES: Final = 4
"""Of one batch."""
RETRY_FIRST: Final = 1.0
"""Seconds until a collector that failed is asked again, doubled with each further failure up to …"""
RETRY_MAX: Final = 30.0
WARN_EVERY: Final = 60.0
"""Seconds between two warnings."""
_SLICE: Final = 8
"""Records that are encoded without letting the loop go on; 0.3 ms."""


class SpanExporter:
    """Sends spans to one collector.

    Args:
        url: where.
        headers: what goes with each batch, secrets included.
        timeout: seconds that a batch may take.
        resource: the attributes of this sidecar.
        clock, rng, tasks: time, jitter, and the owner of the task.
        transport: see `Collector`.

    Attributes:
        exported: spans that the collector has taken.
        dropped: spans that it has not, by reason: `queue_full`, `refused` (by the collector),
            `unreachable` (given up), `failed` (a fault of ours), `shutdown`.
        error: why the last batch was in vain; None if it was not.
    """

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        timeout: float,
        resource: Mapping[str, str],
        *,
        clock: Clock,
        rng: random.Random,
        tasks: TaskSet,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.url = url
        self.exported = 0
        self.dropped: Counter[str] = Counter()
        self.error: str | None = None
        self._headers = headers
        self._timeout = timeout
        self._resource = resource
        self._encoder = SpanEncoder(resource)
        self._clock = clock
        self._rng = rng
        self._tasks = tasks
        self._transport = transport
        self._queue: deque[RequestRecord] = deque()
        self._queued = 0
        self._sending = 0
        self._some = asyncio.Event()
        self._enough = asyncio.Event()
        """A whole batch is there, or this is the end."""
        self._closing = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._failures = 0
        self._warned_at = float("-inf")

    def __repr__(self) -> str:
        return f"<SpanExporter {self.url} queued={self._queued} exported={self.exported}>"

    def sends(
        self, url: str, headers: Mapping[str, str], timeout: float, resource: Mapping[str, str]
    ) -> bool:
        """Whether this is the one for these."""
        mine = (self.url, self._headers, self._timeout, self._resource)
        return mine == (url, headers, timeout, resource)

    def status(self) -> dict[str, Any]:
        """JSON-ready; no headers, which may be secrets."""
        return {
            "url": self.url,
            "exported": self.exported,
            "dropped": dict(sorted(self.dropped.items())),
            "queued": self._queued + self._sending,
            "error": self.error,
        }

    # -- a request ------------------------------------------------------------------------------

    def offer(self, record: RequestRecord) -> None:
        """Take a record, or count its spans as dropped."""
        spans = record.spans
        if self._queued + spans > MAX_QUEUED or self._closing.is_set():
            self._drop("queue_full", spans)
            return
        self._queue.append(record)
        self._queued += spans
        if len(self._queue) == 1:
            self._some.set()
        if self._queued >= MAX_BATCH:
            self._enough.set()

    def _drop(self, reason: str, spans: int) -> None:
        self.dropped[reason] += spans

    # -- sending --------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to send."""
        if self._task is None:
            self._task = self._tasks.start(self._send_all(), "spans")

    async def close(self, seconds: float) -> None:
        """Send what is left, for no longer than `seconds`; what then is left is dropped."""
        self._closing.set()
        self._some.set()
        self._enough.set()
        task, self._task = self._task, None
        if task is not None:
            try:
                async with within(self._clock, seconds):
                    await asyncio.wait([task])
            except TimeoutError:
                task.cancel()
                await asyncio.wait([task])
        left = self._queued + self._sending
        if left:
            self._drop("shutdown", left)
            self._queue.clear()
            self._queued = self._sending = 0
            logger.warning("%d spans are lost: %s had not taken them in time", left, self.url)

    async def _send_all(self) -> None:
        collector = Collector(self.url, self._headers, self._timeout, self._clock, self._transport)
        try:
            while True:
                await self._some.wait()
                if not self._queue:
                    return  # it is closing
                try:
                    async with within(self._clock, DELAY):
                        await self._enough.wait()
                except TimeoutError:
                    pass
                try:
                    await self._send(collector, await self._next_batch())
                except Exception as error:  # noqa: BLE001 - this task is all there is to send them
                    self._fail(error)
        finally:
            await collector.close()

    def _fail(self, error: Exception) -> None:
        """Give up a batch that could not be made or sent, and go on with the next."""
        self._drop("failed", self._sending)
        self._sending = 0
        self._complain(f"{type(error).__name__}: {error}"[:MAX_TEXT])

    async def _next_batch(self) -> bytes:
        """Take the oldest records out of the queue, and encode them."""
        batch = self._encoder.batch()
        taken = 0
        try:
            while self._queue and len(batch) < MAX_BATCH:
                record = self._queue.popleft()
                self._queued -= record.spans
                self._sending += record.spans
                batch.add(record)
                taken += 1
                if taken % _SLICE == 0:
                    await asyncio.sleep(0)
        finally:
            if not self._closing.is_set():
                if not self._queue:
                    self._queued = 0
                    self._some.clear()
                if self._queued < MAX_BATCH:
                    self._enough.clear()
        return batch.encoded()

    async def _send(self, collector: Collector, body: bytes) -> None:
        """Send a batch until it is taken, or given up."""
        for number in range(1, MAX_TRIES + 1):
            reply = await collector.post(body)
            if reply.taken:
                self._take(reply)
                return
            self._failures += 1
            final = number == MAX_TRIES or not reply.retriable or self._closing.is_set()
            if final:
                self._drop("unreachable" if reply.retriable else "refused", self._sending)
                self._sending = 0
            self._complain(reply.error)
            if not reply.retriable:
                return
            wait = min(RETRY_FIRST * 2 ** min(self._failures - 1, 10), RETRY_MAX)
            wait = max(wait * self._rng.uniform(0.75, 1.0), min(reply.retry_after or 0, RETRY_MAX))
            if self._closing.is_set():
                return
            try:
                async with within(self._clock, wait):
                    await self._closing.wait()
            except TimeoutError:
                pass
            if final:
                return

    def _take(self, reply: Reply) -> None:
        try:
            rejected, why = self._encoder.rejected(reply.body)
        except ValueError:
            rejected, why = 0, ""  # what took them speaks another dialect
        rejected = min(max(rejected, 0), self._sending)
        self.exported += self._sending - rejected
        self._sending = 0
        if rejected:
            self._drop("refused", rejected)
            self._complain(f"{rejected} spans were refused: {why[:200]!r}")
            return
        if self.error is not None:
            logger.info("spans: %s takes them again", self.url)
            self._warned_at = float("-inf")
        self.error = None
        self._failures = 0

    def _complain(self, error: str) -> None:
        self.error = error
        now = self._clock.monotonic()
        if now - self._warned_at < WARN_EVERY:
            return
        self._warned_at = now
        logger.warning(
            "spans: %s does not take them: %s; %d were dropped so far",
            self.url,
            error,
            self.dropped.total(),
        )
