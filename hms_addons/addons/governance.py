"""`governance`: the policy version that every request carries, from HMS-GOV.

`GET {url}/policy-header` is asked by one background task per sidecar, shortly before the last
answer runs out: never by a request, so whatever the load there is one question per TTL, and no
request waits but those that come before the very first answer.

    answered ──ttl──▶ fresh ──max_stale──▶ stale, still sent ──▶ gone: 503 `GOV`, or without it
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import random
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from hms_addons.clock import SYSTEM_CLOCK
from hms_addons.config.policy_question import ask_policy, open_client
from hms_addons.errors import Fault
from hms_addons.hookspecs import hookimpl
from hms_addons.tasks import TaskSet

if TYPE_CHECKING:
    from collections.abc import Awaitable

    import httpx

    from hms_addons.clock import Clock
    from hms_addons.config.policy_header import PolicyHeader
    from hms_addons.config.snapshot import Governance as GovernanceSpec
    from hms_addons.config.snapshot import HeaderNames, Snapshot
    from hms_addons.exchange import Exchange
    from hms_addons.hookspecs import Mesh

logger = logging.getLogger(__name__)

REFRESH_AT: Final = (0.8, 0.9)
"""Shares of the TTL between which it is asked again: before it runs out, and not all sidecars at
once."""
RETRY_FIRST: Final = 1.0
"""Seconds until it is asked again after a failure, doubled with each further one up to …"""
RETRY_MAX: Final = 30.0

_NEVER: Final = float("-inf")


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
    def hms_startup(self, mesh: Mesh) -> None:
        """Begin to ask. Does not wait: without an answer the sidecar starts all the same."""
        del mesh
        self._started = True
        if self._source is not None:
            self._source.start()

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
            source.apply(exchange)
        elif source.first is not None:
            return self._wait(exchange, source, source.first)
        else:
            self._go_without(exchange, source)
        return None

    async def _wait(self, exchange: Exchange, source: PolicySource, first: asyncio.Event) -> None:
        """Wait for the one question that is under way; it ends within `timeout`."""
        await first.wait()
        if self._clock.monotonic() < source.serves_until:
            source.apply(exchange)
        else:
            self._go_without(exchange, source)

    def _go_without(self, exchange: Exchange, source: PolicySource) -> None:
        if source.spec.fail_open:
            self.unversioned += 1
            source.strip(exchange)
            return
        exchange.fail(
            Fault.NO_POLICY_VERSION, source.complaint(), retry_after=source.next_question_in()
        )


class PolicySource:
    """One HMS-GOV, asked by one task, and its last answer.

    Args:
        spec: where and how often to ask.
        headers: the names of the mesh's own headers.
        clock, rng, tasks: time, jitter, and the owner of the task.
        transport: see `Governance`.
    """

    def __init__(
        self,
        spec: GovernanceSpec,
        headers: HeaderNames,
        *,
        clock: Clock,
        rng: random.Random,
        tasks: TaskSet,
        transport: httpx.AsyncBaseTransport | None,
    ) -> None:
        self.spec = spec
        self.serves_until = _NEVER
        """Monotonic seconds until which the answer may be sent."""
        self.first: asyncio.Event | None = None
        """While the very first question is under way: set when it has ended, one way or the other."""
        self.error: str | None = None
        """Why the last question was in vain; None when it was not."""
        self._headers = headers
        self._clock = clock
        self._rng = rng
        self._tasks = tasks
        self._transport = transport
        self._answer: PolicyHeader | None = None
        self._answered_at = _NEVER
        self._others: frozenset[bytes] = frozenset()
        self._next_at = _NEVER
        self._failures = 0
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        version = self._answer.version if self._answer is not None else None
        return f"<PolicySource {self.place} version={version} error={self.error!r}>"

    @property
    def place(self) -> str:
        """The address that is asked, without a password that may be in it."""
        parts = urlsplit(self.spec.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"

    def asks(self, spec: GovernanceSpec, headers: HeaderNames) -> bool:
        """Whether this is the source for `spec`."""
        return self.spec == spec and self._headers == headers

    def inherit(self, other: PolicySource) -> None:
        """Go on with the answer of a source that asked the same, by other intervals."""
        if other.spec.url == self.spec.url and other._headers == self._headers:
            self._answer = other._answer
            self._answered_at = other._answered_at
            self._others = other._others
            self._schedule()

    # -- asking ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to ask, at once or when the answer at hand is due to be renewed."""
        if self._task is None:
            if self._answer is None:
                self.first = asyncio.Event()
            self._task = self._tasks.start(self._ask_again_and_again(), self.place)

    def stop(self) -> None:
        """Stop asking; what has been answered stays in use as long as it may."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
        self._end_first()

    def _end_first(self) -> None:
        if self.first is not None:
            self.first.set()
            self.first = None

    async def _ask_again_and_again(self) -> None:
        try:
            async with open_client(self.spec, self._transport) as client:
                while True:
                    delay = self.next_question_in()
                    if delay > 0:
                        await self._clock.sleep(delay)
                    await self._ask(client)
                    self._end_first()
        finally:
            self._end_first()

    async def _ask(self, client: httpx.AsyncClient) -> None:
        """Ask once, and take the answer in. Never raises but when cancelled."""
        question = self._tasks.start(self._outcome(client), "question")
        # httpx's own timeouts are per read: an answer that drips in would have no end.
        timer = self._clock.call_later(self.spec.timeout, question.cancel)
        try:
            outcome = await question
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not question.cancelled() or (task is not None and task.cancelling()):
                raise
            outcome = f"no whole answer within {self.spec.timeout:g}s"
        finally:
            timer.cancel()
            question.cancel()
        if isinstance(outcome, str):
            self._take_failure(outcome)
        else:
            self._take(outcome)

    async def _outcome(self, client: httpx.AsyncClient) -> PolicyHeader | str:
        """The answer, or why there is none."""
        try:
            return await ask_policy(client, self.spec, self._headers)
        except Exception as error:
            logger.exception("HMS-GOV at %s could not be asked", self.place)
            return repr(error)

    def _take(self, answer: PolicyHeader) -> None:
        before = self._answer
        if before is None:
            logger.info("policy version %s, from %s", answer.version, self.place)
        elif before.fields != answer.fields:
            logger.info("policy version %s instead of %s", answer.version, before.version)
        elif self.error is not None:
            logger.info("HMS-GOV at %s answers again", self.place)
        self.error = None
        self._failures = 0
        self._answer = answer
        self._answered_at = self._clock.monotonic()
        own = self._headers.policy_version.lower()
        # Once governance has used a name, no caller may: also while there is no answer.
        self._others |= {name.lower() for name, _ in answer.fields if name.lower() != own}
        self._schedule()

    def _schedule(self) -> None:
        """When the answer at hand is renewed, and how long it may be sent if that fails."""
        if self._answer is None:
            return
        ttl = self._answer.ttl or self.spec.ttl
        self.serves_until = self._answered_at + ttl + self.spec.max_stale
        self._next_at = self._answered_at + ttl * self._rng.uniform(*REFRESH_AT)

    def _take_failure(self, error: str) -> None:
        self.error = error
        self._failures += 1
        delay = min(RETRY_FIRST * 2 ** min(self._failures - 1, 10), RETRY_MAX)
        delay *= self._rng.uniform(0.75, 1.0)
        self._next_at = self._clock.monotonic() + delay
        kept = "" if self._answer is None else f"; {self._answer.version} stays in use for now"
        logger.warning(
            "HMS-GOV at %s: %s%s; asking again in %.1f s", self.place, error, kept, delay
        )

    def next_question_in(self) -> float:
        """Seconds; 0 if it is due."""
        return max(0.0, self._next_at - self._clock.monotonic())

    # -- a request ------------------------------------------------------------------------------

    def apply(self, exchange: Exchange) -> None:
        """Set what governance asks for."""
        answer = self._answer
        if answer is None:
            return
        if self._others:
            self.strip(exchange)
        exchange.add_vouched(answer.fields)

    def strip(self, exchange: Exchange) -> None:
        """Remove what a caller has sent under names that governance uses.

        The policy version header itself went before any plugin ran, with the mesh's own ones.
        """
        others = self._others
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

    def complaint(self) -> str:
        """Why there is nothing to send, and what to do about it."""
        why = self.error or "it has not been asked yet"
        what = "no policy version yet" if self._answer is None else "only one that is too old"
        return (
            f"there is {what} from HMS-GOV at {self.place} ({why}); "
            "`governance.on_failure: open` would let requests go without"
        )
