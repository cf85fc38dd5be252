"""A race of tries: if the first is slow, another begins beside it; the first good answer counts.

What a try is, and whether another may begin, is the caller's to say: here is only who runs when, and
that nobody is left behind. The losers are cancelled, which closes their connections.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NamedTuple

from hms_addons.errors import ExchangeFailed
from hms_addons.http_message import Answer
from hms_addons.upstream.outcome import UpstreamError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from hms_addons.clock import Clock
    from hms_addons.tasks import TaskSet

type Outcome = Answer | UpstreamError | ExchangeFailed

HEDGED_METHODS: Final = frozenset({b"GET", b"HEAD", b"OPTIONS"})
_SERVER_ERROR: Final = 500


class Finish(NamedTuple):
    """How a race ended."""

    number: int
    """Of the try that counts, from 0."""
    outcome: Outcome
    lost: tuple[int, ...]
    """Tries that were cancelled while they were still running."""


async def race(
    first: Coroutine[Any, Any, Answer],
    another: Callable[[], Coroutine[Any, Any, Answer] | None],
    delay: float,
    clock: Clock,
    tasks: TaskSet,
) -> Finish:
    """Run `first`, and after `delay` seconds without an end of it `another()`, and so on.

    Args:
        first: a try.
        another: begins a further one; None: no more.
        delay: seconds after which the next begins.
        clock: time.
        tasks: owner of the tries while they run.

    Returns:
        The first good answer (not 5xx); if there is none, the last bad one, else what a try was lost by.
        Every other answer has been released.
    """
    field = _Field(delay, clock, tasks, another)
    try:
        return await field.run(first)
    finally:
        field.clear()


class _Field:
    """The tries of one race."""

    def __init__(
        self,
        delay: float,
        clock: Clock,
        tasks: TaskSet,
        another: Callable[[], Coroutine[Any, Any, Answer] | None],
    ) -> None:
        self._delay = delay
        self._clock = clock
        self._tasks = tasks
        self._another = another
        self._tries: list[asyncio.Task[Outcome]] = []
        self._running: set[asyncio.Task[Outcome]] = set()
        self._waiter: asyncio.Future[None] | None = None
        self._late = False
        self._best: asyncio.Task[Outcome] | None = None
        self._timer = clock.call_later(delay, self._is_late)

    async def run(self, first: Coroutine[Any, Any, Answer]) -> Finish:
        self._start(first)
        while True:
            for task in self._tries:
                if task in self._running and task.done():
                    self._running.discard(task)
                    if self._settle(task):
                        return self._finish(task)
            if not self._running:
                assert self._best is not None  # noqa: S101 - there was a first
                return self._finish(self._best)
            if self._late:
                self._late = False
                coroutine = self._another()
                if coroutine is not None:
                    self._start(coroutine)
                    self._timer = self._clock.call_later(self._delay, self._is_late)
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    def _start(self, coroutine: Coroutine[Any, Any, Answer]) -> None:
        task = self._tasks.start(_caught(coroutine), "hedged try")
        task.add_done_callback(self._wake)
        self._tries.append(task)
        self._running.add(task)

    def _wake(self, _: object = None) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _is_late(self) -> None:
        self._late = True
        self._wake()

    def _settle(self, task: asyncio.Task[Outcome]) -> bool:
        """True if this one wins; otherwise it is kept while there is nothing better."""
        outcome = task.result()
        if isinstance(outcome, Answer) and outcome.status < _SERVER_ERROR:
            return True
        if self._best is None or _rank(outcome) >= _rank(self._best.result()):
            self._best = task
        return False

    def _finish(self, task: asyncio.Task[Outcome]) -> Finish:
        lost = tuple(n for n, other in enumerate(self._tries) if other in self._running)
        number = self._tries.index(task)
        self._tries.remove(task)  # so that `clear` leaves its answer alone
        return Finish(number, task.result(), lost)

    def clear(self) -> None:
        """Cancel what runs, release what nobody takes."""
        self._timer.cancel()
        for task in self._tries:
            if not task.done():
                task.cancel()
            elif not task.cancelled() and task.exception() is None:
                outcome = task.result()
                if isinstance(outcome, Answer):
                    outcome.release()


def _rank(outcome: Outcome) -> int:
    """What tells the caller, or the retry policy, more."""
    return 2 if isinstance(outcome, Answer) else 1 if isinstance(outcome, UpstreamError) else 0


async def _caught(coroutine: Coroutine[Any, Any, Answer]) -> Outcome:
    try:
        return await coroutine
    except (UpstreamError, ExchangeFailed) as error:
        return error
