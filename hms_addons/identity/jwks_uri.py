"""Keys that an issuer publishes at an address (`jwks_uri`), fetched in the background.

    start ──▶ fetching ──keys──▶ waiting (10 min, or as the issuer says) ──▶ fetching ──▶ …
                 └──failure──▶ waiting (1 s, 2 s, … 60 s): the old keys serve

One task per address asks, whatever the load; no request ever does. A request whose token names a
key that is not here may have the question put earlier, at most every 10 s, and wait for a moment for
the answer: that is how a key that an issuer has just begun to use is found.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

from hms_addons.clock import within
from hms_addons.identity.jwks_fetch import FetchedKeys, JwksFetchError, fetch_jwks
from hms_addons.identity.key_set import KeySet
from hms_addons.identity.svid import iso_time

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    import httpx

    from hms_addons.clock import Clock
    from hms_addons.tasks import TaskSet

logger = logging.getLogger(__name__)

LIFETIME: Final = 600.0
"""Seconds that fetched keys count where the issuer does not say (`Cache-Control: max-age`)."""
LIFETIME_RANGE: Final = (60.0, 3600.0)
"""What an issuer may say: no flood of questions, and a key that it withdraws is gone in an hour."""
REFRESH_AT: Final = (0.8, 0.9)
"""Shares of the lifetime between which it is asked again: not by all sidecars at once."""
RETRY_FIRST: Final = 1.0
"""Seconds until it is asked again after a failure, doubled with each further one up to …"""
RETRY_MAX: Final = 60.0
FETCH_TIMEOUT: Final = 5.0
"""Seconds for one whole answer."""
MISS_INTERVAL: Final = 10.0
"""Seconds between two questions for the sake of unknown keys: anybody can invent a key id."""
MISS_WAIT: Final = 2.0
"""Seconds that a request waits for such a question."""
MAX_WAITING: Final = 1000
"""Requests that wait at once; further ones are answered by the keys at hand."""


class UriKeySource:
    """One address, asked by one task, and the keys it last gave; a `KeySource`.

    Args:
        uri: see `fetch_jwks`.
        ca_file: see `fetch_jwks`.
        clock, rng, tasks: time, jitter, and the owner of the task.
        changed: called when `keys` has become another set.
        transport: see `fetch_jwks`.
    """

    def __init__(
        self,
        uri: str,
        ca_file: str | None,
        *,
        clock: Clock,
        rng: random.Random,
        tasks: TaskSet,
        changed: Callable[[], object],
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._uri = uri
        self._ca_file = ca_file
        self._clock = clock
        self._rng = rng
        self._tasks = tasks
        self._changed = changed
        self._transport = transport
        self._keys = KeySet()
        self._problem: str | None = None
        self._fetched_at: float | None = None
        self._failures = 0
        self._task: asyncio.Task[None] | None = None
        self._fetching = False
        self._asked_at = float("-inf")
        self._next_at = float("-inf")
        self._due = asyncio.Event()
        self._waiting: set[asyncio.Future[bool]] = set()

    def __repr__(self) -> str:
        return f"<UriKeySource {self.place} keys={len(self._keys.keys)} problem={self._problem!r}>"

    @property
    def place(self) -> str:
        """The address, without a query, which may hold what only the issuer should see."""
        return self._uri.partition("?")[0]

    @property
    def keys(self) -> KeySet:
        """See `KeySource`."""
        return self._keys

    @property
    def problem(self) -> str | None:
        """See `KeySource`."""
        return None if self._problem is None else f"{self.place}: {self._problem}"

    def refresh(self) -> bool:
        """See `KeySource`: the task does it, and tells of a change itself."""
        return False

    def status(self) -> dict[str, Any]:
        """When it was last asked with success, and when it will be, as JSON-ready types."""
        running = self._task is not None
        return {
            "uri": self.place,
            "fetched_at": None if self._fetched_at is None else iso_time(self._fetched_at),
            "next_fetch_in": round(self._remaining(), 1)
            if running and not self._fetching
            else None,
            "failures": self._failures,
        }

    # -- asking ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to ask, at once or when the keys at hand are due; a no-op if it has begun."""
        if self._task is None:
            self._task = self._tasks.start(self._ask_again_and_again(), self.place)

    def stop(self) -> None:
        """Stop asking; the keys at hand stay in use."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _ask_again_and_again(self) -> None:
        try:
            while True:
                await self._wait_until_due()
                self._fetching = True
                self._asked_at = self._clock.monotonic()
                try:
                    await self._ask()
                finally:
                    self._fetching = False
                self._release(fetched=self._problem is None)
        finally:
            self._release(fetched=False)

    async def _wait_until_due(self) -> None:
        self._due.clear()
        delay = self._remaining()
        if delay <= 0:
            return
        timer = self._clock.call_later(delay, self._due.set)
        try:
            await self._due.wait()
        finally:
            timer.cancel()

    async def _ask(self) -> None:
        try:
            async with within(self._clock, FETCH_TIMEOUT):
                fetched = await fetch_jwks(self._uri, self._ca_file, self._transport)
            self._take(fetched)
        except JwksFetchError as error:
            self._take_failure(str(error))
        except TimeoutError:
            self._take_failure(f"no whole answer within {FETCH_TIMEOUT:g}s")
        except Exception as error:
            # Whatever an issuer sends, the old keys serve, and it is asked again.
            logger.exception("the keys at %s could not be fetched", self.place)
            self._take_failure(repr(error))

    def _take(self, fetched: FetchedKeys) -> None:
        shortest, longest = LIFETIME_RANGE
        lifetime = LIFETIME if fetched.max_age is None else fetched.max_age
        lifetime = min(max(lifetime, shortest), longest)
        self._next_at = self._clock.monotonic() + lifetime * self._rng.uniform(*REFRESH_AT)
        self._fetched_at = self._clock.wall()
        if self._failures:
            logger.info("%s: it gives keys again", self.place)
        self._problem = None
        self._failures = 0
        if fetched.keys == self._keys:
            return
        for reason in fetched.keys.skipped:
            logger.info("%s: a key is not used: %s", self.place, reason)
        self._keys = fetched.keys
        self._changed()

    def _take_failure(self, why: str) -> None:
        delay = min(RETRY_FIRST * 2 ** min(self._failures, 10), RETRY_MAX)
        delay *= self._rng.uniform(0.75, 1.0)
        self._failures += 1
        self._next_at = self._clock.monotonic() + delay
        level = logging.WARNING if why != self._problem else logging.DEBUG
        kept = "; the old keys stay in use" if self._keys.keys else "; there are none yet"
        logger.log(level, "%s: %s%s; asking again in %.1f s", self.place, why, kept, delay)
        self._problem = why

    def _remaining(self) -> float:
        return max(0.0, self._next_at - self._clock.monotonic())

    # -- a request whose token names an unknown key ---------------------------------------------

    async def renewal(self) -> bool:
        """Wait until the issuer has been asked (again), for a moment.

        Returns:
            Whether it has answered since this call. False at once if it has been asked too lately,
            or too many wait already.
        """
        if self._task is None or len(self._waiting) >= MAX_WAITING:
            return False
        if not self._fetching:
            if self._clock.monotonic() - self._asked_at < MISS_INTERVAL:
                return False
            self._next_at = self._clock.monotonic()
            self._due.set()
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        timer = self._clock.call_later(MISS_WAIT, _settle, future, False)  # noqa: FBT003 - a callback's argument
        self._waiting.add(future)
        try:
            return await future
        finally:
            timer.cancel()
            self._waiting.discard(future)

    def _release(self, *, fetched: bool) -> None:
        for future in self._waiting:
            _settle(future, fetched)


def _settle(future: asyncio.Future[bool], result: bool) -> None:  # noqa: FBT001 - a callback
    if not future.done():
        future.set_result(result)
