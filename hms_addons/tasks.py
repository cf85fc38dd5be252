"""The one wrapper over `asyncio.create_task`.

A bare `create_task` loses two things: the task itself (the loop keeps only a weak reference) and
its exception (reported, if ever, when the garbage collector finds it). A `TaskSet` here holds
its tasks strongly, names them, logs what they raise at once, and ends them all on `close()`.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Coroutine

logger = logging.getLogger(__name__)


class TaskSet:
    """The background tasks of one owner (a plugin, a cluster, a listener).

    `len(task_set)` is the number still running, which leak tests assert to be 0 after `close()`.
    """

    __slots__ = ("_closed", "_name", "_tasks")

    def __init__(self, name: str) -> None:
        self._name = name
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    def __len__(self) -> int:
        return len(self._tasks)

    def __repr__(self) -> str:
        return f"<TaskSet {self._name} running={len(self._tasks)} closed={self._closed}>"

    @property
    def closed(self) -> bool:
        """`close` has been called: nothing more can be started."""
        return self._closed

    def start(self, coro: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Run `coro` in the background under `name`.

        Raises:
            RuntimeError: the set is closed; the coroutine is closed, not leaked.
        """
        if self._closed:
            coro.close()
            message = f"{self._name} is closed: {name} was not started"
            raise RuntimeError(message)
        task = asyncio.get_running_loop().create_task(coro, name=f"{self._name}:{name}")
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("background task %s failed: %r", task.get_name(), error, exc_info=error)

    async def close(self) -> None:
        """Cancel every task and wait until each has ended. Idempotent."""
        self._closed = True
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        if tasks:
            # `wait` does not raise what they raise, and does not mistake our own cancellation for
            # theirs.
            await asyncio.wait(tasks)
            self._tasks.difference_update(tasks)
