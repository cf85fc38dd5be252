"""One HMS-GOV, asked by one task for the whole sidecar, and its last answer.

answered ──ttl──▶ fresh ──max_stale──▶ stale, still sent ──▶ gone
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from hms_addons.config.policy_question import ask_policy, open_client

if TYPE_CHECKING:
    import random

    import httpx

    from hms_addons.clock import Clock
    from hms_addons.config.policy_header import PolicyHeader
    from hms_addons.config.snapshot import Governance as GovernanceSpec
    from hms_addons.config.snapshot import HeaderNames
    from hms_addons.http_message import Fields
    from hms_addons.tasks import TaskSet

logger = logging.getLogger(__name__)

REFRESH_AT: Final = (0.8, 0.9)
"""Shares of the TTL between which it is asked again: before it runs out, and not all sidecars at
once."""
RETRY_FIRST: Final = 1.0
"""Seconds until it is asked again after a failure, doubled with each further one up to …"""
RETRY_MAX: Final = 30.0
"""… this, or a TTL that is shorter: so often it is asked when all is well, too."""

_NEVER: Final = float("-inf")


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
        self.others: frozenset[bytes] = frozenset()
        """Names in lower case that it has used, and that the mesh does not own anyway."""
        self.changes = 0
        """How often an answer was another than the one before."""
        self._headers = headers
        self._clock = clock
        self._rng = rng
        self._tasks = tasks
        self._transport = transport
        self._answer: PolicyHeader | None = None
        self._answered_at = _NEVER
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
            self.others = other.others
            self.changes = other.changes
            self._schedule()

    def status(self) -> dict[str, Any]:
        """JSON-ready: what is sent, how old it is, and why it is not renewed."""
        now, answer = self._clock.monotonic(), self._answer
        sent = answer is not None and now < self.serves_until
        return {
            "url": self.place,
            "version": answer.version if answer is not None and sent else None,
            "headers": {name.decode(): value.decode() for name, value in self.fields}
            if sent
            else {},
            "age_s": None if answer is None else round(now - self._answered_at, 3),
            "stale": answer is not None
            and now >= self._answered_at + (answer.ttl or self.spec.ttl),
            "serves_for_s": round(self.serves_until - now, 3) if sent else 0.0,
            "changes": self.changes,
            "error": self.error,
        }

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
            self.changes += 1
            if before.version != answer.version:
                logger.info("policy version %s instead of %s", answer.version, before.version)
            else:
                names = ", ".join(sorted(_changed(before.fields, answer.fields)))
                logger.info("policy version %s has another %s", answer.version, names)
        elif self.error is not None:
            logger.info("HMS-GOV at %s answers again", self.place)
        self.error = None
        self._failures = 0
        self._answer = answer
        self._answered_at = self._clock.monotonic()
        owned = {name.lower() for name in self._headers.all}
        # Once governance has used a name, no caller may: also while there is no answer.
        self.others |= {name.lower() for name, _ in answer.fields if name.lower() not in owned}
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
        most = min(RETRY_MAX, max(RETRY_FIRST, self.spec.ttl))
        delay = min(RETRY_FIRST * 2 ** min(self._failures - 1, 10), most)
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

    @property
    def fields(self) -> Fields:
        """What a request is to carry; nothing before the first answer."""
        return () if self._answer is None else self._answer.fields

    def complaint(self) -> str:
        """Why there is nothing to send, and what to do about it."""
        why = self.error or "it has not been asked yet"
        what = "no policy version yet" if self._answer is None else "only one that is too old"
        return (
            f"there is {what} from HMS-GOV at {self.place} ({why}); "
            "`governance.on_failure: open` would let requests go without"
        )


def _changed(before: Fields, after: Fields) -> set[str]:
    """The names whose value is another, or that are there only once."""
    return {name.decode() for name, _ in set(before) ^ set(after)}
